//! The state directory of an app, `/var/lib/{app}`: its data, which dorc neither takes from others nor deletes unasked.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::accounts;
use crate::model::app::{AppName, Service, ServiceId};
use crate::model::colour::Colour;
use crate::services::ServiceError;
use crate::services::unit::Places;

/// Refuses a service whose state directory belongs to something else.
///
/// systemd would hand the whole of it to the service's user: an app called `postgresql` must not get PostgreSQL's data. Where
/// one of the app's units exists already, the directory is the app's own.
pub(super) fn check(service: &Service, places: &Places) -> Result<(), ServiceError> {
    if let Some(file) = service.env_file.as_ref().filter(|file| !file.is_file()) {
        return Err(ServiceError::Unsupported(format!(
            "the env_file {} is not there, or no file",
            file.display()
        )));
    }
    let app = &service.id.app;
    let path = places.state_directories.join(app.as_str());
    let is_ours = Colour::BOTH
        .iter()
        .any(|colour| places.unit_file(&ServiceId { app: app.clone(), colour: *colour }).exists());
    let foreign = match fs::symlink_metadata(&path) {
        Ok(found) if found.is_symlink() => fs::read_link(&path).ok() != Some(private_link(app)),
        Ok(found) => service.user.as_deref().is_none_or(|user| accounts::user_id(user) != Some(found.uid())),
        Err(_) => false,
    };
    if foreign && !is_ours {
        return Err(ServiceError::Unsupported(format!(
            "{} is there already and would be handed to {app}: give the app another name, or move that away",
            path.display()
        )));
    }
    Ok(())
}

/// Deletes the state directory of an app; its services must be stopped.
pub(super) fn purge(app: &AppName, places: &Places) -> io::Result<()> {
    let path = places.state_directories.join(app.as_str());
    let private = places.state_directories.join(private_link(app));
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_symlink() && fs::read_link(&path)? == private_link(app) => {
            fs::remove_file(&path)?
        }
        Ok(found) if found.is_dir() => remove_dir(&path)?,
        _ => {}
    }
    remove_dir(&private)
}

fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Where systemd's link from the state directory of a dynamic user leads.
fn private_link(app: &AppName) -> PathBuf {
    Path::new("private").join(app.as_str())
}
