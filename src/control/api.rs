//! What goes over the control socket, and what `--json` prints.

mod answers;
pub mod demo;
mod requests;
mod schema;
mod status;
pub mod upload;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::state::Entry;
pub use answers::{Answer, Event, Failure, HostAnswer, HostAnswers, Tally};
pub use requests::{Deploy, Freeze, Pause, Remove, Rollback, Switch};
pub use schema::{SUBJECTS, schema};
pub use status::{
    AppStatus, Broken, Health, PHASES, Plane, ReleaseStatus, STATES, ServiceStatus, Status, Traffic,
};

/// Exit codes of the command line.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// Failed.
    pub const FAILED: u8 = 1;
    /// Wrong usage.
    pub const USAGE: u8 = 2;
    /// Not healthy, nothing changed.
    pub const NOT_HEALTHY: u8 = 10;
    /// Switched, then rolled back.
    pub const ROLLED_BACK: u8 = 11;
    /// A rollback failed.
    pub const ROLLBACK_FAILED: u8 = 12;
    /// Superseded by something newer.
    pub const SUPERSEDED: u8 = 13;
    /// Busy or frozen.
    pub const BUSY: u8 = 14;
    /// There is no daemon.
    pub const NO_DAEMON: u8 = 15;
    /// Not all hosts are where they were, nor where they were to be.
    pub const HOSTS_DISAGREE: u8 = 16;
    /// Not permitted.
    pub const NOT_PERMITTED: u8 = 77;
}

/// An error of the API itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// A sentence.
    pub error: String,
}

/// A value as one line of JSON.
#[must_use]
pub fn to_json<T: Serialize>(value: &T) -> String {
    // Only maps with keys that are no strings can fail, and there are none here.
    serde_json::to_string(value).unwrap_or_default()
}

/// A value as JSON for people.
#[must_use]
pub fn to_pretty_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// Reads a value from JSON.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn from_json<T: FromJson>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

/// What can be read from JSON.
pub trait FromJson: for<'a> Deserialize<'a> {}

impl<T: for<'a> Deserialize<'a>> FromJson for T {}

/// What can be sent as one JSON document.
pub trait Document: Serialize {}

impl Document for Status {}
impl Document for upload::Received {}
impl Document for Vec<ReleaseStatus> {}
impl Document for Vec<Entry> {}

/// Something that happened to an app, as `dorc history` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Happened {
    /// The app.
    pub app: String,
    /// What happened.
    #[serde(flatten)]
    pub entry: Entry,
}
