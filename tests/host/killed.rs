//! The daemon, or the service, is killed or started again while clients are there.

use std::time::Instant;

use serde_json::Value;

use crate::host::{Background, TestHost};
use crate::user::{self, UPLOADS};

crate::user::on_each_plane!(
    a_killed_daemon_leaves_services_alone_and_refuses_nobody,
    a_deployment_survives_the_death_of_the_daemon_at_any_moment,
    a_decision_is_carried_out_or_was_not_taken,
    a_restart_of_the_daemon_is_not_noticed,
    a_stop_of_the_daemon_ends_what_was_begun_and_stops_no_service,
    while_the_active_service_restarts_connections_wait,
);

/// Connections that were being carried by the daemon when it was killed are lost with it, one a client and kill at
/// most; no connection is refused, none hangs.
fn lost_at_most(load: Background, most: u64) -> Value {
    let result = load.wait();
    let counted = result.json();
    let lost = counted["failed"].as_u64().expect("a number");
    assert_eq!(counted["refused"], 0, "{result}");
    assert!(lost <= most, "{lost} of at most {most}: {result}");
    assert!(!counted["reasons"].to_string().contains("within"), "none hangs: {result}");
    counted
}

/// Kills the daemon and waits until another one answers.
fn kill_daemon(host: &TestHost) {
    let before = host.daemon_pid();
    host.sh(&format!("kill -9 {before}"));
    host.wait_until(user::LONG, "systemd starts it again", || {
        host.main_pid("dorc.service").filter(|pid| *pid != before)
    });
    host.wait_until(user::LONG, "it answers", || host.run("dorc status").status.success().then_some(()));
}

fn a_killed_daemon_leaves_services_alone_and_refuses_nobody(plane: &str) {
    let Some(host) = user::with_two_versions_by(plane) else { return };
    let pids = (host.main_pid("green-web"), host.main_pid("blue-web"));
    let load = user::load(&host, "--keep-alive 0 --one-shot 8 --expect one --timeout 10s");

    for _ in 0..5 {
        kill_daemon(&host);
    }

    lost_at_most(load, 5 * 8);
    assert_eq!((host.main_pid("green-web"), host.main_pid("blue-web")), pids);
    let status = user::status(&host);
    assert_eq!((&status["phase"], &status["blue"]["state"]), (&"steady".into(), &"ready".into()), "{status}");
    host.sh("dorc switch web");
    assert_eq!(host.sh("curl --silent localhost"), "two");
}

/// How many kills are spread over a deployment; `DORC_TEST_KILLS` may ask for more.
fn kills() -> u64 {
    std::env::var("DORC_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(14)
}

fn a_deployment_survives_the_death_of_the_daemon_at_any_moment(plane: &str) {
    let Some(host) = user::serving_by(plane) else { return };
    host.sh("sed -i '/^\\[switch\\]/a drain = \"400ms\"\n/^\\[release\\]/a settle = \"100ms\"' /etc/dorc/apps/web.toml");
    host.sh("dorc update web");
    host.write(&format!("{UPLOADS}/behaviour"), "slow-start 300ms", 0o644);
    let load = user::load(&host, "--keep-alive 0 --one-shot 4 --every 2ms --timeout 10s");
    // These make each drain last until its end.
    let busy = user::load(&host, "--keep-alive 4 --one-shot 0 --every 20ms");
    // So long it takes where nobody is killed.
    user::upload(&host, "undisturbed");
    let begin = Instant::now();
    host.sh("dorc switch web");
    let deployment = begin.elapsed();
    let kills = kills();
    let mut phases = std::collections::BTreeMap::<String, u32>::new();

    // On a busy machine a deployment takes longer than the undisturbed one did: then once more.
    for number in 0..kills * 2 {
        if number >= kills && phases.len() > 2 {
            break;
        }
        let version = format!("version-{number}");
        let before = user::wait_for(&host, "nothing is under way", |status| status["phase"] == "steady");
        let active = before["active"].as_str().expect("one is active").to_owned();
        let pid = before[active.as_str()]["pid"].clone();
        user::upload(&host, &version);
        let switch = host.spawn("dorc switch web");
        std::thread::sleep(deployment.mul_f64((number % kills) as f64 / kills as f64));
        let at = user::status(&host)["phase"].as_str().unwrap_or_default().to_owned();

        kill_daemon(&host);

        let _whatever_it_was = switch.wait();
        let after = user::wait_for(&host, "it is steady again", |status| {
            let inactive = if status["active"] == "green" { "blue" } else { "green" };
            status["phase"] == "steady" && status[inactive]["state"] == "ready"
        });
        let told = format!("killed while {at:?}: {after:#}");
        assert_eq!(after[active.as_str()]["pid"], pid, "the active one goes on: {told}");
        let served = host.sh("curl --silent localhost");
        if after["active"] == active.as_str() {
            assert_ne!(served, version, "{told}");
            // The deployment can be repeated.
            host.sh("dorc switch web");
        }
        assert_eq!(host.sh("curl --silent localhost"), version, "{told}");
        *phases.entry(at).or_default() += 1;
    }

    lost_at_most(load, u64::from(phases.values().sum::<u32>()) * 4);
    drop(busy);
    assert!(phases.len() > 2, "kills at different steps: {phases:?}");
    let failed = host.sh("ls /var/lib/dorc/apps/web/releases | wc --lines");
    assert!(failed.parse::<u32>().expect("a number") <= 7, "what a crash left is cleaned up: {failed}");
}

fn a_decision_is_carried_out_or_was_not_taken(plane: &str) {
    let Some(host) = user::with_two_versions_by(plane) else { return };
    let pids = (host.main_pid("green-web"), host.main_pid("blue-web"));
    let load = user::load(&host, "--keep-alive 0 --one-shot 4 --every 2ms --timeout 10s");
    let (kills, mut moved) = (kills(), 0);

    // A switch to a warm service takes some ten milliseconds, and more where others use this machine, too.
    for number in 0..kills {
        let before = user::status(&host)["active"].clone();
        let milliseconds = number * number * 128 / (kills * kills);
        host.sh(&format!(
            "pid=$(systemctl show dorc --property MainPID --value)
            dorc switch web --no-wait & sleep 0.{milliseconds:03}; kill -9 $pid; wait"
        ));
        let after = user::wait_for(&host, "it is steady", |status| status["phase"] == "steady");
        moved += u64::from(after["active"] != before);
        let expected = if after["active"] == "green" { "one" } else { "two" };
        assert_eq!(host.sh("curl --silent localhost"), expected, "{after:#}");
        assert_eq!((host.main_pid("green-web"), host.main_pid("blue-web")), pids, "{after:#}");
    }

    lost_at_most(load, kills * 4);
    assert!(moved > 0 && moved < kills, "kills before and after the decision: {moved}");
}

fn a_restart_of_the_daemon_is_not_noticed(plane: &str) {
    let Some(host) = user::with_two_versions_by(plane) else { return };
    let pids = (host.main_pid("green-web"), host.main_pid("blue-web"));
    let load = user::load(&host, "--keep-alive 0 --one-shot 16 --expect one");
    let slow = host.spawn("curl --silent 'localhost/slow?ms=2000'");
    user::wait_for(&host, "it is on its way", |status| status["green"]["connections"].as_u64() > Some(0));

    for _ in 0..3 {
        host.sh("systemctl restart dorc");
    }

    user::nothing_lost(load);
    assert_eq!(slow.wait().success(), "one");
    assert_eq!((host.main_pid("green-web"), host.main_pid("blue-web")), pids);
}

fn a_stop_of_the_daemon_ends_what_was_begun_and_stops_no_service(plane: &str) {
    let Some(host) = user::with_two_versions_by(plane) else { return };
    let pids = (host.main_pid("green-web"), host.main_pid("blue-web"));
    let slow = host.spawn("curl --silent 'localhost/slow?ms=2000'");
    user::wait_for(&host, "it is on its way", |status| status["green"]["connections"].as_u64() > Some(0));

    host.sh("systemctl stop dorc");

    assert_eq!(slow.wait().success(), "one");
    assert_eq!((host.main_pid("green-web"), host.main_pid("blue-web")), pids);
    host.run("dorc status").exits_with(15);
    match plane {
        "kernel" => assert_eq!(host.sh("curl --silent localhost"), "one"),
        _ => drop(host.run("curl --silent localhost").exits_with(7)),
    }
    host.sh("systemctl start dorc");
    assert_eq!(host.sh("curl --silent localhost"), "one");
    assert_eq!((host.main_pid("green-web"), host.main_pid("blue-web")), pids);
}

fn while_the_active_service_restarts_connections_wait(plane: &str) {
    let Some(host) = user::serving_by(plane) else { return };
    let load = user::load(&host, "--keep-alive 8 --one-shot 8 --timeout 10s");
    for _ in 0..3 {
        let pid = host.main_pid("green-web").expect("it runs");
        host.sh(&format!("kill -9 {pid}"));
        host.wait_until(user::LONG, "it runs again", || host.main_pid("green-web").filter(|now| *now != pid));
        host.sh("curl --silent --fail localhost");
    }
    // Each client may have had one request in flight each time, and no more.
    let counted = lost_at_most(load, 3 * 16);
    assert!(counted["ok"].as_u64() > Some(100), "{counted}");
    let status = user::status(&host);
    assert_eq!(status["green"]["restarts"], 3, "{status}");
    assert!(status["last_exit"].to_string().contains("SIGKILL"), "{status}");
}
