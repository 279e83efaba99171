//! What a user does in most scenarios.

use std::time::Duration;

use serde_json::Value;

use crate::host::{Background, TestHost};

/// More than anything takes on a loaded machine.
pub const LONG: Duration = Duration::from_secs(60);

/// Where uploads of the app `web` arrive.
pub const UPLOADS: &str = "/srv/upload/web";

/// The registration of the app `web` that most scenarios begin with.
pub const REGISTER: &str = "dorc register web --listen 80 --release-dir /srv/upload/web --release-bin backend --health-path /healthz --bake 0s";

/// A host with the programs, and nothing begun.
pub fn fresh() -> Option<TestHost> {
    let host = TestHost::boot()?;
    host.install_dorc();
    host.install_program("load", "/usr/local/bin/load");
    Some(host)
}

/// A host on which the app `web` serves its version `one` on port 80, on green.
pub fn serving() -> Option<TestHost> {
    let host = fresh()?;
    host.upload_backend(UPLOADS, "one", "ok");
    host.sh(REGISTER);
    assert_eq!(host.sh("curl --silent localhost"), "one");
    Some(host)
}

/// As [`serving`], with the version `two` warm on blue.
pub fn with_two_versions() -> Option<TestHost> {
    let host = serving()?;
    upload(&host, "two");
    wait_for_warm(&host);
    Some(host)
}

/// As [`serving`], by that plane.
pub fn serving_by(plane: &str) -> Option<TestHost> {
    let host = serving()?;
    if plane == "tcp" {
        choose_plane(&host, plane);
    }
    assert_eq!(status(&host)["plane"], plane);
    Some(host)
}

/// As [`with_two_versions`], by that plane.
pub fn with_two_versions_by(plane: &str) -> Option<TestHost> {
    let host = serving_by(plane)?;
    upload(&host, "two");
    wait_for_warm(&host);
    Some(host)
}

/// Writes the plane into the app file, and has it taken.
pub fn choose_plane(host: &TestHost, plane: &str) {
    host.sh(&format!(
        "sed -i '/^plane/d; 1i plane = \"{plane}\"' /etc/dorc/apps/web.toml && dorc update web"
    ));
}

/// Makes of each scenario, a function of the plane, a test on each of them.
macro_rules! on_each_plane {
    ($($scenario:ident),+ $(,)?) => {
        mod kernel {
            $(#[test] fn $scenario() { super::$scenario("kernel"); })+
        }
        mod tcp {
            $(#[test] fn $scenario() { super::$scenario("tcp"); })+
        }
    };
}
pub(crate) use on_each_plane;

/// Uploads another version of the app `web`.
#[track_caller]
pub fn upload(host: &TestHost, version: &str) {
    host.write(&format!("{UPLOADS}/version"), version, 0o644);
}

/// What `dorc status web --json` tells of the app.
#[track_caller]
pub fn status(host: &TestHost) -> Value {
    let output = host.run("dorc status web --json");
    output.success();
    output.json()["apps"][0].take()
}

/// Waits until the service that is not active is ready, and nothing is under way.
#[track_caller]
pub fn wait_for_warm(host: &TestHost) -> Value {
    wait_for(host, "a warm service", |status| {
        let inactive = if status["active"] == "green" { "blue" } else { "green" };
        status["phase"] == "steady" && status[inactive]["state"] == "ready"
    })
}

/// Waits until the status of the app is like this.
#[track_caller]
pub fn wait_for(host: &TestHost, what: &str, mut is: impl FnMut(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let end = std::time::Instant::now() + LONG;
    loop {
        let output = host.run("dorc status web --json");
        if output.status.success() {
            last = output.json()["apps"][0].take();
            if is(&last) {
                return last;
            }
        }
        assert!(std::time::Instant::now() < end, "not within {LONG:?}: {what}; the last status: {last:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Starts clients of port 80 that go on until they are waited for; each has had its first answer.
#[track_caller]
pub fn load(host: &TestHost, options: &str) -> Background {
    let load = host.spawn(&format!("load --address 127.0.0.1:80 --until-stdin-closes --json {options}"));
    load.wait_for("warm", LONG);
    load
}

/// Ends the clients, none of whose requests may have failed, and returns what they counted.
#[track_caller]
pub fn nothing_lost(load: Background) -> Value {
    let result = load.wait();
    let counted = result.json();
    assert_eq!((counted["failed"].as_u64(), counted["refused"].as_u64()), (Some(0), Some(0)), "{result}");
    assert_ne!(counted["ok"], 0, "{result}");
    counted
}
