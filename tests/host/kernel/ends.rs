//! Apps that leave the plane, hosts that dorc leaves, and boots.

use super::{PINS, accepted, clients, host, on_kernel_plane, relayed};
use crate::host::TestHost;
use crate::user;

/// Mounts of the kernel plane.
fn mounts(host: &TestHost) -> String {
    host.sh("grep ' bpf ' /proc/self/mounts || true")
}

#[test]
fn the_last_app_takes_the_steering_with_it() {
    let Some(host) = host() else { return };
    host.upload_backend("/srv/upload/calm", "calm", "ok");
    host.sh("dorc register calm --listen 127.0.0.2:80 --release-dir /srv/upload/calm --release-bin backend --health-path /healthz");
    let pins = host.sh(&format!("ls -i1 {PINS}"));
    let load = user::load(&host, "--keep-alive 8 --one-shot 8 --expect one");

    host.sh("dorc remove calm");

    host.run("curl --silent 127.0.0.2").exits_with(7);
    assert_eq!(host.sh(&format!("ls -i1 {PINS}")), pins);
    on_kernel_plane(&host);
    assert_eq!(relayed(&host), "");
    user::nothing_lost(load);

    host.sh("dorc remove web");

    host.run("curl --silent localhost").exits_with(7);
    // Two files there are the kernel's own.
    assert_eq!(host.sh("find /run/dorc/bpf -mindepth 1 -not -name '*.debug'"), "");
    // And from the beginning.
    host.sh(user::REGISTER);
    on_kernel_plane(&host);
    assert_eq!(host.sh("curl --silent localhost"), "two");
}

#[test]
fn an_uninstallation_takes_all_of_it_off_the_host() {
    let Some(host) = host() else { return };
    assert!(mounts(&host).contains("/run/dorc/bpf"), "{}", mounts(&host));

    host.sh("dorc uninstall --purge");

    assert!(!mounts(&host).contains("dorc"), "{}", mounts(&host));
    host.run("ls /run/dorc").exits_with(2);
    host.run("curl --silent localhost").exits_with(7);
    host.sh("python3 -m http.server --bind 127.0.0.1 80 >/dev/null 2>&1 & sleep 1; curl --silent --fail localhost >/dev/null");
}

#[test]
fn an_uninstallation_without_a_daemon_does_too() {
    let Some(host) = host() else { return };
    host.sh("dorc remove web && systemctl stop dorc && dorc uninstall");
    assert!(!mounts(&host).contains("dorc"), "{}", mounts(&host));
    host.run("ls /run/dorc").exits_with(2);
}

#[test]
fn after_a_boot_it_is_the_kernel_plane_again() {
    let Some(mut host) = host() else { return };
    host.sh("dorc switch web --no-wait");

    host.reboot();

    user::wait_for_warm(&host);
    assert_eq!(host.sh("curl --silent --retry 20 --retry-connrefused localhost"), "two");
    host.wait_until(user::LONG, "connections go straight", || {
        let before = accepted(&user::status(&host));
        let idle = clients(&host, "127.0.0.1", "idle", 10);
        let is_straight = relayed(&host).is_empty() && accepted(&user::status(&host)) >= before + 10;
        assert_eq!(idle.wait().json()["two"], 10);
        is_straight.then_some(())
    });
    on_kernel_plane(&host);
    let load = user::load(&host, "--keep-alive 8 --one-shot 8 --expect one,two");
    host.sh("dorc switch web --no-wait");
    assert_eq!(host.sh("curl --silent localhost"), "one");
    user::nothing_lost(load);
}

#[test]
fn an_app_changes_its_plane_while_it_serves() {
    let Some(host) = host() else { return };
    let load = user::load(&host, "--keep-alive 16 --one-shot 16 --expect one,two");
    for round in 0..5 {
        host.sh("sed -i '/^plane /d; 1i plane = \"tcp\"' /etc/dorc/apps/web.toml && dorc update web");
        let status = user::status(&host);
        assert_eq!((&status["plane"], &status["plane_reason"]), (&"tcp".into(), &serde_json::Value::Null));
        host.run(&format!("ls {PINS}")).exits_with(2);
        let idle = clients(&host, "127.0.0.1", "idle", 5);
        assert_ne!(relayed(&host), "");
        host.sh("dorc switch web --no-wait");

        host.sh("sed -i '/^plane /d' /etc/dorc/apps/web.toml && dorc update web");
        let before = accepted(&on_kernel_plane(&host));
        if round % 2 == 0 {
            host.sh("dorc switch web --no-wait");
        }
        host.sh("curl --silent --fail localhost");
        assert!(accepted(&on_kernel_plane(&host)) > before);
        assert_eq!(idle.wait().json().as_object().map(|ended| ended.len()), Some(1));
    }
    let counted = user::nothing_lost(load);
    assert_eq!(counted["retried"], 0, "{counted}");
    for version in ["one", "two"] {
        assert!(counted["bodies"][version].as_u64() > Some(100), "{counted}");
    }
}
