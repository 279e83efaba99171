//! What is not there when the daemon starts: its own state, or an address.

use crate::user;

#[test]
fn a_lost_state_is_found_again_in_what_runs() {
    let Some(host) = user::with_two_versions() else { return };
    host.sh("dorc switch web");
    assert_eq!(host.sh("curl --silent localhost"), "two");
    let before = user::wait_for_warm(&host);
    host.sh("systemctl kill --signal KILL dorc; rm /var/lib/dorc/apps/web/state.json*");
    let after = user::wait_for(&host, "it serves again", |status| status["active"] == "blue");
    let after = if after["phase"] == "steady" { after } else { user::wait_for_warm(&host) };
    for colour in ["green", "blue"] {
        for what in ["pid", "port", "release"] {
            assert_eq!(after[colour][what], before[colour][what], "{colour} {what}");
        }
    }
    host.sh("dorc rollback web");
    assert_eq!(host.sh("curl --silent localhost"), "one");
}

#[test]
fn an_address_that_comes_late_is_waited_for() {
    let Some(host) = user::fresh() else { return };
    host.upload_backend(user::UPLOADS, "one", "ok");
    host.sh("ip address add 203.0.113.5/32 dev lo");
    host.sh(&user::REGISTER.replace("80", "203.0.113.5:80"));
    assert_eq!(host.sh("curl --silent 203.0.113.5"), "one");

    host.sh("systemctl stop dorc; ip address del 203.0.113.5/32 dev lo; systemctl start dorc");
    let status = host.run("dorc status --json").json();
    let problem = status["broken"][0]["problem"].as_str().unwrap_or_default();
    assert!(problem.contains("203.0.113.5") && problem.contains("tried again"), "{status:#}");
    host.sh("ip address add 203.0.113.5/32 dev lo");
    let asked = host.sh("timeout 60 sh -c 'until curl --silent 203.0.113.5; do sleep 0.2; done'");
    assert_eq!(asked, "one");
    host.wait_until(user::LONG, "the app is loaded", || {
        (host.run("dorc status --json").json()["broken"] == serde_json::json!([])).then_some(())
    });
}

#[test]
fn an_app_that_comes_back_has_its_releases() {
    let Some(host) = user::with_two_versions() else { return };
    host.sh("dorc remove web");
    user::upload(&host, "three");
    host.sh(user::REGISTER);
    assert_eq!(host.sh("curl --silent localhost"), "three");
    let releases = host.run("dorc releases web --json").json();
    assert_eq!(releases.as_array().map(Vec::len), Some(3), "{releases:#}");
    host.sh("dorc rollback web r1");
    assert_eq!(host.sh("curl --silent localhost"), "one");
}
