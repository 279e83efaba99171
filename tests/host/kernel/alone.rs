//! The daemon is gone for a while, and nobody notices.

use super::{PINS, accepted, daemon_drop_in, host, on_kernel_plane, wait_for_daemon};
use crate::host::TestHost;
use crate::user;

/// The pins, with the numbers that tell old from new.
fn pins(host: &TestHost) -> String {
    host.sh(&format!("ls -i1 {PINS}"))
}

/// Ends the daemon in this way, and starts it again after a while.
fn without_a_daemon_for_a_while(host: &TestHost, end: &str) {
    let load = user::load(host, "--keep-alive 16 --one-shot 8 --expect one");
    let idle = super::clients(host, "127.0.0.1", "idle", 20);
    let before = pins(host);
    assert_eq!(before.lines().count(), 6, "{before}");
    host.sh(end);
    host.wait_until(user::LONG, "it is gone", || host.main_pid("dorc").is_none().then_some(()));

    host.run("dorc status").exits_with(15);
    let new =
        host.sh("load --address 127.0.0.1:80 --keep-alive 0 --one-shot 8 --seconds 1 --expect one --json");
    println!("without a daemon: {new}");
    assert_eq!(pins(host), before);
    host.sh("systemctl start dorc");
    let status = wait_for_daemon(host);

    assert_eq!(status["plane"], "kernel", "{status:#}");
    assert_eq!(pins(host), before, "they are taken over");
    let counted = user::nothing_lost(load);
    assert_eq!((&counted["retried"], &counted["reopened"]), (&0.into(), &0.into()), "{counted}");
    assert_eq!(idle.wait().json()["one"], 20);
    let journal = host.journal("dorc");
    assert!(!journal.contains("tcp plane"), "{journal}");
}

/// Switches there and back, which clients see.
fn switches_go_on(host: &TestHost) {
    for version in ["two", "one"] {
        let load = user::load(host, "--keep-alive 8 --one-shot 8 --expect one,two");
        let before = accepted(&on_kernel_plane(host));
        host.sh("dorc switch web --no-wait");
        assert_eq!(host.sh("curl --silent localhost"), version);
        let counted = user::nothing_lost(load);
        assert!(counted["bodies"][version].as_u64() > Some(0), "{counted}");
        assert!(accepted(&on_kernel_plane(host)) > before);
    }
}

#[test]
fn a_killed_daemon_is_not_missed() {
    let Some(host) = host() else { return };
    daemon_drop_in(&host, "Restart=no");
    let before = accepted(&user::status(&host));
    without_a_daemon_for_a_while(&host, "kill -9 $(systemctl show dorc --property MainPID --value)");
    assert!(accepted(&user::status(&host)) > before + 100, "what passed meanwhile is counted");
    switches_go_on(&host);
}

#[test]
fn a_stopped_daemon_is_not_missed() {
    let Some(host) = host() else { return };
    without_a_daemon_for_a_while(&host, "systemctl stop dorc");
    switches_go_on(&host);
}

#[test]
fn a_new_daemon_points_where_the_last_one_did() {
    let Some(host) = host() else { return };
    host.sh("dorc switch web --no-wait");
    let load = user::load(&host, "--keep-alive 8 --one-shot 8 --expect two");
    for _ in 0..5 {
        host.sh("kill -9 $(systemctl show dorc --property MainPID --value)");
        host.wait_until(user::LONG, "it answers", || host.run("dorc status").status.success().then_some(()));
    }
    wait_for_daemon(&host);
    user::nothing_lost(load);
    on_kernel_plane(&host);
}
