//! Where the kernel plane is not possible dorc serves all the same, says why, and takes it as soon as it is.

use super::{PINS, daemon_drop_in, host, on_kernel_plane, on_tcp_plane, relayed, wait_for_daemon};
use crate::host::{Background, TestHost};
use crate::user;

/// A switch there and back that loses nothing.
#[track_caller]
fn switches(host: &TestHost) {
    let load = user::load(host, "--keep-alive 8 --one-shot 8 --expect one,two");
    user::wait_for_warm(host);
    for version in ["two", "one"] {
        host.sh("dorc switch web --no-wait");
        assert_eq!(host.sh("curl --silent localhost"), version);
    }
    user::nothing_lost(load);
}

/// Connections really take the plane that the status tells.
#[track_caller]
fn relays(host: &TestHost, expected: bool) {
    let load = user::load(host, "--keep-alive 8 --one-shot 0");
    assert_eq!(!relayed(host).is_empty(), expected);
    user::nothing_lost(load);
}

/// A daemon that starts with this in its unit has the tcp plane, and the next one without it the kernel's.
fn with_unit(text: &str, reason: &str) {
    with_unit_after("true", text, reason);
}

/// As `with_unit`, after a command.
fn with_unit_after(command: &str, text: &str, reason: &str) {
    let Some(host) = host() else { return };
    let load = user::load(&host, "--keep-alive 0 --one-shot 8 --expect one");
    daemon_drop_in(&host, text);
    host.sh(&format!("{command} && systemctl restart dorc"));
    wait_for_daemon(&host);
    println!("{}", on_tcp_plane(&host, reason)["plane_reason"]);
    user::nothing_lost(load);
    relays(&host, true);
    switches(&host);

    let load = user::load(&host, "--keep-alive 0 --one-shot 8 --expect one");
    daemon_drop_in(&host, "");
    host.sh("systemctl restart dorc");
    wait_for_daemon(&host);
    on_kernel_plane(&host);
    user::nothing_lost(load);
    relays(&host, false);
    switches(&host);
}

#[test]
fn without_the_rights() {
    with_unit("CapabilityBoundingSet=~CAP_BPF CAP_PERFMON CAP_SYS_ADMIN", "CAP_BPF");
}

#[test]
fn without_the_system_call() {
    with_unit("SystemCallFilter=~bpf", "not permitted");
}

#[test]
fn without_the_system_call_that_takes_sockets() {
    // What the daemon before has given to the kernel would stay there.
    with_unit_after(&format!("rm -r {PINS}"), "SystemCallFilter=~pidfd_getfd", "socket can't be");
}

#[test]
fn without_a_bpffs() {
    let Some(host) = host() else { return };
    daemon_drop_in(&host, "SystemCallFilter=~mount");
    host.sh("systemctl stop dorc && umount /run/dorc/bpf && systemctl start dorc");
    wait_for_daemon(&host);
    println!("{}", on_tcp_plane(&host, "no bpffs could be mounted on /run/dorc/bpf")["plane_reason"]);
    relays(&host, true);
    switches(&host);

    daemon_drop_in(&host, "");
    host.sh("systemctl restart dorc");
    wait_for_daemon(&host);
    on_kernel_plane(&host);
    relays(&host, false);
    switches(&host);
}

/// Somebody else's program on the hook, until it is waited for.
fn stranger(host: &TestHost) -> Background {
    install_tool(host);
    let stranger = host.spawn("exec python3 /root/sk_lookup.py attach");
    stranger.wait_for("attached", user::LONG);
    stranger
}

fn install_tool(host: &TestHost) {
    host.write("/root/sk_lookup.py", include_bytes!("../../programs/sk_lookup.py"), 0o644);
}

#[test]
fn with_another_program_on_the_hook() {
    let Some(host) = user::fresh() else { return };
    let stranger = stranger(&host);
    host.upload_backend(user::UPLOADS, "one", "ok");
    host.sh(user::REGISTER);
    user::upload(&host, "two");
    user::wait_for_warm(&host);
    let reason = "another program decides about connections in this network namespace";
    println!("{}", on_tcp_plane(&host, reason)["plane_reason"]);
    relays(&host, true);
    switches(&host);

    let load = user::load(&host, "--keep-alive 0 --one-shot 8 --expect one");
    host.sh("dorc update web");
    on_tcp_plane(&host, reason);
    stranger.wait().success();
    host.sh("dorc update web");
    on_kernel_plane(&host);
    user::nothing_lost(load);
    relays(&host, false);
    switches(&host);
}

/// Pins that this version can't take over.
fn with_pins(make: &str) {
    let Some(host) = host() else { return };
    install_tool(&host);
    host.sh(&format!("systemctl stop dorc && {make} && systemctl start dorc"));
    wait_for_daemon(&host);
    println!("{}", on_tcp_plane(&host, "of another version of dorc")["plane_reason"]);
    host.run(&format!("ls {PINS}")).exits_with(2);
    relays(&host, true);
    switches(&host);

    let load = user::load(&host, "--keep-alive 0 --one-shot 8 --expect one");
    host.sh("dorc update web");
    on_kernel_plane(&host);
    user::nothing_lost(load);
    relays(&host, false);
    switches(&host);
}

#[test]
fn with_pins_of_another_version() {
    with_pins(&format!("rm -r {PINS} && python3 /root/sk_lookup.py pin {PINS}"));
}

#[test]
fn with_pins_that_are_not_all_there() {
    with_pins(&format!("rm {PINS}/link"));
}

#[test]
fn with_pins_half_made() {
    let Some(host) = host() else { return };
    install_tool(&host);
    // As from a daemon that was killed before it had given them their name.
    host.sh(&format!(
        "systemctl stop dorc && rm -r {PINS} && python3 /root/sk_lookup.py pin {PINS}-new && rm {PINS}-new/link && systemctl start dorc"
    ));
    wait_for_daemon(&host);
    on_kernel_plane(&host);
    host.run(&format!("ls {PINS}-new")).exits_with(2);
    switches(&host);
}
