//! The verbs that change something.

use std::fs;
use std::time::{Duration, Instant};

use super::Folder;

#[test]
fn a_switch_and_back() {
    let folder = Folder::ready();
    assert_eq!(folder.answer(), "1");
    let said = folder.exits(0, &["switch", "web"]);
    for expected in ["blue r2-", "traffic moved", "green → blue", "settled", "way back: dorc rollback web"]
    {
        assert!(said.out.contains(expected), "{expected}: {}", said.out);
    }
    assert_eq!(folder.answer(), "2");
    assert!(folder.exits(0, &["switch", "web", "--to", "blue"]).out.contains("is active already"));
    assert!(folder.exits(0, &["switch", "web", "--to", "r2"]).out.contains("is active already"));
    let guarded = folder.exits(1, &["switch", "web", "--if-active", "green"]);
    assert!(guarded.err.contains("nothing was changed"), "{}", guarded.err);
    folder.exits(1, &["switch", "web", "--to", "r77"]);
    assert_eq!(folder.answer(), "2");

    folder.exits(0, &["rollback", "web"]);
    assert_eq!(folder.answer(), "1");
    folder.exits(0, &["rollback", "web", "r2"]);
    folder.exits(1, &["rollback", "web", "green"]);
    let guarded = folder.exits(1, &["rollback", "web", "--if-active", "r1"]);
    assert!(guarded.err.contains("nothing was changed"), "{}", guarded.err);
    assert_eq!(folder.answer(), "2");
    folder.exits(0, &["switch", "web", "--if-active", "blue", "--to", "green", "--no-wait"]);
    assert_eq!(folder.answer(), "1");
}

#[test]
fn json_is_a_line_a_step_and_one_document_where_nothing_is_waited_for() {
    let folder = Folder::ready();
    let lines = folder.exits(0, &["switch", "web", "--json"]).lines();
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap_or_default()).collect();
    let place =
        |event| events.iter().position(|one| *one == event).unwrap_or_else(|| panic!("{event}: {lines:#?}"));
    assert!(place("ready") < place("moved") && place("moved") < place("settled"), "{events:?}");
    let answer = lines.last().unwrap();
    assert_eq!(
        (&answer["exit"], &answer["active"], &answer["before"]),
        (&0.into(), &"blue".into(), &"green".into())
    );
    assert!(answer["tally"].is_object());

    let answer = folder.exits(0, &["switch", "web", "--json", "--no-wait"]).json();
    assert_eq!(answer["active"], "green");
    let refused = folder.exits(1, &["switch", "web", "--if-active", "blue", "--json", "--no-wait"]).json();
    assert_eq!(refused["exit"], 1);
}

#[test]
fn a_bad_release_is_10_with_its_reasons_and_a_bad_way_back_12() {
    let folder = Folder::live();
    folder.exits(1, &["rollback", "web"]);
    assert!(folder.exits(1, &["switch", "web"]).err.contains("nothing to switch to"));
    folder.upload("2", "exit 3");
    let said = folder.exits(10, &["switch", "web"]);
    for expected in ["did not get healthy", "exit status 3", "DATABASE_URL must be set", "goes on serving"] {
        assert!(said.all().contains(expected), "{expected}: {}", said.all());
    }
    assert_eq!(folder.answer(), "1");
    let lines = folder.exits(10, &["switch", "web", "--json"]).lines();
    let answer = lines.last().unwrap();
    assert_eq!((&answer["exit"], &answer["active"]), (&10.into(), &"green".into()));
    assert!(answer["failure"]["log"][0].as_str().unwrap().contains("DATABASE_URL"), "{answer}");
    folder.exits(12, &["rollback", "web", "r2"]);
    assert!(folder.exits(0, &["releases", "web"]).out.contains("failed"));
}

#[test]
fn what_is_not_waited_for_is_14() {
    let folder = Folder::live();
    folder.upload("2", "slow");
    folder.until("2 comes up", |status| status["phase"] == "trying");
    let said = folder.exits(14, &["switch", "web", "--no-wait"]);
    assert!(said.err.contains("coming up"), "{}", said.err);
    let begin = Instant::now();
    let said = folder.exits(14, &["switch", "web", "--timeout", "300ms"]);
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    assert!(said.err.contains("not done after 300ms"), "{}", said.err);
    // What was begun goes on.
    folder.until("it switched", |status| status["active"] == "blue");
}

#[test]
fn files_are_taken_in_changed_and_removed() {
    let folder = Folder::live();
    assert!(folder.exits(0, &["update", "web"]).out.contains("nothing in it needs a restart"));
    folder.write_app("env = { A = \"1\" }");
    assert!(folder.exits(0, &["update", "web"]).out.contains("blue comes up as r2-"));
    folder.until("it is ready", |status| status["blue"]["state"] == "ready");

    folder.write_app("listne = 1");
    let said = folder.exits(1, &["update", "web"]);
    assert!(said.err.contains("listne"), "{}", said.err);
    assert_eq!(folder.answer(), "1", "the configuration before goes on");
    folder.exits(1, &["update", "other"]);
    folder.exits(1, &["load", "other"]);

    folder.write_app("");
    assert!(folder.exits(0, &["remove", "web", "--json"]).out.contains("removed"));
    folder.exits(1, &["status", "web"]);
    folder.exits(1, &["remove", "web"]);
    assert!(folder.path().join(".dorc/apps/web/releases").exists());
    fs::rename(folder.path().join("web.toml.removed"), folder.path().join("web.toml")).unwrap();
    folder.exits(0, &["load", "web"]);
    folder.until("it is live again", |status| status["active"] == "green");
    assert_eq!(folder.answer(), "1");
    folder.exits(0, &["remove", "web", "--purge"]);
    assert!(!folder.path().join(".dorc/apps/web").exists());
    assert!(folder.path().join("upload/web").exists(), "uploads are the user's");
}

#[test]
fn reload_says_why_not() {
    let folder = Folder::up();
    assert!(folder.exits(1, &["reload", "web"]).err.contains("no active service"));
    folder.upload("1", "ok");
    folder.until("it is live", |status| status["active"] == "green");
    let said = folder.exits(1, &["reload", "web"]);
    assert!(said.err.contains("SIGHUP"), "{}", said.err);
    assert_eq!(folder.answer(), "1");
    folder.write_app("reload = \"/bin/true\"");
    folder.exits(0, &["update", "web"]);
    folder.exits(0, &["switch", "web"]);
    assert!(folder.exits(0, &["reload", "web"]).out.contains("reloaded"));
}

#[test]
fn the_daemon_comes_back_with_what_it_had() {
    let mut folder = Folder::ready();
    folder.exits(0, &["switch", "web"]);
    folder.stop();
    folder.exits(15, &["status"]);
    folder.start();
    folder
        .until("both are there", |status| status["active"] == "blue" && status["green"]["state"] == "ready");
    assert_eq!(folder.answer(), "2");
    folder.exits(0, &["rollback", "web"]);
    assert_eq!(folder.answer(), "1");
}
