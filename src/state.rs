//! What survives a restart: a versioned type of its own, written atomically and checked when read.
//!
//! Each app has a folder: `state.json`, `state.json.previous`, `history.jsonl`, `environments/` and `credentials/`.

mod history;
mod record;
mod secrets;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::colour::ByColour;
use crate::model::deployment::Saved;
use crate::model::release::{Catalogue, Digest, Recipe};

pub use history::{DORC, Entry, History};
pub use secrets::{Content, Secrets};

/// The version of what is written. A reader refuses a newer one, so that nothing is misread.
const VERSION: u32 = 1;

/// All that survives a restart of one app.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppState {
    /// The releases.
    pub catalogue: Catalogue,
    /// Where the deployment stands.
    pub saved: Saved,
    /// The ports of the services, where dorc chose them.
    pub ports: Option<ByColour<u16>>,
    /// The stat data of the last upload through the release directory that was dealt with.
    pub fingerprint: Option<String>,
    /// The files that it had.
    pub in_directory: Option<Digest>,
    /// Why nothing new is taken into service.
    pub freeze: Option<Freeze>,
}

/// An order of a user that nothing new is taken into service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    /// Who gave it.
    pub who: String,
    /// Why.
    pub why: String,
    /// When.
    pub since: SystemTime,
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = humantime::format_rfc3339_seconds(self.since);
        write!(f, "frozen by {} since {since}: {}", self.who, self.why)
    }
}

/// Why a state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none: the app is new.
    #[error("there is no state yet")]
    Missing,
    /// It can't be read, or is not what was written.
    #[error("{path}: {why}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// The state folder of one app.
#[derive(Debug, Clone)]
pub struct StateDir {
    dir: PathBuf,
}

/// What stands in the file around the state itself.
#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    version: u32,
    checksum: String,
    #[serde(borrow)]
    state: &'a RawValue,
}

impl StateDir {
    /// The state folder at `dir`, which need not exist yet.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The app's history.
    #[must_use]
    pub fn history(&self) -> History {
        History::new(self.dir.join("history.jsonl"))
    }

    /// The environment files of the app's releases.
    #[must_use]
    pub fn secrets(&self) -> Secrets {
        Secrets::new(&self.dir)
    }

    fn current(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    fn previous(&self) -> PathBuf {
        self.dir.join("state.json.previous")
    }

    /// Reads the state; where the newest file is broken the previous one, with a warning that says so.
    ///
    /// # Errors
    /// Both are missing, or both are broken.
    pub fn read(&self) -> Result<(AppState, Option<String>), ReadError> {
        match (read_file(&self.current()), read_file(&self.previous())) {
            (Ok(state), _) => Ok((state, None)),
            (Err(ReadError::Missing), Err(ReadError::Missing)) => Err(ReadError::Missing),
            (Err(newest), Ok(state)) => Ok((
                state,
                Some(format!(
                    "{newest}. The state before it is used; releases may have to be uploaded again."
                )),
            )),
            (Err(ReadError::Missing), Err(older)) => Err(older),
            (Err(newest), Err(_)) => Err(newest),
        }
    }

    /// Writes the state so that a crash at any moment leaves either it or the one before.
    ///
    /// # Errors
    /// The disk is full or broken; the state on it is the one before.
    pub fn write(&self, state: &AppState) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let state = serde_json::to_string(&record::State::from(state))?;
        let envelope = Envelope {
            version: VERSION,
            checksum: blake3::hash(state.as_bytes()).to_hex().to_string(),
            state: &RawValue::from_string(state)?,
        }
        .to_text()?;
        let new = self.dir.join(".state.json.new");
        let mut file = File::create(&new)?;
        restrict(&file)?;
        file.write_all(envelope.as_bytes())?;
        file.sync_all()?;
        if let Err(error) = self.keep_previous() {
            tracing::warn!(dir = %self.dir.display(), %error, "the previous state could not be kept");
        }
        fs::rename(&new, self.current())?;
        File::open(&self.dir)?.sync_all()
    }

    /// By a hard link, so that there is no moment without a `state.json`, and none without the one before either.
    fn keep_previous(&self) -> io::Result<()> {
        let link = self.dir.join(".state.json.previous.new");
        // A crash may have left it.
        let _ = fs::remove_file(&link);
        match fs::hard_link(self.current(), &link) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            linked => linked.and_then(|()| fs::rename(&link, self.previous())),
        }
    }

    /// Puts broken state files aside, so that a new state does not overwrite what somebody may want to look at, nor keeps
    /// what is broken as the state before it.
    ///
    /// # Errors
    /// A file could not be renamed.
    pub fn set_aside(&self) -> io::Result<()> {
        for path in [self.current(), self.previous()] {
            if matches!(read_file(&path), Err(ReadError::Broken { .. })) {
                fs::rename(&path, path.with_added_extension("broken"))?;
            }
        }
        Ok(())
    }

    /// Deletes the state and the history; the releases, which are in the same folder, stay.
    ///
    /// # Errors
    /// A file could not be deleted.
    pub fn delete(&self) -> io::Result<()> {
        // A release that comes back with a new app file gets the secrets that this one names.
        self.secrets().retain(&[])?;
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Envelope<'_> {
    fn to_text(&self) -> io::Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }
}

/// State names configuration and environment, so only its owner may read it.
fn restrict(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

fn read_file(path: &Path) -> Result<AppState, ReadError> {
    let broken = |why: String| ReadError::Broken { path: path.to_owned(), why };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::Missing),
        Err(error) => return Err(broken(error.to_string())),
    };
    let envelope: Envelope<'_> =
        serde_json::from_str(&text).map_err(|error| broken(format!("it is not whole ({error})")))?;
    if envelope.version > VERSION {
        return Err(broken(format!(
            "it was written by a newer dorc (format {}, this one knows {VERSION})",
            envelope.version
        )));
    }
    if blake3::hash(envelope.state.get().as_bytes()).to_hex().as_str() != envelope.checksum {
        return Err(broken("its checksum is wrong".into()));
    }
    let state: record::State =
        serde_json::from_str(envelope.state.get()).map_err(|error| broken(error.to_string()))?;
    state.try_into().map_err(broken)
}

/// The digest of a recipe and of the secrets that belong to it.
#[must_use]
pub fn recipe_digest(recipe: &Recipe, secrets: &Content) -> Digest {
    let record = serde_json::to_vec(&record::Recipe::from(recipe)).unwrap_or_default();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(record.len() as u64).to_le_bytes()).update(&record);
    hasher.update(secrets.env_file.as_deref().unwrap_or_default());
    for (name, content) in &secrets.credentials {
        for part in [name.as_bytes(), content] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
    }
    Digest(*hasher.finalize().as_bytes())
}
