//! A share of the clients gets the new release before all do.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::host::TestHost;
use crate::user;

user::on_each_plane!(
    it_gets_its_share_and_then_everything,
    a_rollback_ends_it_and_nothing_is_lost,
    one_that_crashes_is_left,
    one_that_falls_ill_is_left,
    one_that_does_not_get_healthy_gets_nobody,
    its_steps_follow_by_themselves,
    a_daemon_that_is_killed_leaves_each_client_on_its_side,
    clients_of_one_that_dies_unseen_are_answered,
);

/// Which of so many clients, each from an address of its own, get the version `two`; the others get `one`.
#[track_caller]
fn on_two_at(host: &TestHost, address: &str, clients: u64) -> BTreeSet<u64> {
    host.write("/root/addresses.py", include_bytes!("../programs/addresses.py"), 0o644);
    let output = host.run(&format!("exec python3 /root/addresses.py {address} 80 {clients}"));
    output.success();
    let answers = output.json();
    let those = |version: &str| -> BTreeSet<u64> {
        answers[version].as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
    };
    let on_two = those("two");
    assert_eq!((on_two.len() + those("one").len()) as u64, clients, "{answers}");
    on_two
}

#[track_caller]
fn on_two(host: &TestHost, clients: u64) -> BTreeSet<u64> {
    on_two_at(host, "127.0.0.1", clients)
}

/// The version `one` active on green, and `two` as a canary on blue.
fn with_canary(plane: &str, share: &str) -> Option<TestHost> {
    let host = user::with_two_versions_by(plane)?;
    host.sh(&format!("dorc switch web --canary {share}"));
    Some(host)
}

fn it_gets_its_share_and_then_everything(plane: &str) {
    let Some(host) = user::with_two_versions_by(plane) else { return };
    let load = user::load(&host, "--keep-alive 4 --one-shot 4 --every 5ms --expect one,two");

    let said = host.sh("dorc switch web --canary 10%");

    assert!(said.contains("blue r2") && said.contains("10% of the clients"), "{said}");
    let tenth = on_two(&host, 10_000);
    assert!((900..=1100).contains(&tenth.len()), "{}", tenth.len());
    let status = user::status(&host);
    assert_eq!(
        (&status["active"], &status["phase"], &status["canary"], &status["blue"]["state"]),
        (&"green".into(), &"canary".into(), &"10%".into(), &"canary".into()),
        "{status}"
    );
    for command in ["dorc status", "dorc status web"] {
        let said = host.sh(command);
        assert!(said.contains("◐ blue  r2") && said.contains("10% of the clients"), "{said}");
    }
    // Who was with it stays there when others come.
    host.sh("dorc switch web --canary 25%");
    let quarter = on_two(&host, 2_000);
    assert!((440..=560).contains(&quarter.len()), "{}", quarter.len());
    assert!(tenth.iter().filter(|client| **client < 2_000).all(|client| quarter.contains(client)));

    host.sh("dorc switch web");

    assert_eq!(on_two(&host, 500).len(), 500);
    user::nothing_lost(load);
    let status = user::wait_for(&host, "it is settled", |status| status["phase"] == "steady");
    assert_eq!((&status["active"], &status["canary"]), (&"blue".into(), &Value::Null), "{status}");
    let history = host.sh("dorc history web");
    for told in ["canary", "10%", "25%", "switch"] {
        assert!(history.contains(told), "{told}: {history}");
    }
}

fn a_rollback_ends_it_and_nothing_is_lost(plane: &str) {
    let Some(host) = user::with_two_versions_by(plane) else { return };
    let load = user::load(&host, "--keep-alive 8 --one-shot 8 --every 2ms --expect one,two");
    host.sh("dorc switch web --canary 60%");
    assert_ne!(on_two(&host, 100).len(), 0);

    host.sh("dorc rollback web");

    assert_eq!(on_two(&host, 500).len(), 0);
    user::nothing_lost(load);
    let status = user::wait_for_warm(&host);
    assert_eq!(status["active"], "green", "{status}");
    assert!(host.sh("dorc history web").contains("ended"));
    // It is as good as it was.
    host.sh("dorc switch web");
    assert_eq!(on_two(&host, 100).len(), 100);
}

/// A canary that fails in its first seconds: everybody gets `one` again, by itself.
fn left(plane: &str, behaviour: &str, reason: &str) {
    let Some(host) = user::serving_by(plane) else { return };
    host.upload_backend(user::UPLOADS, "two", behaviour);
    host.sh("dorc switch web --canary 30%");
    assert_ne!(on_two(&host, 100).len(), 0, "it had traffic");

    let status = user::wait_for(&host, "it is left", |status| {
        status["phase"] == "steady" && status["blue"]["state"] == "failed"
    });

    assert_eq!((&status["active"], &status["canary"]), (&"green".into(), &Value::Null), "{status}");
    assert_eq!(on_two(&host, 500).len(), 0);
    let history = host.sh("dorc history web");
    assert!(history.contains(reason), "{reason}: {history}");
    host.run("dorc switch web --canary 10%").exits_with(10);
    host.run("dorc switch web").exits_with(10);
}

fn one_that_crashes_is_left(plane: &str) {
    left(plane, "crash-after 6s", "exit status 101");
}

fn one_that_falls_ill_is_left(plane: &str) {
    left(plane, "unhealthy-after 6s", "not healthy");
}

fn one_that_does_not_get_healthy_gets_nobody(plane: &str) {
    let Some(host) = user::serving_by(plane) else { return };
    host.upload_backend(user::UPLOADS, "two", "exit 3");
    let output = host.run("dorc switch web --canary 10%");
    output.exits_with(10);
    assert!(output.stderr_text().contains("exit status 3"), "{output}");
    assert_eq!(on_two(&host, 100).len(), 0);
    // What is wrong with the wish is said, and nothing is begun.
    let output = host.run("dorc switch web --canary 100%");
    output.exits_with(2);
    assert!(output.stderr_text().contains("10%"), "{output}");
}

fn its_steps_follow_by_themselves(plane: &str) {
    let Some(host) = user::with_two_versions_by(plane) else { return };
    let output = host.run("dorc switch web --canary");
    output.exits_with(1);
    assert!(output.stderr_text().contains("--canary 10%"), "{output}");
    host.sh("sed -i '/^\\[switch\\]/a canary = [\"20% 4s\", \"50% 4s\"]' /etc/dorc/apps/web.toml && dorc update web");
    user::wait_for_warm(&host);
    let load = user::load(&host, "--keep-alive 4 --one-shot 4 --every 5ms --expect one,two");

    host.sh("dorc switch web --canary");

    let first = on_two(&host, 500);
    let status = user::status(&host);
    assert_eq!(status["canary"], "20%", "{status}");
    user::wait_for(&host, "the second step", |status| status["canary"] == "50%");
    let second = on_two(&host, 500);
    assert!(second.len() > first.len() && second.is_superset(&first));
    user::wait_for(&host, "all of it", |status| status["active"] == "blue");
    assert_eq!(on_two(&host, 100).len(), 100);
    user::nothing_lost(load);
}

fn a_daemon_that_is_killed_leaves_each_client_on_its_side(plane: &str) {
    let Some(host) = with_canary(plane, "20%") else { return };
    let before = on_two(&host, 500);
    for _ in 0..3 {
        host.sh(&format!("kill -9 {}", host.daemon_pid()));
        // Some of them come before it is back.
        assert_eq!(on_two(&host, 500), before);
        let status = user::wait_for(&host, "it goes on", |status| status["phase"] == "canary");
        assert_eq!(status["canary"], "20%", "{status}");
        assert_eq!(on_two(&host, 500), before);
    }
    host.sh("dorc rollback web");
    assert_eq!(on_two(&host, 100).len(), 0);
}

/// The canary dies in a moment in which the daemon sees nothing: its clients come by the tcp plane, and wait for it.
fn clients_of_one_that_dies_unseen_are_answered(plane: &str) {
    let Some(host) = with_canary(plane, "50%") else { return };
    let (daemon, service) = (host.daemon_pid(), host.main_pid("blue-web").expect("it runs"));
    host.sh(&format!("kill -STOP {daemon}; kill -9 {service}"));
    host.write("/root/addresses.py", include_bytes!("../programs/addresses.py"), 0o644);
    let clients = host.spawn("exec python3 /root/addresses.py 127.0.0.1 80 200");
    std::thread::sleep(Duration::from_millis(300));
    host.sh(&format!("kill -CONT {daemon}"));
    let answers = clients.wait().json();
    let count = |version: &str| answers[version].as_array().map_or(0, Vec::len);
    assert_eq!(count("one") + count("two"), 200, "{answers}");
    user::wait_for(&host, "it is left", |status| status["blue"]["state"] == "failed");
    assert_eq!(on_two(&host, 200).len(), 0);
}

/// A client is on the same side whichever plane takes it, by both versions of IP.
#[test]
fn each_plane_has_the_same_clients_on_the_same_side() {
    let Some(host) = user::fresh() else { return };
    host.sh("ip -6 route add local fd00::/64 dev lo");
    host.upload_backend(user::UPLOADS, "one", "dual-stack");
    host.sh(user::REGISTER);
    host.sh("sed -i 's/^listen = .*/listen = [\"127.0.0.1:80\", \"[::1]:80\"]/' /etc/dorc/apps/web.toml && dorc update web");
    user::upload(&host, "two");
    user::wait_for_warm(&host);
    host.sh("dorc switch web --canary 10%");
    assert_eq!(user::status(&host)["plane"], "kernel");
    let sides = || ["127.0.0.1", "::1"].map(|address| on_two_at(&host, address, 2_000));
    let by_kernel = sides();
    for clients in &by_kernel {
        assert!((160..=240).contains(&clients.len()), "{}", clients.len());
    }

    user::choose_plane(&host, "tcp");

    assert_eq!(user::status(&host)["plane"], "tcp");
    assert_eq!(sides(), by_kernel);
    user::choose_plane(&host, "kernel");
    assert_eq!(sides(), by_kernel);
}
