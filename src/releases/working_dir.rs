//! Copies a release into a working directory, where a service runs and keeps files of its own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, renameat, symlinkat, unlinkat};
use rustix::io::Errno;

use super::beneath::Root;
use super::copy::mode;
use super::store::{SYNCED_ONE_BY_ONE, visit};

/// Copies the release at `release` over what is in `to`. Whoever the service runs as may own `to`, so nothing is
/// written through a symlink in there.
pub(super) fn copy(release: &Path, to: &Path) -> io::Result<()> {
    if !to.exists() {
        fs::create_dir_all(to)?;
        fs::set_permissions(to, mode(true))?;
    }
    let root = Root::open(to)?;
    let mut count = 0;
    visit(release, &mut |entry| {
        let source = entry.path();
        let relative = source.strip_prefix(release).map_err(io::Error::other)?;
        count += 1;
        put(entry, &root, relative, count <= SYNCED_ONE_BY_ONE).map_err(|error| {
            io::Error::new(error.kind(), format!("could not write {}: {error}", to.join(relative).display()))
        })
    })?;
    if count > SYNCED_ONE_BY_ONE {
        rustix::fs::syncfs(root.open_dir(Path::new(""))?)?;
    }
    Ok(())
}

fn put(entry: &fs::DirEntry, root: &Root, relative: &Path, sync: bool) -> io::Result<()> {
    let folder = root.open_dir(relative.parent().unwrap_or(Path::new("")))?;
    let name = entry.file_name();
    let kind = entry.file_type()?;
    if kind.is_dir() {
        return put_folder(folder.as_fd(), &name, root, relative);
    }
    let mut new = OsString::from(".");
    new.push(&name);
    new.push(".dorc-new");
    // One from an interrupted copying.
    match unlinkat(&folder, &new, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    if kind.is_symlink() {
        symlinkat(fs::read_link(entry.path())?, &folder, &new)?;
    } else {
        let file = put_file(&entry.path(), folder.as_fd(), &new)?;
        if sync {
            file.sync_data()?;
        }
    }
    Ok(renameat(&folder, &new, &folder, &name)?)
}

fn put_folder(folder: BorrowedFd<'_>, name: &OsString, root: &Root, relative: &Path) -> io::Result<()> {
    match mkdirat(folder, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => File::from(root.open_dir(relative)?).set_permissions(mode(true)),
        // A folder already, or else this fails with what it is.
        Err(Errno::EXIST) => Ok(root.open_dir(relative).map(drop)?),
        Err(errno) => Err(errno.into()),
    }
}

fn put_file(source: &Path, folder: BorrowedFd<'_>, new: &OsString) -> io::Result<File> {
    let source = File::open(source)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = File::from(openat(folder, new, flags, Mode::from_raw_mode(0o600))?);
    if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
        io::copy(&mut &source, &mut &target)?;
    }
    target.set_permissions(source.metadata()?.permissions())?;
    Ok(target)
}
