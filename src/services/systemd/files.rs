//! Files that are whole or not there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

/// Writes `text` to `path` by way of a rename; the time of the file is that of the call.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let new = dir.join(format!(".{name}.new"));
    remove(&new)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    // The umask may have taken bits away.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.set_modified(SystemTime::now())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}

/// As `write`, where `path` does not hold `text` already; true if it was written.
pub(super) fn write_if_changed(path: &Path, text: &str, mode: u32) -> io::Result<bool> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(false);
    }
    write(path, text, mode)?;
    Ok(true)
}

/// Moves a file away that somebody else wrote, so that it is not lost; true if there was one.
pub(super) fn set_aside(path: &Path, is_ours: impl Fn(&str) -> bool) -> io::Result<bool> {
    match fs::read_to_string(path) {
        Ok(text) if is_ours(&text) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        _ => {}
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(".before-dorc");
    fs::rename(path, aside)?;
    Ok(true)
}

/// Makes a folder that everybody may pass through and only root may look into.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o711).create(path)
}

/// Deletes a file; true if there was one.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
