//! The active service is killed: who comes while it is started again waits, and is answered.

use super::{accepted, on_kernel_plane, relayed};
use crate::host::{Background, TestHost};
use crate::user;

/// The app `web`, whose service takes a while to start.
fn slow_to_start() -> Option<TestHost> {
    let host = user::fresh()?;
    host.upload_backend(user::UPLOADS, "one", "slow-start 700ms");
    host.sh(user::REGISTER);
    on_kernel_plane(&host);
    Some(host)
}

/// Kills the service, and starts clients when it is dead and its sockets are closed.
fn kill_and_come(host: &TestHost) -> Background {
    let pid = host.main_pid("green-web").expect("it runs");
    host.spawn(&format!(
        "kill -9 {pid}; while kill -0 {pid} 2>/dev/null; do :; done
        exec load --address 127.0.0.1:80 --keep-alive 4 --one-shot 12 --expect one --json --seconds 3 --timeout 10s"
    ))
}

#[test]
fn who_comes_while_the_service_is_started_again_is_answered() {
    let Some(host) = slow_to_start() else { return };
    for _ in 0..3 {
        let counted = user::nothing_lost(kill_and_come(&host));
        println!("{counted}");
        assert!(counted["latency_us"]["max"].as_u64() > Some(400_000), "some were held: {counted}");
        assert!(counted["latency_us"]["p50"].as_u64() < Some(100_000), "later ones were not: {counted}");
    }
    assert_eq!(user::status(&host)["green"]["restarts"], 3);
}

#[test]
fn after_a_restart_connections_go_straight_again() {
    let Some(host) = slow_to_start() else { return };
    let others = user::load(&host, "--keep-alive 0 --one-shot 8 --expect one --timeout 10s");

    let came = kill_and_come(&host);
    user::wait_for(&host, "it is started again", |status| {
        status["green"]["restarts"] == 1 && status["green"]["state"] == "active"
    });
    let held = user::nothing_lost(came);

    let counted = others.wait().json();
    // What the killed process had in hand is lost with it: a request a client, and one more of who comes back before the
    // kernel, which closes its sockets one by one, gets to the one that listens.
    assert_eq!(counted["refused"], 0, "{counted}");
    assert!(counted["failed"].as_u64() <= Some(16), "{counted}");
    assert!(held["ok"].as_u64() > Some(100), "{held}");
    host.wait_until(user::LONG, "those that were held are over", || relayed(&host).is_empty().then_some(()));
    let before = accepted(&on_kernel_plane(&host));
    let load = user::load(&host, "--keep-alive 8 --one-shot 8 --expect one");
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(relayed(&host), "");
    user::nothing_lost(load);
    assert!(accepted(&on_kernel_plane(&host)) > before + 100);
}
