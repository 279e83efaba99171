//! What can be wrong with an app file, and how it is said.

use std::fmt;
use std::path::PathBuf;

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The app is not loaded.
    Error,
    /// The app is loaded, and its writer should know.
    Warning,
}

/// One thing that is wrong, and its mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The app file; `None` where only its text is known.
    pub file: Option<PathBuf>,
    /// The line, counted from 1; `None` for what is missing.
    pub line: Option<usize>,
    /// The column in characters, counted from 1; only where the text is no TOML.
    pub column: Option<usize>,
    /// The key with its section, as `service.ports.blue`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, without a full stop.
    pub message: String,
    /// What to do, without a full stop.
    pub mend: String,
    /// How much it matters.
    pub severity: Severity,
}

impl Problem {
    /// A problem with the value of `key`, wherever it stands.
    pub(super) fn of_key(key: &str, wrong: Wrong) -> Self {
        Self {
            file: None,
            line: None,
            column: None,
            key: key.to_owned(),
            message: wrong.message,
            mend: wrong.mend,
            severity: Severity::Error,
        }
    }

    /// A problem with the file as a whole.
    pub(super) fn of_file(wrong: Wrong) -> Self {
        Self::of_key("", wrong)
    }

    /// The same as a warning.
    #[must_use]
    pub(super) fn into_warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut place = self.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        for number in [self.line, self.column].into_iter().flatten() {
            let colon = if place.is_empty() { "" } else { ":" };
            place = format!("{place}{colon}{number}");
        }
        if !place.is_empty() {
            write!(f, "{place}: ")?;
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if !self.mend.is_empty() {
            write!(f, "; {}", self.mend)?;
        }
        Ok(())
    }
}

/// What is wrong with a value whose place its reader knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What is wrong.
    pub(super) message: String,
    /// What to do.
    pub(super) mend: String,
}

impl Wrong {
    /// Says what is wrong and what to do about it.
    pub(super) fn new(message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { message: message.into(), mend: mend.into() }
    }
}
