//! Releases that don't become healthy: each says why, the active one serves on, and a good one mends it.

use crate::apps::{self, Traffic};
use crate::host::{Output, TestHost};

/// A bad release: how `/srv/web` is made one, and what `dorc switch` says of it.
struct Bad {
    upload: &'static str,
    says: &'static [&'static str],
}

const BAD: [Bad; 11] = [
    Bad {
        upload: "echo unhealthy >behaviour",
        says: &["blue r", "was not healthy within 2s", "GET /healthz 503 in", "the database does not answer"],
    },
    Bad { upload: "echo exit 3 >behaviour", says: &["exit status 3", "DATABASE_URL must be set"] },
    Bad { upload: "echo wrong-port >behaviour", says: &["it listens on port ", " instead of "] },
    Bad {
        upload: "echo crash-after 300ms >behaviour",
        says: &["exit status 101, 0.", "s after its start", "listens on 127.0.0.1"],
    },
    Bad {
        upload: "echo hang >behaviour",
        says: &["was not healthy within 2s", "GET /healthz: no answer within 500ms"],
    },
    Bad { upload: "echo 'just words' >backend", says: &["backend is neither an ELF program nor a script"] },
    Bad { upload: "chmod 644 backend", says: &["backend is not executable; try: chmod +x /srv/web/backend"] },
    Bad { upload: "rm backend", says: &["/srv/web has no backend, which is the release binary"] },
    Bad {
        // `e_machine` is the half word at 18.
        upload: r"printf '\267\000' | dd of=backend bs=1 seek=18 conv=notrunc status=none",
        says: &["backend is for aarch64, this host is"],
    },
    Bad {
        upload: r"printf '#!/usr/bin/no-such\n' >backend",
        says: &["backend needs /usr/bin/no-such, which this host does not have"],
    },
    Bad {
        upload: r"printf '#!/bin/sh\nno-such-command\n' >backend",
        says: &["exit status 127", "no-such-command: not found"],
    },
];

const HEALTH: &str =
    "[health]\npath = \"/healthz\"\ninterval = \"500ms\"\ntimeout = \"500ms\"\ndeadline = \"2s\"\n";

#[test]
fn each_bad_release_says_why_and_disturbs_nothing() {
    let Some(host) = apps::boot() else { return };
    let more = format!("[service]\nstart = \"{{bin}}\"\n{HEALTH}{}", apps::QUICK);
    apps::backend_app(&host, "web", 8080, &more);
    let traffic = Traffic::start(&host, 8080, "one");

    for (number, bad) in BAD.iter().enumerate() {
        apps::upload(&host, "web", &format!("bad {number}"), "ok");
        // Elsewhere and in one piece, so that each is one upload.
        host.sh(&format!("rm -rf /srv/next && cp -a /srv/web /srv/next && cd /srv/next && {}", bad.upload));
        host.sh("cd /srv/web && rm -rf ./* && cp -a /srv/next/. .");
        let answer = host.run("dorc switch web");
        assert_says(&answer, bad);
        let status = host.sh("dorc status web");
        assert!(status.contains(bad.says[0].trim_start_matches("blue ")), "{status}\n{answer}");
        assert_eq!(apps::status(&host, "web")["active"], "green", "{}", bad.upload);
    }

    let answers = traffic.end_without_failure();
    assert_eq!(answers.as_object().map(serde_json::Map::len), Some(1), "{answers}");
    let traffic = Traffic::start(&host, 8080, "one,good");
    apps::upload(&host, "web", "good", "ok");
    apps::switch(&host, "web");
    assert_eq!(apps::get(&host, 8080), "good");
    traffic.end_without_failure();
}

#[track_caller]
fn assert_says(answer: &Output, bad: &Bad) {
    answer.exits_with(10);
    let said = answer.stderr_text();
    for part in bad.says.iter().chain(&["goes on serving; nothing was changed."]) {
        assert!(said.contains(part), "{}: {part:?} is not in\n{answer}", bad.upload);
    }
}

#[test]
fn the_whole_answer_is_there_for_programs_too() {
    let Some(host) = apps::boot() else { return };
    let more = format!("[service]\nstart = \"{{bin}}\"\n{HEALTH}{}", apps::QUICK);
    apps::backend_app(&host, "web", 8080, &more);
    apps::upload(&host, "web", "two", "unhealthy");

    let answer = host.run("dorc switch web --json");

    answer.exits_with(10);
    let last = answer.stdout_text().lines().last().unwrap_or_default().to_owned();
    let told: serde_json::Value = serde_json::from_str(&last).expect("a JSON document a line");
    let failure = &told["failure"];
    assert_eq!((&told["exit"], &told["active"]), (&10.into(), &"green".into()), "{told}");
    assert!(failure["last_probe"].as_str().is_some_and(|probe| probe.contains("503")), "{told}");
    assert!(failure["log"].to_string().contains("version two listens"), "{told}");
    // What failed is not tried again by itself, and says so each time.
    host.run("dorc switch web").exits_with(10);
    assert_eq!(host.sh("journalctl -u blue-web.service | grep -c 'version two listens'"), "1");
    assert!(host.sh("dorc releases web").contains("failed"));
    assert!(host.sh("dorc history web").contains("it was not healthy within 2s"));
}

/// One that fails its check, by the first word of its version; else it is well.
const CHECKED: &str = r##"#!/usr/bin/python3
import os, socket, sys
here = os.path.dirname(os.path.realpath(sys.argv[0]))
version = open(here + "/version").read()
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
if "NOTIFY_SOCKET" in os.environ and not version.startswith("silent"):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
        told.send(b"READY=1")
print(version, "listens", flush=True)
while True:
    client, _ = server.accept()
    if not client.recv(4096):
        continue
    client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(version))
    client.sendall(version.encode())
    client.close()
"##;

/// Uploads a version of [`CHECKED`].
fn upload_checked(host: &TestHost, app: &str, version: &str) {
    host.write(&format!("/srv/{app}/.new"), CHECKED, 0o755);
    host.sh(&format!("cd /srv/{app} && printf %s '{version}' >version && mv .new backend"));
}

/// A way to ask for health: the app file of a good and of a bad release, and what the bad one's version begins with.
struct Asked {
    app: &'static str,
    good: &'static str,
    bad: &'static str,
    version: &'static str,
    says: &'static str,
}

const ASKED: [Asked; 3] = [
    Asked {
        app: "by-command",
        good: "[health]\ncommand = \"/bin/sh -c 'cat version; grep -q good version'\"\n",
        bad: "[health]\ncommand = \"/bin/sh -c 'cat version; grep -q good version'\"\n",
        version: "bad",
        says: "sh exit status 1 in",
    },
    Asked {
        app: "by-port",
        good: "[health]\n",
        bad: "[service]\nstart = \"/bin/sleep 1000\"\n[health]\n",
        version: "bad",
        says: "connection refused",
    },
    Asked {
        app: "by-notification",
        good: "[service]\nnotify = true\n[health]\n",
        bad: "[service]\nnotify = true\n[health]\n",
        version: "silent",
        says: "did not",
    },
];

#[test]
fn health_by_command_port_and_notification() {
    let Some(host) = apps::boot() else { return };
    for (number, asked) in ASKED.iter().enumerate() {
        let (app, port) = (asked.app, 8080 + u16::try_from(number).expect("there are few"));
        let file = |how| format!("{}{how}deadline = \"4s\"\n{}", apps::backend_file(app, port), apps::QUICK);
        let update = |how| {
            host.write(&format!("/etc/dorc/apps/{app}.toml"), file(how), 0o644);
            host.sh(&format!("dorc update {app}"));
        };
        upload_checked(&host, app, "good one");
        apps::register(&host, app, &file(asked.good)).success();
        assert_eq!(apps::get(&host, port), "good one", "{app}");

        upload_checked(&host, app, asked.version);
        update(asked.bad);
        let answer = host.run(&format!("dorc switch {app}"));
        answer.exits_with(10);
        assert!(answer.stderr_text().contains(asked.says), "{app}: {}\n{answer}", asked.says);
        assert_eq!(apps::get(&host, port), "good one", "{app}");

        upload_checked(&host, app, "good two");
        update(asked.good);
        apps::switch(&host, app);
        assert_eq!(apps::get(&host, port), "good two", "{app}");
    }
}
