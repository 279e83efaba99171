//! Old connections after a switch.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{clients, host, on_kernel_plane, relayed};
use crate::host::TestHost;
use crate::user;

/// Two versions, and so long for old connections.
fn with_drain(drain: &str) -> Option<TestHost> {
    let host = host()?;
    host.sh(&format!(
        "sed -i '/^\\[switch\\]/a drain = \"{drain}\"' /etc/dorc/apps/web.toml && dorc update web"
    ));
    Some(host)
}

/// What became of old connections, by the answer of a switch that waits for that.
#[track_caller]
fn switch(host: &TestHost) -> Value {
    let said = host.sh("dorc switch web --json");
    let answer: Value =
        serde_json::from_str(said.lines().last().expect("there is an answer")).expect("it is JSON");
    answer["tally"].clone()
}

#[test]
fn at_the_end_of_a_drain_all_are_closed_and_no_others() {
    let Some(host) = with_drain("2s") else { return };
    host.upload_backend("/srv/upload/calm", "calm", "ok");
    host.sh("dorc register calm --listen 127.0.0.2:80 --release-dir /srv/upload/calm --release-bin backend --health-path /healthz");
    let half = clients(&host, "127.0.0.1", "half", 250);
    let unanswered = clients(&host, "127.0.0.1", "unanswered", 250);
    let calm = [clients(&host, "127.0.0.2", "idle", 50), clients(&host, "127.0.0.2", "half", 50)];
    user::wait_for(&host, "they are there", |status| status["green"]["connections"] == 500);
    assert_eq!(relayed(&host), "");
    let begin = Instant::now();

    let waiting = host.spawn("dorc switch web --json");
    waiting.wait_for("draining", user::LONG);
    let new = [clients(&host, "127.0.0.1", "idle", 50), clients(&host, "127.0.0.1", "half", 50)];
    let said = waiting.wait().success();
    let took = begin.elapsed();

    let answer: Value =
        serde_json::from_str(said.lines().last().expect("there is an answer")).expect("it is JSON");
    assert_eq!(answer["tally"], json!({ "finished": 0, "quiet": 0, "cut": 500 }), "{answer}");
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(10), "{took:?}");
    for old in [half, unanswered] {
        assert_eq!(old.wait().json(), json!({ "reset": 250 }));
    }
    for of_the_new_colour in new {
        assert_eq!(of_the_new_colour.wait().json(), json!({ "two": 50 }));
    }
    for of_another_app in calm {
        assert_eq!(of_another_app.wait().json(), json!({ "calm": 50 }));
    }
    let status = on_kernel_plane(&host);
    assert_eq!(status["green"]["traffic"]["closed"], 500, "{status:#}");
}

#[test]
fn quiet_connections_are_closed_early() {
    let Some(host) = with_drain("30s") else { return };
    let idle = clients(&host, "127.0.0.1", "idle", 40);
    std::thread::sleep(Duration::from_millis(300));
    let begin = Instant::now();

    let tally = switch(&host);

    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert_eq!(tally, json!({ "finished": 0, "quiet": 40, "cut": 0 }));
    let ended = idle.wait().json();
    assert!(ended == json!({ "reset": 40 }) || ended == json!({ "closed": 40 }), "{ended}");
}

#[test]
fn who_waits_for_a_slow_answer_gets_it() {
    let Some(host) = with_drain("30s") else { return };
    let slow = clients(&host, "127.0.0.1", "slow", 40);

    let tally = switch(&host);

    assert_eq!(slow.wait().json(), json!({ "one": 40 }), "{tally}");
    assert_eq!(tally["cut"], 0, "{tally}");
}
