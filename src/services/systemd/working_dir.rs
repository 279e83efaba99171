//! A working directory outside the release, handed to the app's dynamic user.
//!
//! systemd chooses a dynamic user's number when the service starts, and that is too late to give it a directory. But it takes
//! the owner of the state directory where there is one; so the state directory is made first, and the choice with it.

use std::fs::{self, DirBuilder};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::Path;

use crate::model::app::{AppName, Service};
use crate::services::unit::Places;

/// The numbers that systemd gives to dynamic users.
const DYNAMIC: RangeInclusive<u32> = 61_184..=65_519;

/// Where no directory is a service's, whatever an app file says.
const SYSTEM: [&str; 11] =
    ["/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr"];

/// Hands the working directory of `service` to its dynamic user, if it is root's so far. What is in it stays as it is.
pub(super) fn prepare(service: &Service, places: &Places) -> io::Result<()> {
    let dir = &service.working_dir;
    let of_the_system = SYSTEM.iter().any(|system| dir.starts_with(system)) || dir.components().count() < 3;
    if service.user.is_some() || dir.starts_with(&service.dir) || of_the_system {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    let found = fs::symlink_metadata(dir)?;
    let owner = found.uid();
    if !found.is_dir() || !(owner == 0 || DYNAMIC.contains(&owner)) {
        return Ok(());
    }
    match user_id(&service.id.app, places)? {
        Some(user) if user != owner => chown(dir, Some(user), Some(user)),
        _ => Ok(()),
    }
}

/// The number that systemd will give to the app's user; `None`: its state directory is not systemd's to give.
fn user_id(app: &AppName, places: &Places) -> io::Result<Option<u32>> {
    let private = places.state_directories.join("private");
    let state = private.join(app.as_str());
    if let Ok(found) = fs::symlink_metadata(&state) {
        return Ok(Some(found.uid()).filter(|owner| DYNAMIC.contains(owner)));
    }
    if fs::symlink_metadata(places.state_directories.join(app.as_str())).is_ok_and(|found| found.is_dir()) {
        return Ok(None);
    }
    DirBuilder::new().recursive(true).mode(0o700).create(&private)?;
    let Some(user) = free_user_id(app, &private)? else { return Ok(None) };
    fs::create_dir(&state)?;
    chown(&state, Some(user), Some(user))?;
    Ok(Some(user))
}

/// A number that no app and no running dynamic user has; always the same one where it is free.
fn free_user_id(app: &AppName, private: &Path) -> io::Result<Option<u32>> {
    let owners: Vec<u32> =
        fs::read_dir(private)?.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.uid())).collect();
    let [a, b, c, d, ..] = *blake3::hash(app.as_str().as_bytes()).as_bytes();
    let count = DYNAMIC.end() - DYNAMIC.start() + 1;
    let first = u32::from_be_bytes([a, b, c, d]) % count;
    let free = |user: &u32| {
        !owners.contains(user) && !Path::new("/run/systemd/dynamic-uid").join(user.to_string()).exists()
    };
    Ok((0..count).map(|step| DYNAMIC.start() + (first + step) % count).find(free))
}
