//! Listening sockets that move, that there are several of, or that the kernel can't be given.

use std::time::Duration;

use super::{
    Program, SOME, UPLOAD, accepted, all_go_straight, go_straight_soon, goes_there_and_back, listeners, look,
    never_took_the_long_way, serving,
};
use crate::apps::{self, QUICK, SOON, Traffic};
use crate::host::{self, TestHost};

#[test]
fn a_listener_that_was_handed_to_another_process() {
    let Some(host) = serving(&Program { upload: UPLOAD, file: &listeners("handover") }) else { return };
    goes_there_and_back(&host);
}

#[test]
fn a_listener_that_is_closed_and_opened_again() {
    let Some(host) = serving(&Program { upload: UPLOAD, file: &listeners("reopen") }) else { return };
    all_go_straight(&host);
    host.sh("dorc reload web");
    host.wait_until(SOON, "the socket is closed", || {
        host.journal("green-web").contains("listens no more").then_some(())
    });
    let clients = host.spawn(&format!("python3 /home/straight.py 127.0.0.1 80 {SOME}"));
    clients.wait_for("connected", SOON);
    // Nobody answers them, and nobody sends them away.
    std::thread::sleep(Duration::from_millis(300));
    host.sh("touch /var/lib/private/web/open");
    let found = clients.wait();
    assert_eq!(found.json()["relayed"], SOME, "{found}");
    go_straight_soon(&host, "127.0.0.1");
    all_go_straight(&host);
    never_took_the_long_way(&host);
}

/// As [`serving`], on both loopback addresses.
fn on_both(way: &str) -> Option<TestHost> {
    let file = format!("listen = [\"127.0.0.1:80\", \"[::1]:80\"]\n{}", listeners(way));
    serving(&Program { upload: UPLOAD, file: &file })
}

#[test]
fn a_listener_for_each_family() {
    let Some(host) = on_both("families") else { return };
    for _ in 0..2 {
        let before = accepted(&host);
        let found = look(&host, "::1", SOME);
        assert_eq!(found["straight"], SOME, "{found}");
        assert_eq!(accepted(&host) - before, SOME);
        goes_there_and_back(&host);
        host.sh("dorc rollback web");
    }
}

/// The processor time of the daemon until now.
#[track_caller]
fn busy(host: &TestHost) -> Duration {
    let ticks = host.sh(&format!("cut -d ' ' -f 14,15 /proc/{}/stat", host.daemon_pid()));
    let ticks: u64 = ticks.split(' ').map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

#[test]
fn clients_by_ipv6_of_a_service_that_has_only_ipv4() {
    let Some(host) = on_both("single") else { return };
    goes_there_and_back(&host);
    let (before, since) = (accepted(&host), busy(&host));
    let found = look(&host, "::1", 200);
    assert_eq!((&found["straight"], &found["relayed"]), (&0.into(), &200.into()), "{found}");
    assert_eq!(accepted(&host) - before, 200);
    let took = busy(&host) - since;
    assert!(took < Duration::from_secs(1), "{took:?}");
    // Neither do those go on that it looked for in vain.
    let since = busy(&host);
    std::thread::sleep(Duration::from_secs(2));
    let took = busy(&host) - since;
    assert!(took < Duration::from_millis(100), "{took:?}");
    all_go_straight(&host);
    never_took_the_long_way(&host);
}

#[test]
fn a_multipath_listener_is_served_by_the_tcp_plane() {
    let Some(host) = apps::boot() else { return };
    let possible =
        host.run("python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)'");
    if !possible.status.success() {
        return host::skip(&format!("this kernel has no multipath TCP: {possible}"));
    }
    drop(host);
    let Some(host) = serving(&Program { upload: UPLOAD, file: &listeners("multipath") }) else { return };
    let on_tcp = |host: &TestHost| {
        let status = apps::status(host, "web");
        assert_eq!(status["plane"], "tcp", "{status:#}");
        let reason = status["plane_reason"].as_str().unwrap_or_default();
        assert!(reason.contains("multipath TCP"), "{status:#}");
        let found = look(host, "127.0.0.1", SOME);
        assert_eq!(found["relayed"], SOME, "{found}");
    };
    on_tcp(&host);
    let traffic = Traffic::start(&host, 80, "one,two");
    host.sh("sh /home/upload two");
    apps::switch(&host, "web");
    assert_eq!(apps::get(&host, 80), "two");
    on_tcp(&host);
    // One without multipath TCP comes after it.
    let text = format!("listen = 80\nrelease_dir = \"/srv/web\"\n{}\n{QUICK}", listeners("single"));
    host.write("/etc/dorc/apps/web.toml", text, 0o644);
    host.sh("dorc update web");
    apps::switch(&host, "web");
    assert_eq!(apps::status(&host, "web")["plane"], "kernel");
    assert_eq!(look(&host, "127.0.0.1", SOME)["straight"], SOME);
    host.sh("dorc rollback web");
    on_tcp(&host);
    traffic.end_without_failure();
}
