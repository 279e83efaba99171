//! What apps, services and releases are like.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answers::Failure;
use crate::model::colour::ByColour;

/// Where an app's deployment can stand.
pub const PHASES: [&str; 7] = ["vacant", "trying", "steady", "canary", "switching", "draining", "baking"];

/// What a service can be.
pub const STATES: [&str; 7] = ["active", "canary", "ready", "starting", "draining", "failed", "empty"];

/// The answer to `GET /v1/apps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Broken {
    /// The app.
    pub app: String,
    /// Why.
    pub problem: String,
}

/// What one app is like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// Where its deployment stands.
    #[schemars(extend("enum" = PHASES))]
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

impl AppStatus {
    /// The service that gets the traffic.
    #[must_use]
    pub fn active_service(&self) -> Option<&ServiceStatus> {
        match self.active.as_deref()? {
            "blue" => Some(&self.blue),
            _ => Some(&self.green),
        }
    }
}

/// What a service answered when it was asked whether it is healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct ServiceStatus {
    /// `green-{app}` or `blue-{app}`.
    pub service: String,
    /// What it is.
    #[schemars(extend("enum" = STATES))]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// What became of it.
    #[schemars(extend("enum" = ["active", "ready", "good", "failed", "untried"]))]
    pub state: String,
    /// When it last became active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}
