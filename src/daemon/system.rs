//! The system's daemon: the one that systemd runs, and that runs services by systemd.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use super::{Daemon, Places, Settings, told_to_end};
use crate::model::app::{AppName, ServiceId};
use crate::model::colour::Colour;
use crate::model::hooks::Hook;
use crate::routing::kernel::Kernel;
use crate::services::systemd::Systemd;
use crate::services::unit;

/// The unit of the daemon itself.
pub const UNIT_NAME: &str = "dorc.service";

/// Whether this host was booted by systemd.
#[must_use]
pub fn is_booted() -> bool {
    Systemd::is_booted()
}

/// Is the system's daemon until it is told to end.
///
/// # Errors
/// systemd does not answer, or another daemon runs.
pub async fn serve(threads: usize) -> anyhow::Result<()> {
    let end = told_to_end()?;
    let services = Systemd::connect(unit::Places::default()).await?;
    let settings = Settings { places: Places::system(), threads };
    Daemon::start(settings, Arc::new(services)).await?.run(end).await
}

/// Writes the daemon's unit, enables and starts it. A daemon that runs from an earlier unit or program is started again:
/// clients wait meanwhile, services go on.
///
/// # Errors
/// It can't be written, or does not start.
pub async fn install(unit_text: &str, program: &Path) -> anyhow::Result<()> {
    let systemd = Systemd::connect(unit::Places::default()).await?;
    let written = systemd.install_unit(UNIT_NAME, unit_text).await?;
    if written || !systemd.runs_program(UNIT_NAME, program).await? {
        systemd.restart_unit(UNIT_NAME).await?;
    }
    Ok(())
}

/// Stops, disables and deletes the daemon's unit, and what it left in the kernel; false if there was no unit.
///
/// # Errors
/// Something can't be stopped or deleted.
pub async fn uninstall() -> anyhow::Result<bool> {
    let systemd = Systemd::connect(unit::Places::default()).await?;
    let stopped = systemd.uninstall_unit(UNIT_NAME).await?;
    if let Some(folder) = Places::system().pins {
        Kernel::take_down(&folder).context("the kernel plane could not be taken down")?;
    }
    Ok(stopped)
}

/// The units that write the logs of a service: its own, and those of its hooks.
#[must_use]
pub fn units(app: &AppName, colour: Colour) -> Vec<String> {
    let id = ServiceId { app: app.clone(), colour };
    let hooks = Hook::ALL.map(|hook| unit::hook_unit_name(&id, hook));
    hooks.into_iter().chain([unit::unit_name(&id)]).collect()
}

/// Deletes what an app that was removed stored in its state directory.
///
/// # Errors
/// It can't be deleted.
pub async fn purge_state(app: &AppName) -> anyhow::Result<()> {
    let systemd = Systemd::connect(unit::Places::default()).await?;
    Ok(systemd.purge_state(app).await?)
}
