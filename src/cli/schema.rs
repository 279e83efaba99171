//! `dorc schema`

use std::process::ExitCode;

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::say;
use crate::control::api;

/// Options of `dorc schema`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// What it is the schema of: what dorc status, releases, history and demo print, an event while a command waits, its
    /// answer at the end, or that of a deployment on several hosts
    #[arg(value_parser = PossibleValuesParser::new(api::SUBJECTS))]
    subject: String,
}

pub(super) fn run(options: &Options) -> ExitCode {
    // The parser takes no other.
    api::schema(&options.subject).iter().for_each(|schema| say::line(schema));
    ExitCode::SUCCESS
}
