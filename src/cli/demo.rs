//! `dorc demo`

use std::process::ExitCode;

use clap::Args;

/// Options of `dorc demo`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(_options: &Options) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::FAILURE)
}
