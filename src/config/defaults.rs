//! What an app file means where it says nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::app::{
    App, AppName, Check, HealthConfig, PlaneChoice, Promote, ReleaseBin, ReleaseConfig, Sandbox,
    ServiceConfig, SwitchConfig,
};
use crate::model::colour::ByColour;
use crate::model::hooks::Hooks;

/// The `Host` header of a health check.
pub const HOST: &str = "localhost";

/// How long a service must have been up when only its port is asked.
pub const UP_FOR: Duration = Duration::from_secs(1);

/// The app of an app file that has nothing but the three keys that it must have.
#[must_use]
pub fn new_app(name: AppName, listen: Vec<SocketAddr>, release_dir: PathBuf, release_bin: ReleaseBin) -> App {
    App {
        name,
        listen,
        plane: PlaneChoice::Auto,
        release_dir,
        release_bin,
        deployers: Vec::new(),
        service: service(),
        health: health(),
        hooks: hooks(),
        switch: switch(),
        release: release(),
    }
}

/// `{bin} --port {port}`, the same for both colours.
#[must_use]
pub fn start() -> ByColour<Vec<String>> {
    ByColour::from_fn(|_| ["{bin}", "--port", "{port}"].map(str::to_owned).to_vec())
}

pub(super) fn service() -> ServiceConfig {
    ServiceConfig {
        start: start(),
        reload: None,
        stop: None,
        ports: None,
        env: BTreeMap::new(),
        env_file: None,
        credentials: BTreeMap::new(),
        user: None,
        working_dir: None,
        memory_max: None,
        proxy_protocol: None,
        sandbox: Sandbox::Strict,
        notify: false,
    }
}

pub(super) fn health() -> HealthConfig {
    HealthConfig {
        check: Check::Port { up_for: UP_FOR },
        interval: Duration::from_millis(500),
        timeout: Duration::from_secs(2),
        successes: 2,
        deadline: Duration::from_secs(60),
    }
}

pub(super) fn hooks() -> Hooks {
    Hooks { commands: BTreeMap::new(), deadline: Duration::from_secs(5 * 60) }
}

pub(super) fn switch() -> SwitchConfig {
    SwitchConfig {
        promote: Promote::Manual,
        drain: Some(Duration::from_secs(30)),
        bake: Duration::from_secs(30),
        failover: false,
        canary: Vec::new(),
        hold: Duration::from_secs(10),
    }
}

pub(super) fn release() -> ReleaseConfig {
    ReleaseConfig { keep: 5, settle: Duration::from_secs(1), signed_by: Vec::new() }
}
