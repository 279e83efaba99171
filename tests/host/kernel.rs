//! The kernel plane: clients reach the active service's own socket, and dorc is not in the path.

#![allow(clippy::print_stdout, reason = "figures are told")]

mod addresses;
mod alone;
mod drains;
mod ends;
mod fallback;
mod held;
mod switches;

use serde_json::Value;

use crate::host::{Background, TestHost};
use crate::user;

/// Where all of it is pinned.
const PINS: &str = "/run/dorc/bpf/steering";

/// The app `web` with two versions, on the kernel plane; `one` is active, on green.
fn host() -> Option<TestHost> {
    let host = user::with_two_versions()?;
    on_kernel_plane(&host);
    Some(host)
}

/// What the status says of the app `web`, which must have the kernel plane.
#[track_caller]
fn on_kernel_plane(host: &TestHost) -> Value {
    let status = user::status(host);
    assert_eq!(status["plane"], "kernel", "{status:#}");
    status
}

/// What the status says of the app `web`, which must have the tcp plane for a reason that says this.
#[track_caller]
fn on_tcp_plane(host: &TestHost, reason: &str) -> Value {
    let status = user::status(host);
    assert_eq!(status["plane"], "tcp", "{status:#}");
    let said = status["plane_reason"].as_str().unwrap_or_default();
    assert!(said.contains(reason), "{reason:?} is not in {said:?}");
    for command in ["dorc status web", "dorc check"] {
        let output = host.sh(command);
        assert!(output.contains(said), "{command} does not say {said:?}: {output}");
    }
    status
}

/// How many connections the services of the app `web` have got.
fn accepted(status: &Value) -> u64 {
    ["green", "blue"].map(|colour| status[colour]["traffic"]["accepted"].as_u64().unwrap_or(0)).iter().sum()
}

/// The TCP connections that the daemon itself has.
fn relayed(host: &TestHost) -> String {
    host.sh("ss -Htnp state established | grep '\"dorc\"' || true")
}

/// Clients with connections that all have asked something; see `tests/programs/clients.py`.
#[track_caller]
fn clients(host: &TestHost, address: &str, kind: &str, count: u32) -> Background {
    host.write("/root/clients.py", include_bytes!("../programs/clients.py"), 0o644);
    let clients = host.spawn(&format!("exec python3 /root/clients.py {address} 80 {kind} {count}"));
    clients.wait_for("open", user::LONG);
    clients
}

/// A drop-in of the daemon's unit, which it has from its next start on; empty: none.
fn daemon_drop_in(host: &TestHost, text: &str) {
    host.write("/etc/systemd/system/dorc.service.d/test.conf", format!("[Service]\n{text}\n"), 0o644);
    host.sh("systemctl daemon-reload");
}

/// Waits until the daemon answers with the app `web` loaded.
fn wait_for_daemon(host: &TestHost) -> Value {
    user::wait_for(host, "the app is loaded", |status| status["phase"] == "steady")
}
