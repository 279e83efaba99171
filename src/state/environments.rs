//! The environment files of releases, as they were when each was made: a way back brings its own with it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use crate::model::release::ReleaseId;

/// The environment files of one app's releases, which only root may read. All of it blocks.
#[derive(Debug, Clone)]
pub struct Environments {
    dir: PathBuf,
}

impl Environments {
    pub(super) const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where that of a release is, or would be.
    #[must_use]
    pub fn path(&self, release: ReleaseId) -> PathBuf {
        self.dir.join(format!("{release}.env"))
    }

    /// Keeps `content` as that of a release; one that is kept already stays.
    ///
    /// # Errors
    /// The disk is full or broken; then it is not there.
    pub fn keep(&self, release: ReleaseId, content: &[u8]) -> io::Result<()> {
        let path = self.path(release);
        if path.exists() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let new = self.dir.join(".new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(new, path)?;
        fs::File::open(&self.dir)?.sync_all()
    }

    /// Forgets that of a release, if there is one.
    ///
    /// # Errors
    /// It is there still.
    pub fn forget(&self, release: ReleaseId) -> io::Result<()> {
        match fs::remove_file(self.path(release)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Forgets all but those of these releases: what a crash left.
    ///
    /// # Errors
    /// Some are there still.
    pub fn retain(&self, releases: &[ReleaseId]) -> io::Result<()> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            if !releases.iter().any(|release| self.path(*release) == path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}
