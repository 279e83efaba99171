//! `dorc up`

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;

use super::{daemon, fail, runtime, say};
use crate::control::Apps;
use crate::control::api::exit;
use crate::daemon::{Daemon, Places, Settings, told_to_end};
use crate::services::embedded::Embedded;

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
    let places = Places::local(&dir);
    runtime()?.block_on(async {
        let end = told_to_end()?;
        let services = Arc::new(services(&places)?);
        let up = Daemon::start(Settings { places, threads: 1 }, services.clone()).await?;
        let registry = up.registry();
        for (app, problem) in registry.broken() {
            say::error(&format!("{app}: {problem}"));
        }
        if registry.handles().is_empty() {
            let broken = registry.broken().len();
            if broken > 0 {
                return Err(fail(exit::FAILED, "none of the app files could be taken"));
            }
            say::line(&format!("no app file (*.toml) in {} yet: dorc register", dir.display()));
        }
        let result = up.run(end).await;
        services.shutdown().await;
        result
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The supervisor of `dorc up`.
pub(super) fn services(places: &Places) -> std::io::Result<Embedded> {
    // Not the path: an update may replace the file while this runs.
    std::env::current_exe()?;
    Ok(Embedded::new(PathBuf::from("/proc/self/exe"), places.state.join("services")))
}
