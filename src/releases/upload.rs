//! What is uploaded, what it may be, and why it was not taken.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::app::ReleaseBin;

/// The place where the uploads of one app arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The release directory; absolute.
    pub dir: PathBuf,
    /// The release binary.
    pub bin: ReleaseBin,
    /// Whether it is started itself. If not, another program reads it, so it may be a JAR or a script without `#!`.
    pub is_started: bool,
    /// The minisign keys of which one has to have signed each file; none: nothing has to be signed.
    pub signed_by: Vec<String>,
}

impl Upload {
    /// Where an entry of the release comes from, for people.
    pub(super) fn shown(&self, entry: &Path) -> String {
        let path = match &self.bin {
            ReleaseBin::Outside(bin) if entry == self.bin.in_release() => bin.clone(),
            _ => self.dir.join(entry),
        };
        show(&path)
    }
}

/// A path for people: what would garble a terminal is escaped.
pub(super) fn show(path: &Path) -> String {
    match path.to_str() {
        Some(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("{path:?}"),
    }
}

/// What an upload may have at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files, folders and symlinks together.
    pub entries: usize,
    /// Folders within each other.
    pub depth: usize,
    /// The sizes of all files together, in bytes.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 20_000, depth: 32, bytes: 4 << 30 }
    }
}

impl Limits {
    /// Refuses another entry of `what`, which has so many.
    pub(super) fn check_entries(&self, have: usize, what: &str) -> Result<(), TakeError> {
        if have < self.entries {
            return Ok(());
        }
        let limit = thousands(u64::try_from(self.entries).unwrap_or(u64::MAX));
        Err(TakeError::refused(format!("{what} has more than {limit} files, which is the limit")))
    }

    /// Refuses a folder that is too deep.
    pub(super) fn check_depth(&self, folder: &Path, shown: &str) -> Result<(), TakeError> {
        if folder.components().count() <= self.depth {
            return Ok(());
        }
        let limit = self.depth;
        Err(TakeError::refused(format!("{shown} is deeper than {limit} folders, which is the limit")))
    }

    /// Refuses an upload of so many bytes.
    pub(super) fn check_bytes(&self, bytes: u64) -> Result<(), TakeError> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let limit = thousands(self.bytes);
        Err(TakeError::refused(format!("the upload has more than {limit} bytes, which is the limit")))
    }
}

/// An upload that is wrong and stays so until it is changed: one sentence without a full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why an upload was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// There is none: the release directory is missing or empty.
    #[error("nothing is uploaded")]
    Nothing,
    /// The upload is wrong.
    #[error("{0}")]
    Refused(Refusal),
    /// It changed while it was being taken, or the taking was cancelled.
    #[error("the upload changed while it was being taken")]
    Changed,
    /// Somebody has this file open for writing; the path is relative to the release.
    #[error("{} is still open for writing", show(.0))]
    BeingWritten(PathBuf),
    /// The program is not complete.
    #[error("{0}")]
    NotWhole(String),
    /// The host could not do it.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried, on which path.
        doing: String,
        /// What came of it.
        source: io::Error,
    },
}

impl TakeError {
    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(Refusal(reason.into()))
    }

    pub(super) fn io(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { doing: doing.into(), source: source.into() }
    }
}

/// `1234567` as `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0, 999, 1_000, 20_000, 1_234_567].map(thousands),
            ["0", "999", "1,000", "20,000", "1,234,567"]
        );
    }
}
