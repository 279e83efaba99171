//! Switches while clients are there, and how long one takes.

use std::time::Duration;

use super::{accepted, host, on_kernel_plane, relayed};
use crate::user;

#[test]
fn a_thousand_switches_lose_nothing() {
    let Some(host) = host() else { return };
    let before = accepted(&user::status(&host));
    let load = user::load(&host, "--keep-alive 64 --one-shot 16 --expect one,two");
    for _ in 0..10 {
        let took = host.sh("begin=$(date +%s%N); for _ in $(seq 100); do dorc switch web --no-wait || exit; done >/dev/null; echo $((($(date +%s%N) - begin) / 100000))");
        println!("{took} µs a switch");
        assert_eq!(relayed(&host), "");
    }
    let counted = user::nothing_lost(load);
    println!("{counted}");
    assert_eq!(counted["retried"], 0, "no busy connection is closed: {counted}");
    for version in ["one", "two"] {
        assert!(counted["bodies"][version].as_u64() > Some(1000), "{counted}");
    }
    let status = on_kernel_plane(&host);
    let passed = accepted(&status) - before;
    // One a request of those that open one for each, and those of the 64.
    assert!(
        passed > 1000 && passed <= counted["ok"].as_u64().expect("a number"),
        "{passed} passed: {counted}"
    );
    println!("{passed} connections went straight");
}

/// Which of a hundred.
fn percentile(sorted: &[u64], share: usize) -> Duration {
    Duration::from_micros(sorted[(sorted.len() * share / 100).min(sorted.len() - 1)])
}

#[test]
fn new_connections_are_on_the_other_colour_within_milliseconds() {
    let Some(host) = host() else { return };
    host.write("/root/first_answer.py", include_bytes!("../../programs/first_answer.py"), 0o644);
    // What is not optimized takes longer.
    let allowed = if cfg!(debug_assertions) { 4 } else { 1 };
    let (median, late) = (Duration::from_millis(5) * allowed, Duration::from_millis(20) * allowed);
    // Others use this machine, too.
    let found = (0..3).any(|_| {
        let said = host.sh("python3 /root/first_answer.py 200");
        let mut took: Vec<u64> = said.lines().map(|line| line.parse().expect("a number")).collect();
        assert_eq!(took.len(), 200);
        took.sort_unstable();
        println!(
            "from the command to the first answer: {:?} median, {:?} p99, {:?} at most",
            percentile(&took, 50),
            percentile(&took, 99),
            percentile(&took, 100)
        );
        percentile(&took, 50) <= median && percentile(&took, 99) <= late
    });
    assert!(found, "more than {median:?} median or {late:?} p99");
    on_kernel_plane(&host);
    assert_eq!(relayed(&host), "");
}
