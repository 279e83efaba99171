//! The hooks of an app, on real systemd.

use crate::host::TestHost;
use crate::user;

/// An app with these hooks, whose first release is there already.
fn with(hooks: &str) -> Option<TestHost> {
    let host = user::serving()?;
    host.write("/root/hooks", hooks, 0o644);
    host.sh(r#"sed -i 's/^bake = .*/bake = "5s"\ndrain = "1s"/; /^\[hooks\]/r /root/hooks' /etc/dorc/apps/web.toml"#);
    Some(host)
}

/// The line of an app file for a hook that is a script.
fn script(hook: &str, text: &str) -> String {
    format!("{hook} = \"\"\"/bin/sh -c '{text}'\"\"\"\n")
}

#[test]
fn they_run_once_each_as_the_service_does() {
    let told = r#"echo "$DORC_HOOK $DORC_RELEASE $DORC_COLOUR $(id -un) $PORT" >>$STATE_DIRECTORY/told"#;
    let verify = "verify = \"/usr/bin/curl --fail --silent --show-error --write-out ' passed' http://127.0.0.1:{port}/\"\n";
    let switched = script("switched", &format!("{told}; touch /etc/owned"));
    let Some(host) = with(&(script("prepare", told) + verify + &switched)) else { return };
    host.sh("dorc update web && dorc deploy web");

    let told = host.sh("cat /var/lib/private/web/told");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    for (line, hook) in lines.iter().zip(["prepare", "switched"]) {
        assert!(line.starts_with(&format!("{hook} r2-")), "{told}");
        assert!(line.contains(" blue dorc-web 2"), "{told}");
    }
    // What it answered, and what the sandbox did not let it do, is in the logs.
    let logs = host.sh("dorc logs web");
    assert!(logs.contains("one passed") && logs.contains("/etc/owned"), "{logs}");
    assert!(host.sh("dorc history web").contains("switched begins"));
    // Nothing of them is left, and the way back needs none.
    let left = "ls /run/systemd/system /var/lib/dorc/apps/web | grep _; systemctl list-units --all 'blue-web_*' --no-legend";
    assert_eq!(host.sh(left), "");
    host.sh("dorc switch web");
    assert_eq!(host.sh("grep -c prepare /var/lib/private/web/told"), "1");
}

#[test]
fn what_fails_stops_the_deployment() {
    for (hook, starts) in [("prepare", false), ("verify", true)] {
        let Some(host) = with(&script(hook, "echo no such table; exit 7")) else { return };
        host.sh("dorc update web");

        let answer = host.run("dorc deploy web");

        answer.exits_with(10);
        let said = answer.stderr_text() + &answer.stdout_text();
        assert!(said.contains(&format!("the hook {hook} failed: exit status 7")), "{said}");
        assert!(said.contains("no such table"), "{said}");
        assert_eq!(host.sh("curl --silent localhost"), "one");
        assert_eq!(host.sh("journalctl -u blue-web --no-pager").contains("version one listens"), starts);
        let status = user::status(&host);
        let states = (&status["active"], &status["blue"]["state"]);
        assert_eq!(states, (&"green".into(), &"failed".into()), "{status}");
    }
}

#[test]
fn a_verdict_in_the_bake_takes_the_traffic_back() {
    let bake = script("bake", "sleep 2; echo too many errors; exit 1");
    let failed = script("failed", "echo told: $DORC_REASON");
    let Some(host) = with(&(bake + &failed)) else { return };
    host.sh("dorc update web");

    let answer = host.run("dorc deploy web --json");

    answer.exits_with(11);
    let said = answer.stdout_text();
    assert!(
        said.contains("the hook bake failed: exit status 1") && said.contains("too many errors"),
        "{said}"
    );
    assert_eq!(user::status(&host)["active"], "green");
    user::wait_for(&host, "it is told", |_| host.sh("dorc logs web").contains("told: the hook bake failed"));
}
