//! `dorc up`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::{daemon, fail, runtime, say};
use crate::control::Apps;
use crate::control::api::exit;
use crate::daemon::local::Local;
use crate::daemon::told_to_end;

/// Options of `dorc up`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The folder with the app files [default: this one]
    folder: Option<PathBuf>,
}

pub(super) fn run(options: Options, dir: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    daemon::log();
    let dir = options.folder.or(dir).unwrap_or_else(|| PathBuf::from("."));
    let dir = std::fs::canonicalize(&dir).with_context(|| format!("{} can't be used", dir.display()))?;
    runtime()?.block_on(async {
        let end = told_to_end()?;
        let up = Local::start(&dir).await?;
        let registry = up.registry();
        for (app, problem) in registry.broken() {
            say::error(&format!("{app}: {problem}"));
        }
        if registry.handles().is_empty() {
            if !registry.broken().is_empty() {
                return Err(fail(exit::FAILED, "none of the app files could be taken"));
            }
            say::line(&format!("no app file (*.toml) in {} yet: dorc register", dir.display()));
        }
        up.run(end).await
    })?;
    Ok(ExitCode::SUCCESS)
}
