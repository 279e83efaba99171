//! Takes the bytes of an upload once, into a folder of our own, and hashes what arrived there.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, OFlags, fstat, readlinkat};
use rustix::io::Errno;

use super::lease::{Writers, writers};
use super::listing::{Entry, Kind, Listing, Stamp, cannot_open};
use super::upload::{TakeError, Upload};
use crate::model::release::Digest;

/// How many bytes are copied between two looks at whether to go on.
const CHUNK: u64 = 16 << 20;

/// One copying of an upload.
pub(super) struct Copy<'a> {
    pub(super) upload: &'a Upload,
    pub(super) listing: &'a Listing,
    /// Set from outside to end it early.
    pub(super) cancelled: &'a AtomicBool,
}

impl Copy<'_> {
    /// Fails unless every file is closed by all its writers.
    pub(super) fn check_writers(&self) -> Result<(), TakeError> {
        for entry in self.listing.files() {
            self.open(entry)?;
        }
        Ok(())
    }

    /// Copies everything into the empty folder `to`, which is ours alone, and hashes the copy.
    pub(super) fn all(&self, to: &Path) -> Result<Digest, TakeError> {
        let mut hash = blake3::Hasher::new();
        for entry in &self.listing.entries {
            let target = to.join(&entry.path);
            let (letter, content) = match entry.kind {
                Kind::Dir => (b'd', self.folder(&target)?),
                Kind::File => {
                    let letter = if entry.stamp.executable() { b'x' } else { b'f' };
                    (letter, self.file(entry, &target)?)
                }
                Kind::Link => (b'l', self.link(entry, &target)?),
            };
            let path = entry.path.as_os_str().as_bytes();
            hash.update(&[letter]).update(&(path.len() as u64).to_le_bytes()).update(path);
            hash.update(&content.0);
        }
        Ok(Digest(*hash.finalize().as_bytes()))
    }

    /// Opens a regular file that is as it was listed and that nobody writes to.
    fn open(&self, entry: &Entry) -> Result<File, TakeError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(TakeError::Changed);
        }
        let shown = || self.upload.shown(&entry.path);
        let fd = self.listing.root(entry)?.open_at(&entry.path, OFlags::RDONLY);
        let fd = fd.map_err(|errno| cannot_open(errno, shown()))?;
        let file = File::from(fd);
        check_unchanged(&file, entry)?;
        match writers(file.as_fd()) {
            Writers::Some => Err(TakeError::BeingWritten(entry.path.clone())),
            Writers::None | Writers::Unknown => Ok(file),
        }
    }

    fn folder(&self, target: &Path) -> Result<Digest, TakeError> {
        let made = fs::create_dir(target).and_then(|()| fs::set_permissions(target, mode(true)));
        made.map_err(|error| self.failed(error))?;
        Ok(Digest([0; 32]))
    }

    fn file(&self, entry: &Entry, target: &Path) -> Result<Digest, TakeError> {
        let source = self.open(entry)?;
        let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(target);
        let copy = options.map_err(|error| self.failed(error))?;
        self.content(&source, &copy, entry.stamp.size)?;
        check_unchanged(&source, entry)?;
        let mut hash = blake3::Hasher::new();
        (&copy)
            .rewind()
            .and_then(|()| hash.update_reader(&copy).map(drop))
            .and_then(|()| copy.set_permissions(mode(entry.stamp.executable())))
            .map_err(|error| self.failed(error))?;
        Ok(Digest(*hash.finalize().as_bytes()))
    }

    fn content(&self, source: &File, copy: &File, size: u64) -> Result<(), TakeError> {
        if rustix::fs::ioctl_ficlone(copy, source).is_ok() {
            return Ok(());
        }
        let mut done = 0;
        while done < size {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(TakeError::Changed);
            }
            // The kernel does the copying where it can (copy_file_range); never more than was listed.
            let chunk = io::copy(&mut source.take(CHUNK.min(size - done)), &mut &*copy);
            match chunk.map_err(|error| self.failed(error))? {
                0 => return Err(TakeError::Changed),
                more => done += more,
            }
        }
        Ok(())
    }

    fn link(&self, entry: &Entry, target: &Path) -> Result<Digest, TakeError> {
        let folder = entry.path.parent().unwrap_or(Path::new(""));
        let name = entry.path.file_name().unwrap_or_default();
        let fd = self.listing.root(entry)?.open_dir(folder);
        let fd = fd.map_err(|errno| cannot_open(errno, self.upload.shown(folder)))?;
        let to = readlinkat(fd, name, Vec::new()).map_err(|_| TakeError::Changed)?;
        let to = to.to_str().map_err(|_| {
            TakeError::refused(format!("the target of {} is not UTF-8", self.upload.shown(&entry.path)))
        })?;
        if let Err(why) = check_target(folder, Path::new(to)) {
            let shown = self.upload.shown(&entry.path);
            return Err(TakeError::refused(format!("the symlink {shown} to {to:?} {why}")));
        }
        symlink(to, target).map_err(|error| self.failed(error))?;
        Ok(Digest(*blake3::hash(to.as_bytes()).as_bytes()))
    }

    fn failed(&self, error: io::Error) -> TakeError {
        let from = self.upload.dir.display();
        let doing = match Errno::from_io_error(&error) {
            Some(Errno::NOSPC | Errno::DQUOT) => {
                format!(
                    "the disk has no room for a copy of {from} ({} bytes)",
                    super::upload::thousands(self.listing.bytes)
                )
            }
            _ => format!("could not copy {from} into the release store"),
        };
        TakeError::io(doing, error)
    }
}

/// The only two modes that files and folders of a release have.
pub(super) fn mode(executable: bool) -> Permissions {
    Permissions::from_mode(if executable { 0o755 } else { 0o644 })
}

fn check_unchanged(file: &File, entry: &Entry) -> Result<(), TakeError> {
    let stat = fstat(file).map_err(|_| TakeError::Changed)?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if regular && Stamp::of(&stat) == entry.stamp { Ok(()) } else { Err(TakeError::Changed) }
}

/// Whether a symlink in `folder` to `target` stays within the release. `..` may stand only at its beginning: then
/// counting folders says where it leads even if the others on its way are symlinks, which stay within as well.
fn check_target(folder: &Path, target: &Path) -> Result<(), &'static str> {
    let mut here: PathBuf = folder.to_owned();
    let mut down = false;
    for component in target.components() {
        match component {
            Component::Prefix(_) | Component::RootDir => return Err("is absolute; make it relative"),
            Component::ParentDir if down => return Err("has '..' in its middle; write it without"),
            Component::ParentDir if !here.pop() => return Err("leads out of the upload"),
            Component::ParentDir | Component::CurDir => {}
            Component::Normal(_) => down = true,
        }
    }
    if target.to_str().is_some_and(|text| text.chars().any(char::is_control)) {
        return Err("has control characters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symlinks_stay_within() {
        let ok = |folder: &str, target: &str| check_target(Path::new(folder), Path::new(target)).is_ok();
        assert!(ok("", "web-1.2") && ok("", "bin/web") && ok("a/b", "../../web") && ok("a", ".."));
        assert!(!ok("", "..") && !ok("a", "../../web") && !ok("", "/etc/passwd") && !ok("", "a/../../x"));
        assert!(!ok("", "a/../b") && !ok("", "a\nb"));
    }
}
