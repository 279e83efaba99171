//! Hooks as units that run once: written for the run, and deleted after it.

use std::time::SystemTime;

use super::bus::Verb;
use super::verify::{Meant, verify};
use super::{MARGIN, Systemd, blocking, files, journal, refused, supervisor};
use crate::model::app::{Service, ServiceId};
use crate::model::hooks::Hook;
use crate::services::unit::{self, STOP_TIMEOUT, hook_unit_name};
use crate::services::{Finished, HOOK_LINES, ServiceError};

impl Systemd {
    /// Runs a hook to its end. It is not run again where the bus is lost meanwhile: it may have done its work.
    pub(super) async fn run_hook(&self, hook: Hook, service: &Service) -> Result<Finished, ServiceError> {
        let name = hook_unit_name(&service.id, hook);
        // One that was given up, or outlived a daemon, must not run beside this one.
        self.stop_job(&name).await?;
        self.install_hook(hook, service).await?;
        let begin = SystemTime::now();
        let patience = service.start_timeout + STOP_TIMEOUT + MARGIN;
        let result = self.bus.job(&name, Verb::Start, patience).await;
        // Asked before it is forgotten.
        let outcome = self.outcome(&name).await;
        let failure = match result.as_ref().map(Option::as_deref) {
            Ok(Some("done")) => None,
            _ => Some(outcome?.failure_of(service)),
        };
        let lines = journal::last_lines(&name, Some(begin), HOOK_LINES).await;
        self.forget_hook(&service.id, hook).await?;
        result.map(|_| Finished { failure, lines })
    }

    async fn install_hook(&self, hook: Hook, service: &Service) -> Result<(), ServiceError> {
        let text = refused(unit::render_hook(hook, service, &self.places))?;
        let environment = refused(unit::environment(service))?;
        let id = &service.id;
        let (unit_file, env_file) = (self.places.hook_file(id, hook), self.places.hook_env_file(id, hook));
        blocking(move || {
            for dir in [&unit_file, &env_file].into_iter().filter_map(|file| file.parent()) {
                files::make_dir(dir)?;
            }
            files::write(&env_file, &environment, 0o600)?;
            files::write(&unit_file, &text, 0o644)
        })
        .await
        .map_err(|error| supervisor(format!("the files of the hook {hook} can't be written: {error}")))?;
        self.bus.reload().await?;
        verify(&self.bus, &Meant::hook(hook, service, &self.places)).await
    }

    /// Stops a hook and deletes its files; true if there were some.
    async fn forget_hook(&self, id: &ServiceId, hook: Hook) -> Result<bool, ServiceError> {
        self.stop_job(&hook_unit_name(id, hook)).await?;
        let (unit_file, env_file) = (self.places.hook_file(id, hook), self.places.hook_env_file(id, hook));
        blocking(move || Ok(files::remove(&env_file)? | files::remove(&unit_file)?))
            .await
            .map_err(|error| supervisor(format!("the files of the hook {hook} can't be deleted: {error}")))
    }

    /// The same for all hooks of a service, which may be there still if a daemon died.
    pub(super) async fn forget_hooks(&self, id: &ServiceId) -> Result<(), ServiceError> {
        for hook in Hook::ALL {
            self.forget_hook(id, hook).await?;
        }
        Ok(())
    }
}
