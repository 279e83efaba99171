//! Commands that come at the same time, or while something is under way.

use crate::apps::{self, QUICK, Traffic};
use crate::host::TestHost;

/// The apps `web` on 8080 and `calm` on 8081; what is done to the first one is no matter of the second.
fn two_apps() -> Option<TestHost> {
    let host = apps::boot()?;
    let text = format!(
        "[service]\nstart = \"{{bin}}\"\n[health]\npath = \"/healthz\"\ninterval = \"50ms\"\n{QUICK}"
    );
    apps::backend_app(&host, "web", 8080, &text);
    apps::backend_app(&host, "calm", 8081, &text);
    Some(host)
}

#[test]
fn two_switches_at_once_are_one() {
    let Some(host) = two_apps() else { return };
    let traffic = Traffic::start(&host, 8080, "one,two,three,four,five");
    for version in ["two", "three", "four", "five"] {
        apps::upload(&host, "web", version, "ok");
        let both = host.run(
            "dorc switch web & first=$!; dorc switch web; second=$?; wait $first; exit $(($? + second))",
        );
        assert!(both.status.success(), "{both}");
        assert_eq!(apps::get(&host, 8080), version, "{both}");
    }
    traffic.end_without_failure();
    // Four switches and the first release's.
    assert_eq!(host.sh("dorc history web | grep -c ' switch '"), "5");
}

#[test]
fn updates_while_it_switches() {
    let Some(host) = two_apps() else { return };
    let (web, calm) = (Traffic::start(&host, 8080, "one,two"), Traffic::start(&host, 8081, "one"));
    apps::upload(&host, "web", "two", "ok");
    apps::switch(&host, "web");
    let updates = "for n in $(seq 20); do
        sed -i \"s/^start = .*/start = \\\"{bin} $n\\\"/; s/^drain = .*/drain = \\\"$((n % 3))00ms\\\"/\" /etc/dorc/apps/web.toml
        dorc update web || exit 1
    done";
    let updates = host.spawn(&format!("{updates}; echo updated"));
    for _ in 0..8 {
        let switched = host.run("dorc switch web");
        assert!(matches!(switched.status.code(), Some(0 | 13)), "{switched}");
    }
    assert!(updates.wait().success().ends_with("updated"));
    // What was written last is what comes up, unless a switch has gone to it already.
    let is_newest = || {
        let start = host.sh(&format!("systemctl show -P ExecStart {}-web", active(&host)));
        start.contains("backend 20 ;")
    };
    if !is_newest() {
        apps::switch(&host, "web");
    }
    assert!(is_newest());
    web.end_without_failure();
    calm.end_without_failure();
}

fn active(host: &TestHost) -> String {
    apps::status(host, "web")["active"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn removed_in_the_middle_of_a_deployment() {
    let Some(host) = two_apps() else { return };
    let calm = Traffic::start(&host, 8081, "one");
    for (behaviour, pause) in [("slow-start 5s", "0.5"), ("ok", "0.25"), ("ok", "0.4")] {
        apps::upload(&host, "web", &format!("two {pause}"), behaviour);
        let switch = host.spawn("dorc switch web");
        let removed = host.run(&format!("sleep {pause}; dorc remove web"));
        assert!(removed.status.success(), "{removed}");
        let switch = switch.wait();
        assert!(matches!(switch.status.code(), Some(0 | 1)), "{switch}");
        assert_eq!(host.sh("systemctl list-units --all --plain --no-legend '*-web.service'"), "");
        host.run("ls /etc/systemd/system/*-web.service").exits_with(2);
        host.run("curl -s 127.0.0.1:8080").exits_with(7);
        // And it can be had again, with the releases that it had.
        host.sh("mv /etc/dorc/apps/web.toml.removed /etc/dorc/apps/web.toml; echo ok >/srv/web/behaviour");
        host.sh("dorc load web");
        apps::await_status(&host, "web", "/active", "green");
        assert_eq!(apps::get(&host, 8080), format!("two {pause}"));
    }
    calm.end_without_failure();
}

#[test]
fn one_name_registered_twice_at_once() {
    let Some(host) = two_apps() else { return };
    for round in 0..4 {
        let (first, second) = (8100 + round * 2, 8101 + round * 2);
        let app = format!("app{round}");
        apps::upload(&host, &app, "one", "ok");
        let register = |port: i32| {
            format!(
                "dorc register {app} --listen {port} --release-dir /srv/{app} --release-bin backend --start '{{bin}}'"
            )
        };
        let both = host.run(&format!(
            "{} >/opt/1 2>&1 & a=$!; {} >/opt/2 2>&1; b=$?; wait $a; echo $? $b; cat /opt/1 /opt/2",
            register(first),
            register(second)
        ));
        let said = both.success();
        let codes = said.lines().next().unwrap_or_default().to_owned();
        assert!(matches!(codes.as_str(), "0 1" | "1 0"), "{said}");
        assert!(said.contains("is registered already"), "{said}");
        let port = if codes == "0 1" { first } else { second };
        let listen = apps::status(&host, &app)["listen"][0].clone();
        assert_eq!(listen, format!("127.0.0.1:{port}"), "{said}");
        assert!(host.sh(&format!("cat /etc/dorc/apps/{app}.toml")).contains(&port.to_string()), "{said}");
    }
}
