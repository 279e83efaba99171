//! What `dorc demo --json` prints.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

/// How a demo went.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Demo {
    /// Whether all of it happened as promised, and no request failed.
    pub ok: bool,
    /// What did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// The traffic.
    pub requests: Requests,
    /// The commands, in their order.
    pub steps: Vec<Step>,
}

/// What became of the requests of a demo.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct Requests {
    /// Those that ended, well or not.
    pub sent: u64,
    /// Those that did not get a whole, right answer.
    pub failed: u64,
    /// Kept connections that were closed between two requests, and opened anew.
    pub reopened: u64,
    /// Those among them on which a request had been sent in the very moment, and was sent once more.
    pub resent: u64,
    /// The longest that an answer took, in milliseconds, without those that are slow on purpose.
    pub slowest_ms: u64,
    /// How many answers came from which version.
    pub answers: BTreeMap<String, u64>,
    /// Why requests failed, and how many.
    pub reasons: BTreeMap<String, u64>,
}

/// One command of a demo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Step {
    /// The command as it is typed.
    pub command: String,
    /// Its exit code.
    pub exit: u8,
    /// The exit code that it should have.
    pub expected: u8,
    /// What it printed.
    pub output: Vec<String>,
    /// The colour that was active after it.
    pub active: Option<String>,
    /// The release that was active after it.
    pub release: Option<String>,
    /// How many requests had ended by then.
    pub sent: u64,
    /// How many of those had failed.
    pub failed: u64,
}
