//! The test backends: they must do what their `behaviour` file says, else scenarios that lean on it prove nothing.

use std::time::Duration;

use crate::host::TestHost;

/// Starts a backend as `unit` on port 8081 and waits until it says that it listens.
fn start(host: &TestHost, unit: &str, program: &str) {
    host.sh(&format!("systemd-run --unit {unit} --setenv PORT=8081 --property TimeoutStopSec=5 {program}"));
    host.wait_until(Duration::from_secs(10), "the backend listens", || {
        host.journal(unit).contains("listens").then_some(())
    });
}

fn failures(host: &TestHost, path: &str) -> String {
    let options =
        format!("--address 127.0.0.1:8081 --path '{path}' --timeout 300ms --keep-alive 1 --one-shot 1");
    host.run(&format!("load {options} --seconds 0.1 --every 10ms --json")).json()["reasons"].to_string()
}

#[test]
fn each_behaviour_is_what_it_says() {
    let Some(host) = TestHost::boot() else { return };
    host.install_program("load", "/usr/local/bin/load");
    let cases = [
        ("ok", "/", "{}"),
        ("ok", "/healthz", "{}"),
        ("ok", "/nowhere", "status 404"),
        ("unhealthy", "/", "{}"),
        ("unhealthy", "/healthz", "status 503"),
        ("wrong-port", "/", "connection refused"),
        ("hang", "/", "no answer within"),
    ];
    for (number, (behaviour, path, expected)) in cases.into_iter().enumerate() {
        // A unit each: what an earlier one wrote must not be taken for this one's.
        let unit = format!("web-{number}.service");
        host.upload_backend("/srv/web", "one", behaviour);
        start(&host, &unit, "/srv/web/backend");
        let failures = failures(&host, path);
        assert!(failures.contains(expected), "{behaviour}, {path}: {failures}");
        host.sh(&format!("systemctl stop {unit}"));
    }
}

#[test]
fn the_script_serves_as_well() {
    let Some(host) = TestHost::boot() else { return };
    host.install_program("load", "/usr/local/bin/load");
    host.write("/srv/web/backend", include_bytes!("../programs/backend.py"), 0o755);
    host.write("/srv/web/version", "one", 0o644);
    start(&host, "web.service", "/srv/web/backend");
    let load =
        "load --address 127.0.0.1:8081 --keep-alive 2 --one-shot 2 --every 5ms --seconds 0.3 --expect one";
    host.sh(load);
    host.sh("systemctl stop web.service");
    assert_eq!(host.sh("systemctl show --property Result --value web.service"), "success");
}

#[test]
fn an_answer_on_its_way_outlives_the_signal_to_stop() {
    let Some(host) = TestHost::boot() else { return };
    host.install_program("load", "/usr/local/bin/load");
    host.upload_backend("/srv/web", "one", "ok");
    start(&host, "web.service", "/srv/web/backend");
    let slow = "--path '/slow?ms=1500' --keep-alive 4 --one-shot 4 --until-stdin-closes --json";
    let load = host.spawn(&format!("load --address 127.0.0.1:8081 {slow}"));
    load.wait_for("warm", Duration::from_secs(10));
    // Each client is in its second request now; told to stop, it makes no third.
    host.sh("sleep 0.2; systemctl stop --no-block web.service");
    let counted = load.wait().json();
    assert_eq!((counted["ok"].as_u64(), counted["failed"].as_u64()), (Some(16), Some(0)), "{counted}");
}

#[test]
fn one_that_ignores_the_signal_has_to_be_killed() {
    let Some(host) = TestHost::boot() else { return };
    host.upload_backend("/srv/web", "one", "ignore-term");
    start(&host, "web.service", "/srv/web/backend");
    host.sh("systemctl stop web.service");
    assert!(host.journal("web.service").contains("Killing process"), "{}", host.journal("web.service"));
}

#[test]
fn one_that_exits_does_so_with_its_status_and_reason() {
    let Some(host) = TestHost::boot() else { return };
    host.upload_backend("/srv/web", "one", "exit 3");
    host.run("/srv/web/backend").exits_with(3);
    let said = host.run("PORT=8081 /srv/web/backend").stderr_text();
    assert!(said.contains("DATABASE_URL"), "{said}");
}
