//! What the daemon tells of a command while it goes on, and at its end.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One line of an answer to a `POST`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Something has to happen first.
    Waiting {
        /// What.
        what: String,
    },
    /// An upload is being sent.
    Uploading {
        /// How many bytes are there.
        sent: u64,
        /// Of how many.
        bytes: u64,
    },
    /// An upload is a release of the store.
    Uploaded {
        /// Which.
        release: String,
        /// How many files it has.
        files: u64,
        /// How large they are, in bytes.
        bytes: u64,
    },
    /// A release is being started.
    Trying {
        /// In this colour.
        colour: String,
        /// Which.
        release: String,
    },
    /// A service is ready.
    Ready {
        /// Its colour.
        colour: String,
        /// Its release.
        release: String,
        /// Its last health answer.
        answer: String,
    },
    /// A candidate did not get ready.
    Failed {
        /// Its colour.
        colour: String,
        /// Its release.
        release: String,
        /// Why.
        failure: Failure,
    },
    /// New connections go to another service.
    Moved {
        /// The colour before.
        from: Option<String>,
        /// The colour now.
        to: String,
        /// The release now.
        release: String,
    },
    /// Old connections are waited for.
    Draining {
        /// The colour that they are on.
        colour: String,
        /// How many are open.
        open: usize,
        /// How many seconds they still have; none: for ever.
        seconds_left: Option<u64>,
    },
    /// A drain is over.
    Settled {
        /// What became of the connections.
        tally: Tally,
    },
    /// A share of the clients goes to a service beside the active one.
    Canary {
        /// Its colour.
        colour: String,
        /// Its release.
        release: String,
        /// How much, as `10%`.
        share: String,
    },
    /// It gets none any more.
    CanaryEnded {
        /// Its colour.
        colour: String,
        /// Its release.
        release: String,
    },
    /// The old connections are gone, and what is active now is still watched.
    Baking {
        /// Its colour.
        colour: String,
        /// Its release.
        release: String,
        /// For so many seconds.
        seconds_left: u64,
    },
    /// What is active has proved itself.
    Baked {
        /// Its colour.
        colour: String,
        /// Its release.
        release: String,
    },
    /// What got the traffic failed: traffic goes back.
    Bad {
        /// Its colour.
        colour: String,
        /// Its release.
        release: String,
        /// How.
        failure: Failure,
    },
    /// What is active is not healthy any more. It stays active.
    Unhealthy {
        /// Its colour.
        colour: String,
        /// Its release.
        release: String,
        /// Why.
        failure: Failure,
    },
    /// It is healthy again.
    Healthy {
        /// Its colour.
        colour: String,
        /// Its release.
        release: String,
        /// Its last health answer.
        answer: String,
    },
    /// The active service ended by itself and is started again.
    Exited {
        /// Its colour.
        colour: String,
        /// How.
        how: String,
    },
    /// The end.
    Answer(Box<Answer>),
}

/// What became of the connections of a drained service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Tally {
    /// Ended by themselves.
    pub finished: usize,
    /// Closed because nothing happened on them.
    pub quiet: usize,
    /// Closed because the time was up.
    pub cut: usize,
}

/// Why a release is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// One sentence.
    pub reason: String,
    /// The last health answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe: Option<String>,
    /// The service's last lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// The exit code for the command line.
    pub exit: u8,
    /// The app.
    pub app: String,
    /// What happened, for people.
    pub message: String,
    /// The active colour afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// The active release afterwards; of an upload, what it became.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// What the user calls that release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The colour that was active before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The release that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_release: Option<String>,
    /// The colour that it was tried in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_colour: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What became of the old connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tally: Option<Tally>,
}

/// What `dorc deploy` on several hosts prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostAnswers {
    /// The exit code for the command line.
    pub exit: u8,
    /// What each host said last.
    pub hosts: Vec<HostAnswer>,
}

/// What one of several hosts said last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostAnswer {
    /// Which.
    pub host: String,
    /// Its answer.
    pub answer: Answer,
}
