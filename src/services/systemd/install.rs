//! Units that are not services of an app: `dorc.service` itself. And what belongs to an app but not to a service.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::model::app::AppName;
use crate::services::ServiceError;

use super::bus::{Verb, supervisor};
use super::{Systemd, blocking, files, state_directory};

/// How long a unit that is not ours to time may take to start.
const START_PATIENCE: Duration = Duration::from_secs(120);

impl Systemd {
    /// Whether this host was booted by systemd.
    #[must_use]
    pub fn is_booted() -> bool {
        sd_notify::booted().unwrap_or(false)
    }

    /// Writes the unit `name` (with its `.service`) where it differs, and enables it; `true` if it was written.
    ///
    /// # Errors
    /// It can't be written, or systemd refuses it.
    pub async fn install_unit(&self, name: &str, text: &str) -> Result<bool, ServiceError> {
        let (path, owned) = (self.places.units.join(name), text.to_owned());
        let written = blocking(move || files::write_if_changed(&path, &owned, 0o644))
            .await
            .map_err(|error| supervisor(format!("{name} can't be written: {error}")))?;
        let (_, changes) = self.bus.manager().await?.enable_unit_files(&[name], false, true).await?;
        if written || !changes.is_empty() {
            self.bus.reload().await?;
        }
        Ok(written)
    }

    /// Starts the unit `name` and waits until it is up; one that is up stays as it is.
    ///
    /// # Errors
    /// It did not come up, and why.
    pub async fn start_unit(&self, name: &str) -> Result<(), ServiceError> {
        self.up(name, Verb::Start).await
    }

    /// As [`start_unit`](Self::start_unit), but what runs ends first.
    ///
    /// # Errors
    /// It did not come up, and why.
    pub async fn restart_unit(&self, name: &str) -> Result<(), ServiceError> {
        self.up(name, Verb::Restart).await
    }

    async fn up(&self, name: &str, verb: Verb) -> Result<(), ServiceError> {
        match self.bus.job(name, verb, START_PATIENCE).await?.as_deref() {
            Some("done") => Ok(()),
            Some("failed" | "timeout") => Err(ServiceError::Failed(self.outcome(name).await?.exit())),
            Some(result) => Err(supervisor(format!("the start of {name} was {result}"))),
            None => Err(supervisor(format!("there is no unit {name}"))),
        }
    }

    /// Whether the unit `name` is up with this very program file, and not with one that was there before it.
    ///
    /// # Errors
    /// systemd does not answer.
    pub async fn runs_program(&self, name: &str, program: &Path) -> Result<bool, ServiceError> {
        let Some(pid) = self.main_pid(name).await? else { return Ok(false) };
        let same = |file: fs::Metadata| (file.dev(), file.ino());
        let running = fs::metadata(format!("/proc/{pid}/exe")).map(same).ok();
        Ok(running.is_some() && running == fs::metadata(program).map(same).ok())
    }

    /// Whether the unit `name` is up.
    ///
    /// # Errors
    /// systemd does not answer.
    pub async fn is_unit_active(&self, name: &str) -> Result<bool, ServiceError> {
        Ok(matches!(self.bus.unit(name).await?.active_state().await?.as_str(), "active" | "reloading"))
    }

    /// Stops the unit `name`, disables and deletes it; `false` if there was none.
    ///
    /// # Errors
    /// It can't be stopped or deleted.
    pub async fn uninstall_unit(&self, name: &str) -> Result<bool, ServiceError> {
        let disabled = self.disable(name).await?;
        let path = self.places.units.join(name);
        let deleted = blocking(move || files::remove(&path))
            .await
            .map_err(|error| supervisor(format!("{name} can't be deleted: {error}")))?;
        if disabled || deleted {
            self.bus.reload().await?;
        }
        Ok(deleted)
    }

    /// Deletes the state directory of an app, which is its users' data: for `dorc remove --purge` only, after `remove` of both
    /// services.
    ///
    /// # Errors
    /// It can't be deleted.
    pub async fn purge_state(&self, app: &AppName) -> Result<(), ServiceError> {
        let (owned, places) = (app.clone(), self.places.clone());
        blocking(move || state_directory::purge(&owned, &places))
            .await
            .map_err(|error| supervisor(format!("the state directory of {app} can't be deleted: {error}")))
    }
}
