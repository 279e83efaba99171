//! Files of apps and their state, as the registry needs them.

use std::io;
use std::path::{Path, PathBuf};

use super::Places;
use crate::config::{self, Severity};
use crate::model::app::{App, AppName};
use crate::state::{AppState, ReadError, StateDir};

impl Places {
    /// The app files, by name.
    #[must_use]
    pub fn app_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(&self.apps)
            .map(|entries| entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect())
            .unwrap_or_default();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        files
    }

    /// Reads an app file: the app, or its problems, a line each.
    pub(super) async fn read(&self, file: &Path) -> Result<App, String> {
        let (file, base) = (file.to_owned(), self.base.clone());
        let loaded = tokio::task::spawn_blocking(move || config::load(&file, base.as_deref())).await;
        match loaded {
            Ok(Ok(loaded)) => {
                loaded.notes.iter().for_each(|note| tracing::warn!("{note}"));
                Ok(loaded.app)
            }
            Ok(Err(problems)) => Err(lines(&problems)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Keeps a copy of an app file that was right, for when it no longer is.
    pub(super) async fn keep_good_copy(&self, name: &AppName) {
        let (file, copy) = (self.app_file(name), self.last_good_file(name));
        let copied = tokio::task::spawn_blocking(move || {
            let new = copy.with_extension("toml.new");
            std::fs::copy(file, &new).and_then(|_| std::fs::rename(new, copy))
        });
        if let Ok(Err(error)) = copied.await {
            tracing::warn!(app = %name, %error, "no copy of the app file could be kept");
        }
    }

    /// An app file that stayed would be loaded at the next start; it is kept under another name.
    pub(super) fn put_away(&self, name: &AppName, purge: bool) -> io::Result<String> {
        let file = self.app_file(name);
        if purge {
            std::fs::remove_file(&file)?;
            return Ok("removed, with its releases and its app file".into());
        }
        let kept = file.with_extension("toml.removed");
        std::fs::rename(&file, &kept)?;
        Ok(format!("removed; its app file is {} now, its releases were kept", kept.display()))
    }
}

/// Reads the state of an app. Broken state is put aside, and the app begins anew rather than not at all.
pub(super) async fn read_state(dir: &StateDir) -> Result<AppState, String> {
    let reader = dir.clone();
    let read = tokio::task::spawn_blocking(move || {
        let read = reader.read();
        if matches!(read, Ok((_, Some(_))) | Err(ReadError::Broken { .. })) {
            reader.set_aside()?;
        }
        Ok::<_, io::Error>(read)
    });
    match read.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())? {
        Ok((state, warning)) => {
            if let Some(warning) = warning {
                tracing::error!("{warning}");
            }
            Ok(state)
        }
        Err(ReadError::Missing) => Ok(AppState::default()),
        Err(error) => {
            tracing::error!(%error, "the state is lost; the app begins anew");
            Ok(AppState::default())
        }
    }
}

/// Refuses on errors, warns of the rest.
pub(super) fn refuse_errors(problems: Vec<config::Problem>) -> Result<(), String> {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        problems.into_iter().partition(|problem| problem.severity == Severity::Error);
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if errors.is_empty() { Ok(()) } else { Err(lines(&errors)) }
}

/// Problems, a line each.
pub(super) fn lines(problems: &[config::Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
