//! What an upload consists of: every name in it, checked, with what tells whether it changed.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;

use super::beneath::Root;
use super::upload::{Limits, TakeError, Upload};
use crate::model::app::ReleaseBin;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A folder.
    Dir,
    /// A regular file.
    File,
    /// A symlink.
    Link,
}

/// What differs once a file was changed or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    mode: u32,
    ino: u64,
    modified: (i64, u64),
    changed: (i64, u64),
}

impl Stamp {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode,
            ino: stat.st_ino,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// Whether anybody may execute it.
    pub(super) const fn executable(&self) -> bool {
        self.mode & 0o111 != 0
    }
}

/// One file, folder or symlink of an upload.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its path in the release, which is also its path beneath its root.
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    pub(super) stamp: Stamp,
    /// Whether it is the binary that lies outside of the release directory.
    outside: bool,
}

/// A whole upload, sorted by path, so that a folder precedes what is in it.
pub(super) struct Listing {
    dir: Option<Root>,
    beside: Option<Root>,
    pub(super) entries: Vec<Entry>,
    pub(super) bytes: u64,
}

impl Listing {
    /// Lists `upload` without opening a file of it.
    pub(super) fn of(upload: &Upload, limits: &Limits) -> Result<Self, TakeError> {
        let mut listing = Self { dir: open(&upload.dir)?, beside: None, entries: Vec::new(), bytes: 0 };
        if let Some(root) = &listing.dir {
            listing.entries = Walk { upload, limits, root }.all()?;
        }
        if let ReleaseBin::Outside(bin) = &upload.bin {
            listing.add_outside(upload, bin)?;
        }
        listing.entries.sort_unstable_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
        listing.bytes = listing.files().fold(0, |sum, entry| entry.stamp.size.saturating_add(sum));
        listing.check(upload, limits)?;
        Ok(listing)
    }

    /// The regular files.
    pub(super) fn files(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.kind == Kind::File)
    }

    /// Where `entry` is opened from.
    pub(super) fn root(&self, entry: &Entry) -> Result<&Root, TakeError> {
        let root = if entry.outside { &self.beside } else { &self.dir };
        root.as_ref().ok_or(TakeError::Changed)
    }

    /// A text that stays the same as long as nothing of the upload is changed.
    pub(super) fn fingerprint(&self, upload: &Upload) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(format!("{upload:?}").as_bytes());
        for Entry { path, kind, stamp, outside } in &self.entries {
            hash.update(format!("\n{path:?} {kind:?} {stamp:?} {outside}").as_bytes());
        }
        hash.finalize().to_hex().to_string()
    }

    fn add_outside(&mut self, upload: &Upload, bin: &Path) -> Result<(), TakeError> {
        let path = upload.bin.in_release();
        let Some(root) = bin.parent().map(open).transpose()?.flatten() else { return Ok(()) };
        let Ok(stat) = stat_in(&root, &path) else { return Ok(()) };
        let stamp = Stamp::of(&stat);
        if let Some(same) = self.entries.iter().find(|entry| entry.path == path) {
            return if same.stamp == stamp {
                Ok(())
            } else {
                let (both, name) = (upload.dir.join(&path), path.display());
                Err(TakeError::refused(format!(
                    "{} and {} would both be {name} in the release",
                    both.display(),
                    bin.display()
                )))
            };
        }
        let kind = kind_of(&stat, &upload.shown(&path))?;
        if kind == Kind::Link {
            let reason = format!("{} is a symlink; name the program itself", bin.display());
            return Err(TakeError::refused(reason));
        }
        self.entries.push(Entry { path, kind, stamp, outside: true });
        self.beside = Some(root);
        Ok(())
    }

    fn check(&self, upload: &Upload, limits: &Limits) -> Result<(), TakeError> {
        if self.entries.is_empty() {
            return Err(TakeError::Nothing);
        }
        limits.check_bytes(self.bytes)?;
        let bin = upload.bin.in_release();
        match self.entries.iter().find(|entry| entry.path == bin).map(|entry| entry.kind) {
            Some(Kind::File | Kind::Link) => Ok(()),
            Some(Kind::Dir) => {
                Err(TakeError::refused(format!("{} is a folder, not a program", upload.shown(&bin))))
            }
            None => {
                let (dir, bin) = (upload.dir.display(), bin.display());
                Err(TakeError::refused(match &upload.bin {
                    ReleaseBin::Inside(_) => format!("{dir} has no {bin}, which is the release binary"),
                    ReleaseBin::Outside(path) => {
                        format!("there is no {}, which is the release binary", path.display())
                    }
                }))
            }
        }
    }
}

/// Opens a folder of the configuration; `None` where there is none.
fn open(path: &Path) -> Result<Option<Root>, TakeError> {
    match Root::open(path) {
        Ok(root) => Ok(Some(root)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(TakeError::refused(format!("{} is not a folder", path.display())))
        }
        Err(error) => Err(TakeError::io(format!("could not open {}", path.display()), error)),
    }
}

fn stat_in(root: &Root, name: &Path) -> Result<Stat, Errno> {
    fs::statat(root.open_dir(Path::new(""))?, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn kind_of(stat: &Stat, shown: &str) -> Result<Kind, TakeError> {
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(Kind::File),
        FileType::Directory => return Ok(Kind::Dir),
        FileType::Symlink => return Ok(Kind::Link),
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "of an unknown kind",
    };
    let reason = format!("{shown} is {what}; a release has only files, folders and symlinks within it");
    Err(TakeError::refused(reason))
}

/// One walk through a release directory.
struct Walk<'a> {
    upload: &'a Upload,
    limits: &'a Limits,
    root: &'a Root,
}

impl Walk<'_> {
    fn all(&self) -> Result<Vec<Entry>, TakeError> {
        let mut entries = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let from = entries.len();
            self.list(&folder, &mut entries)?;
            let inner = entries.iter().skip(from).filter(|entry: &&Entry| entry.kind == Kind::Dir);
            folders.extend(inner.map(|entry| entry.path.clone()));
        }
        Ok(entries)
    }

    fn list(&self, folder: &Path, entries: &mut Vec<Entry>) -> Result<(), TakeError> {
        let shown = || self.upload.shown(folder);
        self.limits.check_depth(folder, &shown())?;
        let fd = self.root.open_dir(folder).map_err(|errno| cannot_open(errno, shown()))?;
        let mut names = Dir::read_from(&fd).map_err(|errno| TakeError::io(shown(), errno))?;
        while let Some(name) = names.read() {
            let name = name.map_err(|errno| TakeError::io(shown(), errno))?;
            let name = OsStr::from_bytes(name.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let path = folder.join(name);
            check_name(name, &self.upload.shown(&path))?;
            self.limits.check_entries(entries.len(), &self.upload.dir.display().to_string())?;
            let stat = fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| TakeError::Changed)?;
            let kind = kind_of(&stat, &self.upload.shown(&path))?;
            entries.push(Entry { path, kind, stamp: Stamp::of(&stat), outside: false });
        }
        Ok(())
    }
}

/// What it means that an entry which was just listed can't be opened.
pub(super) fn cannot_open(errno: Errno, shown: String) -> TakeError {
    match errno {
        // It was removed or replaced, or somebody just opened it for writing.
        Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO | Errno::AGAIN => TakeError::Changed,
        Errno::XDEV => TakeError::refused(format!("{shown} is on another file system than the upload")),
        Errno::ACCESS => {
            TakeError::refused(format!("{shown} can't be read by dorc; try: chmod a+rX {shown}"))
        }
        other => TakeError::io(format!("could not open {shown}"), other),
    }
}

/// Refuses names that would garble a terminal or a log.
pub(super) fn check_name(name: &OsStr, shown: &str) -> Result<(), TakeError> {
    match name.to_str() {
        None => Err(TakeError::refused(format!("the name {shown} is not UTF-8"))),
        Some(name) if name.chars().any(char::is_control) => {
            Err(TakeError::refused(format!("the name {shown} has control characters")))
        }
        Some(_) => Ok(()),
    }
}
