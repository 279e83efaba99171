//! Several processes that accept: on one socket, or on one each.

use super::{Program, UPLOAD, all_go_straight, go_straight_soon, goes_there_and_back, listeners, serving};
use crate::apps::{self, Traffic};
use crate::host::TestHost;

/// nginx as a dynamic user in the strict sandbox: all that it writes is in its state directory.
pub(super) const NGINX: &str = r#"
    printf %s $1 >version
    cat >nginx.conf.in <<'END'
daemon off;
pid STATE/nginx-PORT.pid;
error_log stderr;
worker_processes 2;
events { worker_connections 1000; }
http {
    access_log off;
    client_body_temp_path STATE/body;
    proxy_temp_path STATE/proxy;
    fastcgi_temp_path STATE/fastcgi;
    uwsgi_temp_path STATE/uwsgi;
    scgi_temp_path STATE/scgi;
    server {
        listen 127.0.0.1:PORT LISTEN;
        location = / { return 200 "VERSION"; }
        location = /peer { return 200 "$remote_port $pid"; }
        location = /who { return 200 "$remote_addr $proxy_protocol_addr"; }
    }
}
END
    sed -i s/LISTEN/$LISTEN/ nginx.conf.in
    cat >run <<'END'
#!/bin/sh
conf=$STATE_DIRECTORY/nginx-$PORT.conf
sed "s|STATE|$STATE_DIRECTORY|; s/PORT/$PORT/; s/VERSION/$(cat version)/" nginx.conf.in >"$conf"
exec nginx -e stderr -c "$conf"
END
    chmod +x run
"#;

/// How it is run.
pub(super) const APP: &str = "release_bin = \"run\"\n[health]\npath = \"/\"\n";

fn nginx(listen: &str) -> Option<TestHost> {
    serving(&Program { upload: &format!("LISTEN={listen}\n{NGINX}"), file: APP })
}

/// Reloads nginx under traffic, several times, with more workers each time, and loses nothing.
#[track_caller]
fn reloads(host: &TestHost) {
    let before = all_go_straight(host);
    let traffic = Traffic::start(host, 80, "two");
    for workers in [3, 4, 4] {
        let status = apps::status(host, "web");
        let port = &status[status["active"].as_str().expect("active")]["port"];
        let conf = format!("/var/lib/private/web/nginx-{port}.conf");
        host.sh(&format!("sed -i 's/^worker_processes.*/worker_processes {workers};/' {conf}"));
        let all = format!("pgrep --parent {}", status[status["active"].as_str().expect("active")]["pid"]);
        let old = host.sh(&all);
        host.sh("dorc reload web");
        host.wait_until(apps::SOON, "new workers only", || {
            let now = host.sh(&all);
            (now.lines().count() == workers && !now.lines().any(|one| old.contains(one))).then_some(())
        });
    }
    traffic.end_without_failure();
    let after = all_go_straight(host);
    let after = after.as_object().expect("processes");
    assert!(after.keys().all(|process| before.get(process).is_none()), "{before} {after:?}");
}

#[test]
fn nginx_with_a_shared_listener() {
    let Some(host) = nginx("") else { return };
    goes_there_and_back(&host);
    reloads(&host);
}

#[test]
fn nginx_with_a_listener_for_each_worker() {
    let Some(host) = nginx("reuseport") else { return };
    goes_there_and_back(&host);
    let processes = all_go_straight(&host);
    assert_eq!(processes.as_object().map(serde_json::Map::len), Some(2), "{processes}");
    reloads(&host);
    let processes = all_go_straight(&host);
    assert_eq!(processes.as_object().map(serde_json::Map::len), Some(4), "{processes}");
}

#[test]
fn children_that_share_the_listener_of_their_parent() {
    let Some(host) = serving(&Program { upload: UPLOAD, file: &listeners("prefork") }) else { return };
    goes_there_and_back(&host);
}

#[test]
fn children_with_a_listener_each_of_which_some_are_killed() {
    let Some(host) = serving(&Program { upload: UPLOAD, file: &listeners("reuseport") }) else { return };
    goes_there_and_back(&host);
    let processes = all_go_straight(&host);
    let children: Vec<&String> = processes.as_object().expect("processes").keys().collect();
    assert_eq!(children.len(), 4, "{processes}");
    // Whichever of them is the one that the kernel was given, it is among these.
    for child in &children[1..] {
        let load = host.spawn(
            "load --address 127.0.0.1:80 --keep-alive 3 --one-shot 3 --every 5ms --until-stdin-closes --json",
        );
        load.wait_for("warm", apps::SOON);
        host.sh(&format!("kill -9 {child}; while [ -e /proc/{child}/fd/0 ]; do sleep 0.01; done"));
        // From here on nobody meets it.
        let traffic = Traffic::start(&host, 80, "two");
        go_straight_soon(&host, "127.0.0.1");
        traffic.end_without_failure();
        // One for each client at most: what it had in flight.
        let counted = load.wait().json();
        assert!(counted["failed"].as_u64() <= Some(6) && counted["ok"].as_u64() > Some(20), "{counted}");
        all_go_straight(&host);
    }
    let left = all_go_straight(&host);
    assert!(left.as_object().is_some_and(|left| left.keys().eq([children[0]])), "{left}");
}
