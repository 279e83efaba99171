//! App files: those of the first dorc go on to work, bad ones disturb nobody.

use std::fs;
use std::path::Path;

use crate::apps::{self, QUICK, Traffic};

/// A fixture of the app files.
fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A server that is told its port in whatever way the seed's users told it.
const SERVER: &str = r#"#!/usr/bin/python3
import os, re, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
port = int(re.findall(r"\d+$", " ".join(word for word in sys.argv[1:] if re.search(r"\d$", word)))[0])
version = open(os.path.join(os.path.dirname(os.path.realpath(__file__)), "version")).read()
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(version)))
        self.end_headers()
        self.wfile.write(version.encode())
class Server(HTTPServer):
    request_queue_size = 128
Server(("127.0.0.1", port), Handler).serve_forever()
"#;

#[test]
fn app_files_of_the_first_dorc_go_on_to_work() {
    let Some(host) = apps::boot() else { return };
    host.write("/etc/api config.toml", "", 0o644);
    host.sh("mkdir -p /etc/dorc/service-data /srv/www");
    for what in ["shop-reload", "shop-stop"] {
        host.write(&format!("/usr/local/bin/{what}"), "#!/bin/sh\nexit 0\n", 0o755);
    }
    let cases = [
        ("dwbrite.com", 8080, "/var/tmp/dwbrite.com/dwbrite-com", "/var/tmp/dwbrite.com/version"),
        ("api", 80, "/home/ci/build/api-server", "/home/ci/api/version"),
        ("shop", 3000, "/var/tmp/shop/run", "/var/tmp/shop/version"),
    ];
    for (app, port, program, version) in cases {
        let text = fixture(&format!("valid/{app}.toml"));
        let text = text.replace("listen_port = 80\n", &format!("listen_port = {port}\n"));
        host.write(version, "one", 0o644);
        host.write(program, SERVER, 0o755);
        let registered = apps::register(&host, app, &text);
        assert!(registered.status.success(), "{registered}\n{}", host.journal(&format!("green-{app}")));
        assert_eq!(apps::get(&host, port), "one", "{app}");
        let traffic = Traffic::start(&host, port, "one,two");

        host.write(version, "two", 0o644);
        apps::switch(&host, app);
        assert_eq!(apps::get(&host, port), "two", "{app}");
        host.sh(&format!("dorc load {app}"));
        host.sh(&format!("dorc rollback {app}"));
        assert_eq!(apps::get(&host, port), "one", "{app}");
        traffic.end_without_failure();
    }
}

#[test]
fn a_bad_app_file_disturbs_nobody() {
    let Some(host) = apps::boot() else { return };
    let text = format!("[service]\nstart = \"{{bin}}\"\n[health]\npath = \"/healthz\"\n{QUICK}");
    apps::backend_app(&host, "web", 8080, &text);
    apps::backend_app(&host, "calm", 8081, &text);
    let (web, calm) = (Traffic::start(&host, 8080, "one"), Traffic::start(&host, 8081, "one"));
    let names = [
        "address-port-zero",
        "array-of-tables",
        "deep-unknown",
        "duration-unit",
        "empty",
        "env-control",
        "listen-name",
    ];
    for name in names {
        let (text, told) =
            (fixture(&format!("invalid/{name}.toml")), fixture(&format!("invalid/{name}.txt")));
        let told = told.replace(&format!("{name}.toml"), "web.toml");
        let good = host.read("/etc/dorc/apps/web.toml");
        host.write("/etc/dorc/apps/web.toml", text, 0o644);
        for verb in ["load", "update"] {
            let answer = host.run(&format!("dorc {verb} web"));
            answer.exits_with(1);
            for line in told.lines() {
                assert!(answer.stderr_text().contains(line), "{name}: {line:?} is not in\n{answer}");
            }
        }
        let checked = host.run("dorc check");
        checked.exits_with(1);
        assert!(checked.stderr_text().contains(told.lines().next().unwrap_or_default()), "{checked}");
        host.write("/etc/dorc/apps/web.toml", good, 0o644);
    }
    host.sh("dorc update web; dorc check");
    web.end_without_failure();
    calm.end_without_failure();
}

#[test]
fn a_listen_address_has_one_owner() {
    let Some(host) = apps::boot() else { return };
    let text = format!("[service]\nstart = \"{{bin}}\"\n{QUICK}");
    apps::backend_app(&host, "web", 8080, &text);
    let traffic = Traffic::start(&host, 8080, "one");
    let other = host.spawn(
        "python3 -c 'import socket, sys; it = socket.create_server((\"127.0.0.1\", 8090)); \
        print(\"listens\", flush=True); sys.stdin.read()'",
    );
    other.wait_for("listens", apps::SOON);
    apps::upload(&host, "new", "one", "ok");

    let cases = [
        (8080, "127.0.0.1:8080 is taken by the app web"),
        (8090, "another program listens on 127.0.0.1:8090"),
    ];
    for (port, says) in cases {
        let answer = apps::register(&host, "new", &format!("{}{text}", apps::backend_file("new", port)));
        answer.exits_with(1);
        assert!(answer.stderr_text().contains(says), "{says:?} is not in\n{answer}");
        host.run("test -e /etc/dorc/apps/new.toml").exits_with(1);
        // As if it had been written by hand: the daemon says the same, and so does a check of all.
        host.write("/etc/dorc/apps/new.toml", format!("{}{text}", apps::backend_file("new", port)), 0o644);
        let answer = host.run("dorc load new");
        assert!(answer.exits_with(1).stderr_text().contains(says), "{says:?} is not in\n{answer}");
        for check in ["dorc check", "dorc check new"] {
            let checked = host.run(check);
            assert!(checked.exits_with(1).stderr_text().contains(says), "{says:?} is not in\n{checked}");
        }
        host.sh("rm /etc/dorc/apps/new.toml");
    }
    // An app that is loaded keeps what it has when it asks for what it can't have.
    host.sh("sed -i 's/^listen = .*/listen = [8080, 8090]/' /etc/dorc/apps/web.toml");
    let answer = host.run("dorc update web");
    assert!(
        answer.exits_with(1).stderr_text().contains("another program listens on 127.0.0.1:8090"),
        "{answer}"
    );
    traffic.end_without_failure();
    other.wait().success();
    host.sh("dorc update web");
    assert_eq!(apps::get(&host, 8090), "one");
}
