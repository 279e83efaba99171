//! The temporary folder of a demo: private, locked while the demo runs, and gone after it.
//!
//! A demo that was killed can't remove its folder, but its lock is gone with it: the next demo removes it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, OFlags, StatVfsMountFlags, flock, statvfs};
use rustix::io::Errno;

/// What the names of these folders begin with.
const PREFIX: &str = "dorc-demo-";

/// The longest path that leaves room for the control socket's, which the kernel limits.
const LONGEST: usize = 80;

/// How often a new name is tried.
const TRIES: usize = 10;

/// A temporary folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// The folder itself, and the lock on it.
    _lock: File,
    is_removed: bool,
}

impl Folder {
    /// Makes a folder that nobody else can look into, and removes those of demos that were killed.
    pub(super) fn make() -> anyhow::Result<Self> {
        let mut problem = None;
        for base in bases() {
            remove_abandoned(&base);
            match usable(&base).and_then(|()| make_in(&base)) {
                Ok(folder) => return Ok(folder),
                Err(error) => {
                    problem.get_or_insert_with(|| error.context(format!("{} can't be used", base.display())));
                }
            }
        }
        let error = problem.unwrap_or_else(|| anyhow::anyhow!("there is none"));
        Err(error.context("no place for a temporary folder; name one with TMPDIR"))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it, with all that is in it.
    pub(super) fn remove(mut self) -> anyhow::Result<()> {
        self.is_removed = true;
        fs::remove_dir_all(&self.path)
            .with_context(|| format!("{} could not be removed", self.path.display()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.is_removed {
            // Something else went wrong before; the next demo tries again.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Where such a folder may be, the best place first.
fn bases() -> Vec<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "a private folder with a new name is safe there")]
    let usual = std::env::temp_dir();
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    [usual, "/var/tmp".into()].into_iter().chain(home).collect()
}

/// Services have to run there, and the control socket has to have its place.
fn usable(base: &Path) -> anyhow::Result<()> {
    if statvfs(base)?.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        bail!("programs may not run there (it is mounted noexec)");
    }
    if base.as_os_str().len() + PREFIX.len() + 8 > LONGEST {
        bail!("its path is too long for a socket in it");
    }
    Ok(())
}

fn make_in(base: &Path) -> anyhow::Result<Folder> {
    let base = fs::canonicalize(base)?;
    for _ in 0..TRIES {
        let mut random = [0; 4];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let path = base.join(format!("{PREFIX}{:08x}", u32::from_ne_bytes(random)));
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        // Another demo may have taken it for an abandoned one meanwhile.
        if let Ok(lock) = open(&path)
            && is_locked_by(&lock)
            && lock.metadata()?.nlink() > 0
        {
            return Ok(Folder { path, _lock: lock, is_removed: false });
        }
    }
    bail!("no folder could be made")
}

fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Whether we have the lock; a file system that knows no locks has no other owner to tell of.
fn is_locked_by(folder: &File) -> bool {
    !matches!(flock(folder, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK))
}

fn remove_abandoned(base: &Path) {
    let me = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if !entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Ok(folder) = open(&entry.path()) else { continue };
        let is_ours = folder.metadata().is_ok_and(|meta| meta.uid() == me);
        if is_ours && flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // Whatever can't be removed does not stand in the way of this demo.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
