//! What releases run with that is not for everybody's eyes, as it was when each was made: a way back brings its own with it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::model::release::ReleaseId;

/// The secrets of one release.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// The content of the environment file, if there is one.
    pub env_file: Option<Vec<u8>>,
    /// The content of each credential, by its name.
    pub credentials: BTreeMap<String, Vec<u8>>,
}

/// The secrets of one app's releases, which only root may read. All of it blocks.
#[derive(Debug, Clone)]
pub struct Secrets {
    environments: PathBuf,
    credentials: PathBuf,
}

impl Secrets {
    pub(super) fn new(app: &Path) -> Self {
        Self { environments: app.join("environments"), credentials: app.join("credentials") }
    }

    /// Where the environment file of a release is, or would be.
    #[must_use]
    pub fn env_file(&self, release: ReleaseId) -> PathBuf {
        self.environments.join(format!("{release}.env"))
    }

    /// The folder with the credentials of a release, each a file of its name.
    #[must_use]
    pub fn credentials(&self, release: ReleaseId) -> PathBuf {
        self.credentials.join(release.to_string())
    }

    /// Keeps those of a release; what is kept already stays.
    ///
    /// # Errors
    /// The disk is full or broken; then they are not all there.
    pub fn keep(&self, release: ReleaseId, content: &Content) -> io::Result<()> {
        if let Some(text) = &content.env_file {
            Self::put(&self.environments, &self.env_file(release), |new| write(new, text))?;
        }
        if !content.credentials.is_empty() {
            Self::put(&self.credentials, &self.credentials(release), |new| {
                make_dir(new)?;
                content.credentials.iter().try_for_each(|(name, text)| write(&new.join(name), text))?;
                File::open(new)?.sync_all()
            })?;
        }
        Ok(())
    }

    /// Makes something in `dir` that is there whole or not at all.
    fn put(dir: &Path, path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        if path.exists() {
            return Ok(());
        }
        make_dir(dir)?;
        let new = dir.join(".new");
        remove(&new)?;
        make(&new)?;
        fs::rename(new, path)?;
        File::open(dir)?.sync_all()
    }

    /// Forgets those of a release, if there are any.
    ///
    /// # Errors
    /// They are there still.
    pub fn forget(&self, release: ReleaseId) -> io::Result<()> {
        remove(&self.env_file(release))?;
        remove(&self.credentials(release))
    }

    /// Forgets all but those of these releases: what a crash left.
    ///
    /// # Errors
    /// Some are there still.
    pub fn retain(&self, releases: &[ReleaseId]) -> io::Result<()> {
        for dir in [&self.environments, &self.credentials] {
            let entries = match fs::read_dir(dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for entry in entries {
                let path = entry?.path();
                let is_kept = |release: &ReleaseId| {
                    path == self.env_file(*release) || path == self.credentials(*release)
                };
                if !releases.iter().any(is_kept) {
                    remove(&path)?;
                }
            }
        }
        Ok(())
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Deletes a file or a folder, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
