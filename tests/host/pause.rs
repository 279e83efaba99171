//! New connections wait, and what is open goes on.

use std::time::Duration;

use crate::user;

user::on_each_plane!(
    who_comes_waits_and_is_answered_after_the_switch,
    a_pause_ends_by_itself,
    a_killed_daemon_ends_it
);

fn who_comes_waits_and_is_answered_after_the_switch(plane: &str) {
    let Some(host) = user::with_two_versions_by(plane) else { return };
    let open = user::load(&host, "--keep-alive 8 --one-shot 0 --expect one,two");

    let said = host.sh("dorc pause web --for 60s");

    assert!(said.contains("paused for at most 1m"), "{said}");
    let waiting = host.spawn("curl --silent --max-time 50 localhost");
    std::thread::sleep(Duration::from_secs(1));
    let status = user::status(&host);
    assert!(status["state"].as_str().is_some_and(|state| state.contains("paused by root")), "{status}");
    host.sh("dorc switch web --no-wait");
    std::thread::sleep(Duration::from_secs(1));
    host.run("curl --silent --max-time 1 localhost").exits_with(28);

    host.sh("dorc resume web");

    assert_eq!(waiting.wait().success(), "two");
    assert_eq!(host.sh("curl --silent localhost"), "two");
    user::nothing_lost(open);
    assert_eq!(user::status(&host)["plane"], plane);
    let history = host.sh("dorc history web");
    assert!(history.contains("pause") && history.contains("resume"), "{history}");
}

fn a_pause_ends_by_itself(plane: &str) {
    let Some(host) = user::serving_by(plane) else { return };
    let load = user::load(&host, "--keep-alive 0 --one-shot 8 --expect one");
    host.sh("dorc pause web --for 2s");
    assert_eq!(host.sh("curl --silent --max-time 20 localhost"), "one");
    user::nothing_lost(load);
    assert_eq!(user::status(&host)["paused"], serde_json::Value::Null);
    host.run("dorc pause web --for 1h").exits_with(1);
    assert!(host.sh("dorc resume web").contains("it was not paused"));
}

fn a_killed_daemon_ends_it(plane: &str) {
    let Some(host) = user::serving_by(plane) else { return };
    host.sh("dorc pause web --for 10m");
    host.sh(&format!("kill -9 {}", host.daemon_pid()));
    assert_eq!(host.sh("curl --silent --retry 20 --retry-connrefused --max-time 20 localhost"), "one");
}
