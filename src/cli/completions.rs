//! `dorc completions`

use std::process::ExitCode;

use clap::Args;

/// Options of `dorc completions`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The shell
    shell: clap_complete::Shell,
}

pub(super) fn run(options: &Options, command: &mut clap::Command) -> ExitCode {
    clap_complete::generate(options.shell, command, "dorc", &mut std::io::stdout());
    ExitCode::SUCCESS
}
