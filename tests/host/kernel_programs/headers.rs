//! A program that wants to be told who its clients are, which is only possible by the other plane.

use super::workers::{APP, NGINX};
use super::{Program, all_go_straight, go_straight_soon, serving};
use crate::apps::{self, QUICK, Traffic};
use crate::host::TestHost;

/// What nginx takes for the address of a client that comes from 127.0.0.9, and what it was told of it.
fn who(host: &TestHost) -> String {
    host.sh("curl --silent --show-error --fail --interface 127.0.0.9 http://127.0.0.1/who")
}

#[track_caller]
fn is_told(host: &TestHost) {
    assert_eq!((apps::get(host, 80), who(host)), ("two".into(), "127.0.0.1 127.0.0.9".into()));
    let status = apps::status(host, "web");
    assert_eq!(status["plane"], "tcp");
    assert!(status["plane_reason"].as_str().is_some_and(|why| why.contains("PROXY protocol")), "{status:#}");
}

#[test]
fn nginx_is_told_of_its_clients_from_one_release_on() {
    let file = format!("{APP}deadline = \"2s\"\n");
    let Some(host) = serving(&Program { upload: NGINX, file: &file }) else { return };
    all_go_straight(&host);
    assert_eq!(who(&host), "127.0.0.9 ");
    let traffic = Traffic::start(&host, 80, "one,two");
    host.write("/home/upload", format!("set -e; cd /srv/web; LISTEN=proxy_protocol\n{NGINX}"), 0o644);
    host.sh("sh /home/upload two");
    // It waits for a header, and gets none yet.
    host.run("dorc switch web").exits_with(10);
    let place = "listen = 80\nrelease_dir = \"/srv/web\"\n";
    let file = format!("{place}{file}{QUICK}[service]\nproxy_protocol = \"v2\"\n");
    host.write("/etc/dorc/apps/web.toml", file, 0o644);
    host.sh("dorc update web");
    go_straight_soon(&host, "127.0.0.1");
    apps::switch(&host, "web");
    is_told(&host);
    // The kernel has nothing of it that a daemon could take over and send clients to without their headers.
    host.sh(&format!("kill -9 {}", host.daemon_pid()));
    host.wait_until(apps::SOON, "the next daemon", || {
        host.run("dorc status web").status.success().then_some(())
    });
    is_told(&host);
    host.sh("dorc rollback web");
    assert_eq!(apps::get(&host, 80), "one");
    go_straight_soon(&host, "127.0.0.1");
    apps::switch(&host, "web");
    is_told(&host);
    traffic.end_without_failure();
}
