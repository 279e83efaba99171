//! The promise that a deployment loses no request, counted.

use std::time::Duration;

use crate::host::TestHost;
use crate::user;

crate::user::on_each_plane!(
    a_hundred_switches_in_a_row_lose_nothing,
    wrk_sees_a_hundred_switches_as_nothing,
    a_switch_answers_quickly,
    whole_deployments_lose_nothing,
);

/// Clients that keep their connection and such that open one for each request.
const BOTH_KINDS: &str = "--keep-alive 64 --one-shot 16 --expect one,two";

/// Switches in a row; each must succeed. How long each took, in microseconds.
fn switch_often(host: &TestHost, times: usize) -> Vec<u64> {
    repeat(host, "dorc switch web --no-wait", times)
}

/// How long a command took each time, in microseconds.
fn repeat(host: &TestHost, command: &str, times: usize) -> Vec<u64> {
    let took = host.sh(&format!(
        "for _ in $(seq {times}); do
            begin=$(date +%s%N); {command} >/dev/null || exit; end=$(date +%s%N)
            echo $(((end - begin) / 1000))
        done"
    ));
    let took: Vec<u64> = took.lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(took.len(), times);
    took
}

fn median(mut numbers: Vec<u64>) -> Duration {
    numbers.sort_unstable();
    Duration::from_micros(numbers[numbers.len() / 2])
}

fn a_hundred_switches_in_a_row_lose_nothing(plane: &str) {
    let Some(host) = user::with_two_versions_by(plane) else { return };
    let load = user::load(&host, BOTH_KINDS);

    switch_often(&host, 100);

    let counted = user::nothing_lost(load);
    // Both were reached, or nothing was shown.
    assert!(counted["bodies"]["one"].as_u64() > Some(100), "{counted}");
    assert!(counted["bodies"]["two"].as_u64() > Some(100), "{counted}");
    assert_eq!(counted["retried"], 0, "no busy connection is closed: {counted}");
}

fn wrk_sees_a_hundred_switches_as_nothing(plane: &str) {
    let Some(host) = user::with_two_versions_by(plane) else { return };
    let wrk = host.spawn("echo begun; wrk --threads 2 --connections 64 --duration 8s http://127.0.0.1:80/");
    wrk.wait_for("begun", user::LONG);

    switch_often(&host, 100);

    let result = wrk.wait();
    let said = result.success();
    assert!(said.contains("requests in"), "{result}");
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{result}");
}

fn a_switch_answers_quickly(plane: &str) {
    let Some(host) = user::with_two_versions_by(plane) else { return };
    // Others use this machine, too: what a command that changes nothing takes is theirs, and an undisturbed run shows it.
    let found = (0..10).any(|_| {
        let idle = median(repeat(&host, "dorc releases web", 11));
        median(switch_often(&host, 21)) <= Duration::from_millis(50) + idle
    });
    assert!(found);

    // With nothing open, waiting for the drain takes no longer.
    host.sh("for _ in 1 2 3; do timeout 2 dorc switch web; done");
}

fn whole_deployments_lose_nothing(plane: &str) {
    let Some(host) = user::serving_by(plane) else { return };
    // On the kernel plane it is not always known that a connection is quiet.
    host.sh("sed -i '/^\\[switch\\]/a drain = \"5s\"' /etc/dorc/apps/web.toml && dorc update web");
    // Pauses of more than a second, so that no drain has to wait for its end.
    let kept = user::load(&host, "--keep-alive 32 --one-shot 0 --every 1200ms");
    let load = user::load(&host, "--keep-alive 0 --one-shot 8 --every 2ms");
    for version in ["two", "three", "four", "five"] {
        user::upload(&host, version);
        host.sh("dorc switch web");
    }
    host.sh("dorc rollback web && dorc rollback web r2");
    user::nothing_lost(kept);
    let counted = user::nothing_lost(load);
    for version in ["one", "two", "three", "four", "five"] {
        assert!(counted["bodies"][version].as_u64() > Some(0), "{version}: {counted}");
    }
}
