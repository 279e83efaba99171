//! What happened to an app, one JSON line each, only ever added to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much of the end of a history is read, in bytes.
const TAIL: u64 = 1 << 20;

/// How large the file gets, in bytes, before a new one is begun; the one before it stays.
const FULL: u64 = 8 << 20;

/// The name under which dorc's own doings stand in a history.
pub const DORC: &str = "dorc";

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
        if fs::metadata(&self.path).is_ok_and(|found| found.len() >= FULL) {
            fs::rename(&self.path, self.previous())?;
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
        let mut entries = newest(&self.path, count)?;
        if entries.len() < count {
            entries.extend(newest(&self.previous(), count - entries.len())?);
        }
        entries.reverse();
        Ok(entries)
    }

    /// The file that got full.
    fn previous(&self) -> PathBuf {
        self.path.with_added_extension("previous")
    }
}

/// The newest entries of a file, newest first.
fn newest(path: &Path, count: usize) -> io::Result<Vec<Entry>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let lines = bytes.split(|byte| *byte == b'\n').rev();
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).take(count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_gives_way_to_a_new_one_and_is_read_on() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::new(dir.path().join("history.jsonl"));
        let entry = |result: &str| Entry {
            when: "2026-01-01T00:00:00Z".into(),
            who: "ann".into(),
            what: "take".into(),
            from: None,
            to: None,
            label: None,
            result: result.into(),
            failed: false,
        };
        // As full as one that has been written to for years.
        fs::write(&history.path, vec![b'\n'; FULL as usize]).unwrap();
        let mut file = OpenOptions::new().append(true).open(&history.path).unwrap();
        file.write_all((serde_json::to_string(&entry("first")).unwrap() + "\n").as_bytes()).unwrap();
        history.append(&entry("second")).unwrap();
        history.append(&entry("third")).unwrap();
        assert!(fs::metadata(&history.path).unwrap().len() < 1000 && history.previous().exists());
        let results = |count| -> Vec<String> {
            history.read(count).unwrap().into_iter().map(|entry| entry.result).collect()
        };
        assert_eq!(results(2), ["second", "third"]);
        assert_eq!(results(9), ["first", "second", "third"]);
    }
}
