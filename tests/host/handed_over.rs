//! Releases that are handed over in one piece: by `dorc upload` and `dorc deploy`.

use crate::apps::{self, QUICK, Traffic};
use crate::host::TestHost;

/// Makes the release `$1` in `/opt/build`.
const BUILD: &str = "rm -rf /opt/build && mkdir /opt/build && cd /opt/build && cp /opt/backend backend \
    && printf %s \"$1\" >version && echo ok >behaviour";

/// Sends what it reads as the beginning of an upload, and then nothing more.
const SENDER: &str = r#"
import socket, sys
daemon = socket.socket(socket.AF_UNIX)
daemon.connect("/run/dorc/dorc.sock")
daemon.sendall(b"POST /v1/apps/web/uploads/%064d HTTP/1.1\r\nhost: dorc\r\ncontent-length: 99999999\r\n\r\n" % 0)
daemon.sendall(sys.stdin.buffer.read())
print("sent", flush=True)
daemon.recv(1)
"#;

fn web(host: &TestHost) {
    host.write("/opt/make", BUILD, 0o644);
    let text = format!(
        "[service]\nstart = \"{{bin}}\"\n[health]\ninterval = \"50ms\"\npath = \"/healthz\"\n{QUICK}"
    );
    apps::backend_app(host, "web", 8080, &text);
}

/// What the release store of `web` holds that is no release.
fn debris(host: &TestHost) -> String {
    host.sh("find /var/lib/dorc/apps/web/releases -maxdepth 1 -name '.*' ! -name .")
}

#[test]
fn deployments_of_folders_and_archives_lose_nothing() {
    let Some(host) = apps::boot() else { return };
    web(&host);
    let traffic = Traffic::start(&host, 8080, "one,two,three,four");
    host.sh("sh /opt/make two && dorc deploy web /opt/build --label v2");
    host.sh("sh /opt/make three && tar -czf /opt/three.tar.gz -C /opt/build . && dorc deploy web /opt/three.tar.gz");
    host.sh("sh /opt/make four && tar -cf /opt/four.tar -C /opt/build .");
    host.sh("dorc upload web /opt/four.tar --label v4 && dorc switch web");
    let counted = traffic.end_without_failure();
    assert_eq!(apps::get(&host, 8080), "four");
    for version in ["one", "two", "three"] {
        assert!(counted[version].as_u64() > Some(0), "{version}: {counted}");
    }
    let history = host.sh("dorc history web");
    assert!(history.contains("v2") && history.contains("v4"), "{history}");
    // It is the same release through the release directory.
    host.sh("cp /opt/build/version /srv/web/version && dorc switch web | grep 'is active already'");
}

#[test]
fn an_upload_that_meets_a_full_disk_or_a_killed_daemon_changes_nothing() {
    let Some(host) = apps::boot() else { return };
    host.sh("mkdir -p /var/lib/dorc && mount -t tmpfs -o size=48m,mode=711 tmpfs /var/lib/dorc");
    host.sh("strip -o /opt/small /opt/backend && mv /opt/small /opt/backend");
    web(&host);
    let before = apps::status(&host, "web");
    host.sh("sh /opt/make two && head -c 64M /dev/urandom >/opt/build/large");

    let full = host.run("dorc upload web /opt/build");
    let said = full.exits_with(1).stderr_text();
    assert!(said.contains("no room"), "{said}");
    assert_eq!(debris(&host), "");
    let after = apps::status(&host, "web");
    assert_eq!((&before["green"], &before["blue"]), (&after["green"], &after["blue"]));

    // What was sent until the daemon is killed is gone with it.
    host.sh("truncate -s 20M /opt/build/large");
    host.write("/opt/sender.py", SENDER, 0o644);
    let sender = host.spawn("tar -c -C /opt/build . | python3 /opt/sender.py");
    sender.wait_for("sent", apps::SOON);
    host.wait_until(apps::SOON, "some of it is there", || (!debris(&host).is_empty()).then_some(()));
    let pid = host.daemon_pid();
    host.sh(&format!("kill -9 {pid}"));
    host.wait_until(apps::SOON, "another daemon answers", || {
        let is_another = host.main_pid("dorc.service").is_some_and(|now| now != pid);
        (is_another && host.run("dorc status").status.success()).then_some(())
    });
    assert_eq!(debris(&host), "");
    drop(sender);
    assert_eq!(apps::get(&host, 8080), "one");
    host.sh("dorc deploy web /opt/build");
    assert_eq!(apps::get(&host, 8080), "two");
}
