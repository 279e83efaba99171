//! The verbs that look, and those that are used wrongly.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use super::{Folder, eventually};

#[test]
fn without_a_daemon_everything_is_15() {
    let folder = Folder::new();
    let dir = folder.path().to_str().unwrap().to_owned();
    for words in [
        &["status"][..],
        &["switch", "web"],
        &["rollback", "web"],
        &["reload", "web"],
        &["update", "web"],
        &["load", "web"],
        &["remove", "web"],
        &["releases", "web"],
        &["history"],
        &["logs", "web"],
    ] {
        let said = folder.exits(15, &[words, &["--dir", &dir]].concat());
        assert!(said.err.contains("no daemon"), "{words:?}: {}", said.err);
    }
}

#[test]
fn wrong_usage_is_2() {
    let folder = Folder::new();
    for words in [
        &["swtich", "web"][..],
        &["switch"],
        &["switch", "web", "--two"],
        &["switch", "web", "--timeout", "soon"],
        &["logs", "web", "--green", "--blue"],
        &["logs", "web", "-n", "many"],
        &["completions", "tcsh2"],
        &[],
    ] {
        assert!(!folder.exits(2, words).err.is_empty(), "{words:?}");
    }
    assert!(folder.exits(0, &["--help"]).out.contains("Exit codes: 0 done"));
    assert!(folder.exits(0, &["--version"]).out.starts_with("dorc "));
}

#[test]
fn an_unknown_app_is_named() {
    let folder = Folder::up();
    for words in [
        &["status", "wbe"][..],
        &["switch", "wbe"],
        &["rollback", "wbe"],
        &["reload", "wbe"],
        &["releases", "wbe"],
        &["history", "wbe"],
        &["logs", "wbe"],
        &["switch", "../web"],
        &["switch", "we b"],
    ] {
        let said = folder.exits(1, words);
        assert!(said.err.contains(words[1]) && said.err.starts_with('✗'), "{words:?}: {}", said.err);
    }
}

#[test]
fn status_releases_history_and_logs() {
    let folder = Folder::ready();
    let status = folder.exits(0, &["status", "--json"]).json();
    let app = &status["apps"][0];
    let seen = (&app["app"], &app["active"], &app["phase"], &app["green"]["state"], &app["blue"]["state"]);
    let expected = ["web", "green", "steady", "active", "ready"].map(Value::from);
    let [a, b, c, d, e] = &expected;
    assert_eq!(seen, (a, b, c, d, e));
    assert!(app["green"]["pid"].is_u64() && app["green"]["port"].is_u64());
    let table = folder.exits(0, &["status"]).out;
    assert!(
        table.starts_with("APP") && table.contains("● green r1-") && table.contains("○ blue  r2-"),
        "{table}"
    );
    let one = folder.exits(0, &["status", "web"]).out;
    assert!(one.contains("upload to") && one.contains("active"), "{one}");

    let releases = folder.exits(0, &["releases", "web", "--json"]).json();
    let states: Vec<_> = releases.as_array().unwrap().iter().map(|one| one["state"].clone()).collect();
    assert_eq!(states, ["active", "ready"]);
    assert!(folder.exits(0, &["releases", "web"]).out.starts_with("RELEASE"));

    let history = folder.exits(0, &["history", "web", "--json"]).lines();
    let what: Vec<_> = history.iter().map(|entry| entry["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["take", "switch", "take"]);
    assert!(history.iter().all(|entry| entry["app"] == "web" && entry["result"] == "done"));
    assert!(folder.exits(0, &["history"]).out.contains("switch"));

    folder.exits(0, &["logs", "web"]);
    folder.exits(0, &["logs", "web", "--blue", "-n", "1"]);
}

#[test]
fn logs_are_followed_as_long_as_somebody_reads_them() {
    let folder = Folder::live();
    let daemon = folder.up.as_ref().unwrap().id().to_string();
    let readers = || {
        let found =
            std::process::Command::new("pgrep").args(["--parent", &daemon, "--exact", "tail"]).output();
        String::from_utf8(found.unwrap().stdout).unwrap().lines().count()
    };
    let mut follow = folder.command(&["logs", "web", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    eventually("it is read", || (readers() == 1).then_some(()));
    folder.upload("2", "exit 3");
    folder.exits(10, &["switch", "web"]);
    assert!(lines.any(|line| line.unwrap().contains("DATABASE_URL must be set")), "what is new is told");
    follow.kill().unwrap();
    follow.wait().unwrap();
    eventually("nobody reads any more", || (readers() == 0).then_some(()));
}

#[test]
fn a_watcher_sees_each_change_until_the_daemon_goes() {
    let mut folder = Folder::ready();
    let mut watch = folder.command(&["status", "--watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut active = move || {
        lines
            .next()
            .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()["apps"][0]["active"].clone())
    };
    assert_eq!(active().unwrap(), "green");
    folder.exits(0, &["switch", "web"]);
    while active().unwrap() != "blue" {}
    folder.stop();
    while active().is_some() {}
    assert_eq!(watch.wait().unwrap().code(), Some(15));
}

#[test]
fn check_tells_each_problem_of_each_file() {
    let folder = Folder::up();
    let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    file("right.toml", "listen = 1\nrelease_dir = \"upload-right\"\nrelease_bin = \"a\"\n");
    folder.exits(0, &["check", "web"]);
    file("bad.toml", "listne = 80\n[helth]\npath = 3\n");
    let said = folder.exits(1, &["check", "bad.toml"]);
    for expected in ["listne", "did you mean", "listen", "helth", "release_dir"] {
        assert!(said.err.contains(expected), "{expected}: {}", said.err);
    }
    folder.exits(1, &["check", "absent.toml"]);
    let all = folder.exits(1, &["check"]);
    assert!(all.out.contains("the daemon answers") && all.out.contains("web.toml is right"), "{}", all.all());
    file("twin.toml", &fs::read_to_string(folder.path().join("web.toml")).unwrap());
    assert!(folder.exits(1, &["load", "twin"]).err.contains("is taken by the app web"));
}

#[test]
fn what_shells_and_man_need() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = folder.exits(0, &["completions", shell]).out;
        assert!(script.contains("rollback"), "{shell}");
    }
    let man = folder.exits(0, &["man"]).out;
    assert!(man.starts_with(".ie") || man.starts_with(".TH") || man.contains(".TH dorc"), "{man:.200}");
    assert!(man.contains("rollback"));
}
