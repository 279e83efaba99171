//! `dorc man`

use std::process::ExitCode;

pub(super) fn run(command: clap::Command) -> anyhow::Result<ExitCode> {
    clap_mangen::Man::new(command).render(&mut std::io::stdout())?;
    Ok(ExitCode::SUCCESS)
}
