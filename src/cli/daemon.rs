//! `dorc daemon`

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;

use super::{fail, runtime};
use crate::control::api::exit;
use crate::daemon::system;

/// Options of `dorc daemon`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// How many threads move bytes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        return Err(fail(exit::NOT_PERMITTED, "the daemon runs as root; without root there is: dorc up"));
    }
    log();
    let threads = usize::from(options.threads);
    runtime()?.block_on(system::serve(threads))?;
    Ok(ExitCode::SUCCESS)
}

/// Logs to standard error, where the journal takes it and adds the time.
pub(super) fn log() {
    let level =
        if std::env::var_os("DORC_DEBUG").is_some() { tracing::Level::DEBUG } else { tracing::Level::INFO };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .init();
}
