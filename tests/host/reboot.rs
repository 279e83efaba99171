//! The host is booted again, with and without the daemon.

use crate::host::TestHost;
use crate::user;

/// The colour and the release that are active.
fn active(host: &TestHost) -> (String, String) {
    let status = user::wait_for(host, "it is steady", |status| status["phase"] == "steady");
    let colour = status["active"].as_str().expect("one is active").to_owned();
    let release = status[colour.as_str()]["release"].as_str().expect("it has a release").to_owned();
    (colour, release)
}

/// Waits until port 80 answers with this.
#[track_caller]
fn answers(host: &TestHost, port: &str, version: &str) {
    host.wait_until(user::LONG, "it serves again", || {
        (host.run(&format!("curl --silent localhost:{port}")).stdout_text() == version).then_some(())
    });
}

#[test]
fn the_same_release_is_active_on_the_same_colour() {
    let Some(mut host) = user::with_two_versions() else { return };
    host.sh("dorc switch web");
    let before = active(&host);
    assert_eq!(before.0, "blue");

    host.reboot();

    answers(&host, "80", "two");
    assert_eq!(active(&host), before);
    user::wait_for_warm(&host);
    // The way back is still there, and warm.
    host.sh("dorc rollback web --no-wait");
    answers(&host, "80", "one");
    assert_eq!(host.sh("systemctl --failed --no-legend"), "");
}

#[test]
fn services_come_up_without_the_daemon() {
    let Some(mut host) = user::with_two_versions() else { return };
    host.sh("dorc switch web");
    let port = user::status(&host)["blue"]["port"].to_string();
    host.sh("systemctl disable --now dorc");
    answers(&host, &port, "two");

    host.reboot();

    host.run("systemctl is-active dorc").exits_with(3);
    answers(&host, &port, "two");
    let pid = host.main_pid("blue-web");
    host.sh("dorc install");
    answers(&host, "80", "two");
    assert_eq!((active(&host).0, host.main_pid("blue-web")), ("blue".into(), pid));
}

#[test]
fn an_unfinished_deployment_is_taken_up_again() {
    let Some(mut host) = user::serving() else { return };
    host.write(&format!("{}/behaviour", user::UPLOADS), "slow-start 2s", 0o644);
    user::upload(&host, "two");
    user::wait_for(&host, "it comes up", |status| status["blue"]["state"] == "starting");

    host.reboot();

    answers(&host, "80", "one");
    user::wait_for_warm(&host);
    host.sh("dorc switch web");
    answers(&host, "80", "two");
}
