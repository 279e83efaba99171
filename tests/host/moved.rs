//! Traffic is moved: switch, rollback, and what is told of them.

use crate::user::{self, UPLOADS};

#[test]
fn a_switch_right_after_an_upload_waits_for_it() {
    let Some(host) = user::serving() else { return };
    host.write("/tmp/two/version", "two", 0o644);
    host.write("/tmp/two/behaviour", "slow-start 1s", 0o644);

    let said = host.sh(&format!("cp /tmp/two/* {UPLOADS}/ && dorc switch web && curl --silent localhost"));

    assert!(said.contains("✓ traffic moved") && said.ends_with("\ntwo"), "{said}");
    assert!(said.contains("way back: dorc rollback web"), "{said}");
}

#[test]
fn a_switch_to_a_named_goal_is_idempotent_and_guarded() {
    let Some(host) = user::with_two_versions() else { return };
    let releases = host.run("dorc releases web --json").json();
    let release = |number: usize| releases[number]["release"].as_str().expect("it has a name").to_owned();
    let served = || host.sh("curl --silent localhost");

    host.sh("dorc switch web --to green");
    assert_eq!(served(), "one");
    host.sh("dorc switch web --to blue && dorc switch web --to blue");
    assert_eq!(served(), "two");
    host.sh(&format!("dorc switch web --to {0} && dorc switch web --to {0}", release(0)));
    assert_eq!(served(), "one");
    host.sh("dorc switch web --to r2");
    assert_eq!(served(), "two");

    host.run("dorc switch web --if-active green").exits_with(1);
    host.run(&format!("dorc switch web --if-active {}", release(0))).exits_with(1);
    assert_eq!(served(), "two");
    host.sh("dorc switch web --if-active blue");
    assert_eq!(served(), "one");
    host.sh(&format!("dorc switch web --to blue --if-active {}", release(0)));
    assert_eq!(served(), "two");

    host.run("dorc switch web --to purple").exits_with(1);
    host.run("dorc switch web --to r99").exits_with(1);
    host.run("dorc switch web --two").exits_with(2);
    host.run("dorc switch nothing").exits_with(1);
    assert_eq!(served(), "two");
}

#[test]
fn whoever_does_not_wait_is_told_that_it_is_busy() {
    let Some(host) = user::serving() else { return };
    host.write(&format!("{UPLOADS}/behaviour"), "slow-start 3s", 0o644);
    user::upload(&host, "two");
    host.run("dorc switch web --no-wait").exits_with(14);
    user::wait_for(&host, "blue is coming up", |status| status["blue"]["state"] == "starting");
    host.run("dorc switch web --no-wait").exits_with(14);
    let timed_out = host.run("dorc switch web --timeout 200ms");
    timed_out.exits_with(14);
    assert!(timed_out.stderr_text().contains("goes on, see: dorc status web"), "{timed_out}");
    // That wish goes on without whoever had it.
    user::wait_for(&host, "blue is active", |status| status["active"] == "blue");

    let answer = host.run("dorc switch web --no-wait --json");
    answer.success();
    let answer = answer.json();
    assert_eq!((&answer["active"], &answer["before"]), (&"green".into(), &"blue".into()), "{answer}");
}

#[test]
fn steps_and_the_answer_are_json_lines() {
    let Some(host) = user::serving() else { return };
    user::upload(&host, "two");
    let output = host.sh("dorc switch web --json");
    let lines: Vec<serde_json::Value> =
        output.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let events: Vec<_> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert!(events.contains(&"trying") && events.contains(&"ready") && events.contains(&"moved"), "{output}");
    let answer = lines.last().expect("there is an answer");
    assert_eq!((&answer["exit"], &answer["active"]), (&0.into(), &"blue".into()), "{output}");
    assert_eq!(answer["tally"]["cut"], 0, "{output}");
}

#[test]
fn one_that_does_not_get_ready_changes_nothing_and_says_why() {
    let Some(host) = user::serving() else { return };
    host.write(&format!("{UPLOADS}/behaviour"), "exit 3", 0o644);
    let refused = host.run("dorc switch web");
    refused.exits_with(10);
    let said = refused.stderr_text();
    assert!(said.contains("status 3") && said.contains("DATABASE_URL must be set"), "{refused}");
    assert_eq!(host.sh("curl --silent localhost"), "one");
    // Asked again, it is not tried again: the same answer.
    host.run("dorc switch web").exits_with(10);
    let status = host.sh("dorc status web");
    assert!(status.contains("DATABASE_URL"), "{status}");

    host.write(&format!("{UPLOADS}/behaviour"), "ok", 0o644);
    user::upload(&host, "mended");
    host.sh("dorc switch web");
    assert_eq!(host.sh("curl --silent localhost"), "mended");
}

#[test]
fn the_way_back_is_warm_and_later_in_the_store() {
    let Some(host) = user::serving() else { return };
    host.run("dorc rollback web").exits_with(1);
    user::upload(&host, "two");
    host.sh("dorc switch web && dorc rollback web");
    assert_eq!(host.sh("curl --silent localhost"), "one");
    host.sh("dorc switch web");

    // Green, which held the way back, takes the next release.
    user::upload(&host, "three");
    user::wait_for(&host, "three is warm", |status| {
        status["green"]["state"] == "ready"
            && status["green"]["release"].as_str().is_some_and(|r| r.starts_with("r3"))
    });
    host.sh("dorc rollback web");
    assert_eq!(host.sh("curl --silent localhost"), "one");
    host.sh("dorc rollback web r3");
    assert_eq!(host.sh("curl --silent localhost"), "three");
    host.run("dorc rollback web r9").exits_with(1);
    host.run("dorc rollback web green").exits_with(1);
}

#[test]
fn the_history_knows_who() {
    let Some(host) = user::with_two_versions() else { return };
    host.sh("useradd --groups dorc ci");
    host.run_as("ci", "dorc switch web").success();
    host.run_as("ci", "dorc rollback web").success();

    let history = host.sh("dorc history web");
    let line = |who: &str, what: &str| {
        history.lines().any(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            words.get(2..4) == Some(&[who, what])
        })
    };
    assert!(line("root", "switch") && line("ci", "switch") && line("ci", "rollback"), "{history}");
    assert!(history.contains("green r1-") && history.contains("→ blue r2-"), "{history}");
    let json = host.sh("dorc history web --json");
    for line in json.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
        assert_eq!(entry["app"], "web", "{json}");
    }
    let releases = host.sh("dorc releases web");
    assert!(releases.contains("active") && releases.contains("ready"), "{releases}");
}

#[test]
fn a_reload_reaches_the_active_service_only() {
    let Some(host) = user::with_two_versions() else { return };
    let pid = host.main_pid("green-web");
    host.sh("dorc reload web");
    host.wait_until(user::LONG, "it reloads", || {
        (host.sh("curl --silent localhost/reloads") == "1").then_some(())
    });
    assert_eq!(host.main_pid("green-web"), pid);
    assert!(!host.journal("blue-web").contains("reloaded"));
    let logs = host.sh("dorc logs web --green");
    assert!(logs.contains("version one listens") && logs.contains("reloaded"), "{logs}");
    assert!(!logs.contains("version two"), "{logs}");

    // A program that does not handle the signal would be killed by it.
    host.write(&format!("{UPLOADS}/backend"), include_bytes!("../programs/backend.py"), 0o755);
    host.sh("dorc switch web");
    let pid = host.main_pid("blue-web");
    let refused = host.run("dorc reload web");
    refused.exits_with(1);
    assert!(refused.stderr_text().contains("SIGHUP"), "{refused}");
    assert_eq!(host.main_pid("blue-web"), pid);
    host.sh("curl --silent --fail localhost");
}
