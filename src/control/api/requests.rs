//! What is asked of the daemon: the bodies of `POST`.

use serde::{Deserialize, Serialize};

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
