//! What goes over the control socket, and what `--json` prints.

pub mod demo;
pub mod upload;

use serde::{Deserialize, Serialize};

use crate::model::colour::ByColour;

pub use crate::state::Entry;

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

/// The body of `POST /v1/apps/{app}/switch`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// A colour or a release; none: the other colour.
    #[serde(default)]
    pub to: Option<String>,
    /// What has to be active for anything to happen.
    #[serde(default)]
    pub if_active: Option<String>,
    /// Only this share of the clients, as `10%`; empty: by the configured steps.
    #[serde(default)]
    pub canary: Option<String>,
    /// Answer as soon as the route has moved, and do not wait for a candidate.
    #[serde(default)]
    pub no_wait: bool,
}

/// The body of `POST /v1/apps/{app}/rollback`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// A release; none: the last good one.
    #[serde(default)]
    pub to: Option<String>,
    /// As in [`Switch`].
    #[serde(default)]
    pub if_active: Option<String>,
    /// As in [`Switch`].
    #[serde(default)]
    pub no_wait: bool,
}

/// The body of `POST /v1/apps/{app}/deploy`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// A release of the store; none: the newest, that which is just being uploaded included.
    #[serde(default)]
    pub release: Option<String>,
    /// Only make it ready for a switch.
    #[serde(default)]
    pub prepare: bool,
    /// What to call it from now on.
    #[serde(default)]
    pub label: Option<String>,
    /// As in [`Switch`].
    #[serde(default)]
    pub no_wait: bool,
}

/// The body of `POST /v1/apps/{app}/freeze`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// Why, for whoever wants to deploy meanwhile.
    pub reason: String,
}

/// The body of `POST /v1/apps/{app}/pause`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// For how many milliseconds at most.
    pub millis: u64,
}

/// The body of `POST /v1/apps/{app}/remove`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remove {
    /// Delete the releases too.
    #[serde(default)]
    pub purge: bool,
}

/// One line of an answer to a `POST`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    Settled(Tally),
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Ended by themselves.
    pub finished: usize,
    /// Closed because nothing happened on them.
    pub quiet: usize,
    /// Closed because the time was up.
    pub cut: usize,
}

/// Why a release is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAnswers {
    /// The exit code for the command line.
    pub exit: u8,
    /// What each host said last.
    pub hosts: Vec<HostAnswer>,
}

/// What one of several hosts said last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAnswer {
    /// Which.
    pub host: String,
    /// Its answer.
    pub answer: Answer,
}

/// The answer to `GET /v1/apps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Why this host can't have the kernel plane; none: it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_kernel_plane: Option<String>,
    /// The loaded apps.
    pub apps: Vec<AppStatus>,
    /// App files that could not be taken.
    #[serde(default)]
    pub broken: Vec<Broken>,
}

/// An app file that could not be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// The app.
    pub app: String,
    /// Why.
    pub problem: String,
}

/// What one app is like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppStatus {
    /// Its name.
    pub app: String,
    /// Where clients reach it.
    pub listen: Vec<String>,
    /// Its plane.
    pub plane: String,
    /// Why it is not another plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plane_reason: Option<String>,
    /// Where uploads go.
    pub release_dir: String,
    /// The release binary's path inside a release.
    pub release_bin: String,
    /// The active colour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// `vacant`, `trying`, `steady`, `canary`, `switching`, `draining` or `baking`.
    pub phase: String,
    /// The state in a few words, for people.
    pub state: String,
    /// What is known of an upload that has not been dealt with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    /// The share of the clients that the inactive service gets, as `10%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<String>,
    /// A release that waits its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<String>,
    /// The release that `dorc rollback` goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_back: Option<String>,
    /// What the active service answered when it was last asked whether it is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Why nothing new is taken into service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<String>,
    /// Who lets new connections wait, and how much longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// The last time that the active service ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<String>,
    /// The green service.
    pub green: ServiceStatus,
    /// The blue service.
    pub blue: ServiceStatus,
}

/// What a service answered when it was asked whether it is healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it is.
    pub healthy: bool,
    /// What was asked and answered.
    pub answer: String,
}

/// The plane of an app, and what passes there: a part of its status.
#[derive(Debug, Clone, Default)]
pub struct Plane {
    /// `kernel` or `tcp`.
    pub name: &'static str,
    /// Why it is not the kernel plane, where that was wanted.
    pub reason: Option<String>,
    /// What passes without dorc in the path.
    pub traffic: ByColour<Option<Traffic>>,
}

/// What one service is like.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// `green-{app}` or `blue-{app}`.
    pub service: String,
    /// `active`, `canary`, `ready`, `starting`, `draining`, `failed` or `empty`.
    pub state: String,
    /// Its release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// What the user calls that release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Connections that it has through dorc.
    pub connections: usize,
    /// What passed there; only on the kernel plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// Its main process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How often it was started again after it had ended by itself.
    pub restarts: u32,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// What passed to one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Connections that it got; one whose first packet was repeated counts twice.
    pub accepted: u64,
    /// Connections that dorc closed since it was started.
    pub closed: u64,
    /// What the connections that are open have received, in bytes.
    pub received_bytes: u64,
    /// What they have sent, in bytes.
    pub sent_bytes: u64,
    /// Their mean round-trip time in microseconds; none: no connection is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_us: Option<u64>,
}

/// One release, as `dorc releases` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseStatus {
    /// Its name.
    pub release: String,
    /// The digest of its files.
    pub digest: String,
    /// When it was taken, in RFC 3339.
    pub taken: String,
    /// How many files it has.
    pub files: u64,
    /// How large they are, in bytes.
    pub bytes: u64,
    /// What the user calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// `active`, `ready`, `good`, `failed` or `untried`.
    pub state: String,
    /// When it last became active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
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

/// A history entry with its app, as one line of JSON.
#[must_use]
pub fn named(app: &str, entry: &Entry) -> String {
    #[derive(Serialize)]
    struct Named<'a> {
        app: &'a str,
        #[serde(flatten)]
        entry: &'a Entry,
    }
    to_json(&Named { app, entry })
}
