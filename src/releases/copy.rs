//! Takes the bytes of an upload once, into a folder of our own, and hashes what arrived there.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, OFlags, fstat, readlinkat};
use rustix::io::Errno;

use super::digest::{self, Content, TreeDigest};
use super::lease::{Writers, writers};
use super::listing::{Entry, Kind, Listing, Stamp, cannot_open};
use super::upload::{TakeError, Upload, thousands};
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
        let mut tree = TreeDigest::default();
        for entry in &self.listing.entries {
            let target = to.join(&entry.path);
            let content = match entry.kind {
                Kind::Dir => {
                    make_folder(&target).map(|()| Content::Folder).map_err(|error| self.failed(error))?
                }
                Kind::File => {
                    Content::File { executable: entry.stamp.executable(), digest: self.file(entry, &target)? }
                }
                Kind::Link => Content::Link(self.link(entry, &target)?),
            };
            tree.add(&entry.path, &content);
        }
        Ok(tree.finish())
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

    fn file(&self, entry: &Entry, target: &Path) -> Result<Digest, TakeError> {
        let source = self.open(entry)?;
        let copy = make_file(target).map_err(|error| self.failed(error))?;
        self.content(&source, &copy, entry.stamp.size)?;
        check_unchanged(&source, entry)?;
        let mut hash = blake3::Hasher::new();
        (&copy)
            .rewind()
            .and_then(|()| hash.update_reader(&copy).map(drop))
            .and_then(|()| copy.set_permissions(mode(entry.stamp.executable())))
            .map_err(|error| self.failed(error))?;
        Ok(digest::of(&hash))
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
        check_link(&entry.path, to.as_bytes(), &self.upload.shown(&entry.path))?;
        make_link(to.as_bytes(), target).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> TakeError {
        cannot_write(&self.upload.dir.display().to_string(), self.listing.bytes, error)
    }
}

/// Why `bytes` of `from` did not get into the store.
pub(super) fn cannot_write(from: &str, bytes: u64, error: io::Error) -> TakeError {
    let doing = match Errno::from_io_error(&error) {
        Some(Errno::NOSPC | Errno::DQUOT) => {
            format!("the disk has no room for a copy of {from} ({} bytes)", thousands(bytes))
        }
        _ => format!("could not copy {from} into the release store"),
    };
    TakeError::io(doing, error)
}

/// Makes a folder of a release.
pub(super) fn make_folder(target: &Path) -> io::Result<()> {
    fs::create_dir(target).and_then(|()| fs::set_permissions(target, mode(true)))
}

/// Makes a file of a release, which gets its mode once it is whole.
pub(super) fn make_file(target: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(target)
}

/// Makes a symlink of a release, and says what its digest is.
pub(super) fn make_link(to: &[u8], target: &Path) -> io::Result<Digest> {
    symlink(OsStr::from_bytes(to), target)?;
    Ok(Digest(*blake3::hash(to).as_bytes()))
}

/// Refuses a symlink at `path` of the release that does not stay within it.
pub(super) fn check_link(path: &Path, to: &[u8], shown: &str) -> Result<(), TakeError> {
    let Ok(to) = std::str::from_utf8(to) else {
        return Err(TakeError::refused(format!("the target of {shown} is not UTF-8")));
    };
    check_target(path.parent().unwrap_or(Path::new("")), Path::new(to))
        .map_err(|why| TakeError::refused(format!("the symlink {shown} to {to:?} {why}")))
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
