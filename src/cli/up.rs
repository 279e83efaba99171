//! `dorc up`

use std::path::{Path, PathBuf};
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
        if registry.handles().is_empty() && !registry.broken().is_empty() {
            return Err(fail(exit::FAILED, "none of the app files could be taken"));
        }
        announce(&dir, registry.as_ref());
        up.run(end).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Says what runs, and how to go on in another terminal.
fn announce(dir: &Path, apps: &impl Apps) {
    let folder = dir.display();
    say::line(&format!("dorc runs in {folder}, until Ctrl-C."));
    let handles = apps.handles();
    if handles.is_empty() {
        say::line("There is no app file (*.toml) in it yet. In another terminal:");
        say::hint("first app", &format!("cd {folder} && dorc register"));
    } else {
        let names: Vec<String> = handles.iter().map(|handle| handle.name().to_string()).collect();
        say::hint("apps", &names.join(" "));
        say::hint("look", &format!("in another terminal: cd {folder} && dorc status"));
    }
}
