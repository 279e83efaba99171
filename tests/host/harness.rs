//! The test host itself: it must be a real host, and leave nothing behind.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::host::TestHost;

#[test]
fn it_boots_a_real_systemd() {
    let Some(host) = TestHost::boot() else { return };
    let state = host.run("systemctl is-system-running").stdout_text();
    assert!(matches!(state.trim(), "running" | "degraded"), "{state}");
    assert_eq!(host.sh("hostname"), host.name());
    eprintln!("{}", host.sh("systemd-analyze; cat /proc/self/cgroup; ip -br a; env; id; pwd"));
}
