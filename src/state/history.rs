//! What happened to an app, one JSON line each, only ever added to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much of the end of a history is read, in bytes.
const TAIL: u64 = 1 << 20;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// When, in RFC 3339.
    pub when: String,
    /// Who wanted it: a user's name, or `dorc`.
    pub who: String,
    /// What: `take`, `switch`, `rollback`, `try`, …
    pub what: String,
    /// The colour and release before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The colour and release that it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What the user calls that release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// How it ended: `done`, or why not.
    pub result: String,
    /// Whether it did not end well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}

/// The history of one app.
#[derive(Debug, Clone)]
pub struct History {
    path: PathBuf,
}

impl History {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// It could not be written.
    pub fn append(&self, entry: &Entry) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let line = serde_json::to_string(entry)? + "\n";
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        file.write_all(line.as_bytes())
    }

    /// The newest `count` entries, oldest first. Lines that a crash cut off are passed over.
    ///
    /// # Errors
    /// The file is there but can't be read.
    pub fn read(&self, count: usize) -> io::Result<Vec<Entry>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut entries: Vec<Entry> = bytes
            .split(|byte| *byte == b'\n')
            .rev()
            .filter_map(|line| serde_json::from_slice(line).ok())
            .take(count)
            .collect();
        entries.reverse();
        Ok(entries)
    }
}
