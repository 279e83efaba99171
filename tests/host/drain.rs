//! Old connections after a switch.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::TestHost;
use crate::user;

crate::user::on_each_plane!(
    quiet_connections_are_closed_after_a_second_and_come_back_on_the_new_colour,
    busy_connections_stay_until_the_end_of_the_drain,
    a_slow_request_is_answered_across_a_switch,
    the_way_back_is_open_during_the_drain,
    what_is_uploaded_during_a_drain_waits_its_turn,
);

/// Two versions, and so long for old connections.
fn with_drain(plane: &str, drain: &str) -> Option<TestHost> {
    let host = user::with_two_versions_by(plane)?;
    host.sh(&format!(
        "sed -i '/^\\[switch\\]/a drain = \"{drain}\"' /etc/dorc/apps/web.toml && dorc update web"
    ));
    Some(host)
}

/// The answer of a switch that waits for the drain.
fn switch(host: &TestHost) -> Value {
    let said = host.sh("dorc switch web --json");
    serde_json::from_str(said.lines().last().expect("there is an answer")).expect("it is JSON")
}

fn quiet_connections_are_closed_after_a_second_and_come_back_on_the_new_colour(plane: &str) {
    // The kernel can't always tell who of the two spoke last, if both are on this machine: then it takes until the end.
    let drain = if plane == "tcp" { "30s" } else { "3s" };
    let Some(host) = with_drain(plane, drain) else { return };
    let load = user::load(&host, "--keep-alive 8 --one-shot 0 --every 4s");
    let begin = Instant::now();

    let answer = switch(&host);

    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    let tally = |name: &str| answer["tally"][name].as_u64().expect("a count");
    assert_eq!((tally("finished"), tally("quiet") + tally("cut")), (0, 8), "{answer}");
    assert!(plane == "kernel" || tally("cut") == 0, "{answer}");
    let status = user::wait_for(&host, "they are back", |status| status["blue"]["connections"] == 8);
    assert_eq!(status["green"]["connections"], 0);
    let counted = user::nothing_lost(load);
    assert!(counted["bodies"]["two"].as_u64() >= Some(8), "{counted}");
}

fn busy_connections_stay_until_the_end_of_the_drain(plane: &str) {
    let Some(host) = with_drain(plane, "3s") else { return };
    let load = user::load(&host, "--keep-alive 8 --one-shot 0 --every 50ms");
    let begin = Instant::now();

    let answer = switch(&host);

    assert!(begin.elapsed() >= Duration::from_secs(3), "{:?}", begin.elapsed());
    assert_eq!(answer["tally"], serde_json::json!({ "finished": 0, "quiet": 0, "cut": 8 }));
    user::wait_for(&host, "they are back", |status| status["blue"]["connections"] == 8);
    let counted = load.wait().json();
    assert!(counted["bodies"]["one"].as_u64() > Some(8 * 20), "{counted}");
}

fn a_slow_request_is_answered_across_a_switch(plane: &str) {
    let Some(host) = with_drain(plane, "30s") else { return };
    let slow = host.spawn("curl --silent 'localhost/slow?ms=3000'");
    user::wait_for(&host, "it is on its way", |status| status["green"]["connections"] == 1);

    let answer = switch(&host);

    assert_eq!(answer["tally"], serde_json::json!({ "finished": 1, "quiet": 0, "cut": 0 }));
    assert_eq!(slow.wait().success(), "one");
}

fn the_way_back_is_open_during_the_drain(plane: &str) {
    let Some(host) = with_drain(plane, "30s") else { return };
    let slow = host.spawn("curl --silent 'localhost/slow?ms=3000'");
    user::wait_for(&host, "it is on its way", |status| status["green"]["connections"] == 1);
    let waiting = host.spawn("dorc switch web");
    waiting.wait_for("draining", user::LONG);

    host.sh("dorc rollback web --no-wait");

    assert_eq!(host.sh("curl --silent localhost"), "one");
    waiting.wait().exits_with(13);
    assert_eq!(slow.wait().success(), "one");
}

fn what_is_uploaded_during_a_drain_waits_its_turn(plane: &str) {
    let Some(host) = with_drain(plane, "30s") else { return };
    let slow = host.spawn("curl --silent 'localhost/slow?ms=5000'");
    user::wait_for(&host, "it is on its way", |status| status["green"]["connections"] == 1);
    host.sh("dorc switch web --no-wait");
    let green = host.main_pid("green-web");

    user::upload(&host, "three");
    let status = user::wait_for(&host, "it waits", |status| !status["queued"].is_null());
    assert_eq!((&status["phase"], host.main_pid("green-web")), (&"draining".into(), green), "{status}");
    assert_eq!(slow.wait().success(), "one");
    host.sh("dorc switch web");
    assert_eq!(host.sh("curl --silent localhost"), "three");
}
