//! The release store of one app: immutable snapshots, published by one rename.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::copy::{Copy, mode};
use super::listing::Listing;
use super::upload::{Limits, TakeError, Upload};
use super::{signed, whole, working_dir};
use crate::model::release::{Digest, ReleaseId};

/// Up to how many files are written to the disk one by one; beyond, the whole file system is at once.
pub(super) const SYNCED_ONE_BY_ONE: usize = 64;

/// The releases of one app, each a folder `r17-3f9a2c1`. All of it blocks.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// Held while a working directory is filled, so that it never gets two releases at once.
    copying: Mutex<()>,
}

impl Store {
    /// Opens the store in `dir`, creates it if need be, and clears away what an interruption left behind. There may
    /// be only one for a folder at a time.
    ///
    /// # Errors
    /// The folder can't be made or cleared.
    pub fn open(dir: &Path) -> io::Result<Self> {
        make_passable(dir)?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with('.') && entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Self { dir: dir.to_owned(), copying: Mutex::default() })
    }

    /// Copies `upload` as it is now and hashes the copy. Nothing of it is run, and nothing is published yet.
    ///
    /// # Errors
    /// See [`TakeError`]; then nothing of it is left in the store. `cancelled` ends it with `Changed`.
    pub fn take(&self, upload: &Upload, limits: &Limits, cancelled: &AtomicBool) -> Result<Taken, TakeError> {
        if self.dir.starts_with(&upload.dir) {
            let (dir, own) = (upload.dir.display(), self.dir.display());
            return Err(TakeError::refused(format!(
                "the release directory {dir} contains {own}, where dorc keeps its releases; choose another one"
            )));
        }
        let listing = Listing::of(upload, limits)?;
        let copy = Copy { upload, listing: &listing, cancelled };
        copy.check_writers()?;
        let hidden = self.hidden().map_err(|error| TakeError::io("could not make a new release", error))?;
        let digest = copy.all(&hidden.0)?;
        let fingerprint = listing.fingerprint(upload);
        if Listing::of(upload, limits)?.fingerprint(upload) != fingerprint {
            return Err(TakeError::Changed);
        }
        whole::check(&hidden.0, upload)?;
        signed::check(&hidden.0, &upload.signed_by)?;
        let files = listing.files().count() as u64;
        Ok(Taken { digest, files, bytes: listing.bytes, fingerprint: Some(fingerprint), hidden })
    }

    /// Makes `taken` the release `id`: on the disk first, then there at once and whole. Returns its folder.
    ///
    /// # Errors
    /// There is a release of that name already, or the disk fails; then it is not there.
    pub fn publish(&self, taken: Taken, id: ReleaseId) -> io::Result<PathBuf> {
        self.seal(taken.hidden, id)
    }

    /// Publishes the content of the release `of` once more, as `id`.
    ///
    /// # Errors
    /// As `publish`, and when there is no release `of`.
    pub fn publish_copy_of(&self, of: ReleaseId, id: ReleaseId) -> io::Result<PathBuf> {
        let hidden = self.hidden()?;
        link_tree(&self.path(of), &hidden.0)?;
        self.seal(hidden, id)
    }

    /// Where the release is, or would be.
    #[must_use]
    pub fn path(&self, id: ReleaseId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    /// The releases that are there, by number.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn list(&self) -> io::Result<Vec<ReleaseId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            ids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<ReleaseId>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Deletes a release; one that is not there is no error.
    ///
    /// # Errors
    /// It is there still, or, hidden, parts of it.
    pub fn delete(&self, id: ReleaseId) -> io::Result<()> {
        let hidden = self.hidden_name("deleted");
        match fs::rename(self.path(id), &hidden) {
            Ok(()) => fs::remove_dir_all(hidden),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Copies the release into a working directory. Each file is replaced by one rename, so one that runs goes on
    /// running; what is there and not in the release stays.
    ///
    /// # Errors
    /// Some of it may be there then; none if it was `cancelled` before its turn came.
    pub fn copy_to(&self, id: ReleaseId, working_dir: &Path, cancelled: &AtomicBool) -> io::Result<()> {
        let _turn = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        if cancelled.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        working_dir::copy(&self.path(id), working_dir)
    }

    fn hidden_name(&self, why: &str) -> PathBuf {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!(".{why}-{}-{number}", std::process::id()))
    }

    /// A new folder for something that is being taken.
    pub(super) fn hidden(&self) -> io::Result<Hidden> {
        let path = self.hidden_name("taking");
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Hidden(path))
    }

    fn seal(&self, hidden: Hidden, id: ReleaseId) -> io::Result<PathBuf> {
        let to = self.path(id);
        fs::set_permissions(&hidden.0, mode(true))?;
        sync_tree(&hidden.0)?;
        // A release has at least its binary, and a rename onto a folder that is not empty fails.
        fs::rename(&hidden.0, &to).map_err(|error| {
            io::Error::new(error.kind(), format!("could not publish {}: {error}", to.display()))
        })?;
        File::open(&self.dir)?.sync_all()?;
        Ok(to)
    }
}

/// A copied upload that is not published. Dropping it deletes it, which blocks.
#[derive(Debug)]
pub struct Taken {
    /// The digest of its paths, kinds, executable bits and contents.
    pub digest: Digest,
    /// How many files it has.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
    /// What the release directory looked like: the same as long as nobody touches it. `None`: it came by a stream.
    pub fingerprint: Option<String>,
    pub(super) hidden: Hidden,
}

/// A folder that is not to stay. Once it was renamed, there is nothing left to delete.
#[derive(Debug)]
pub(super) struct Hidden(PathBuf);

impl Hidden {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("could not delete {}: {error}", self.0.display());
            }
            _ => {}
        }
    }
}

/// Creates a folder that services can pass through to what is theirs, whatever the umask is.
fn make_passable(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    dir.parent().map_or(Ok(()), make_passable)?;
    fs::create_dir(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(0o711))
}

/// Visits everything below `dir`, a folder before what is in it.
pub(super) fn visit(dir: &Path, visitor: &mut dyn FnMut(&fs::DirEntry) -> io::Result<()>) -> io::Result<()> {
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            visitor(&entry)?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}

fn sync_tree(dir: &Path) -> io::Result<()> {
    let mut paths = vec![dir.to_owned()];
    visit(dir, &mut |entry| {
        if !entry.file_type()?.is_symlink() {
            paths.push(entry.path());
        }
        Ok(())
    })?;
    if paths.len() > SYNCED_ONE_BY_ONE {
        return Ok(rustix::fs::syncfs(File::open(dir)?)?);
    }
    paths.iter().try_for_each(|path| File::open(path)?.sync_all())
}

/// Makes `to` the same as `from`, with the same files where the file system can.
fn link_tree(from: &Path, to: &Path) -> io::Result<()> {
    visit(from, &mut |entry| {
        let source = entry.path();
        let target = to.join(source.strip_prefix(from).map_err(io::Error::other)?);
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir(&target)?;
            fs::set_permissions(&target, mode(true))
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)
        } else {
            fs::hard_link(&source, &target).or_else(|_| fs::copy(&source, &target).map(drop))
        }
    })
}
