//! `--host`: the daemons of other machines. A script stands in for ssh, and leads to daemons of other folders.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{DORC, Folder, Said};

/// Three machines on which version `1` is active.
struct Machines {
    all: [Folder; 3],
    ssh: String,
}

const NAMES: [&str; 3] = ["one", "two", "three"];

impl Machines {
    /// None has a release yet; `more` as below.
    fn empty(more: [&str; 3]) -> Self {
        Self::of(more.map(|more| (Folder::up(), more)))
    }

    /// `more` is added to the app files, by machine.
    fn with(more: [&str; 3]) -> Self {
        Self::of(more.map(|more| (Folder::live(), more)))
    }

    fn of(all: [(Folder, &str); 3]) -> Self {
        let all = all.map(|(folder, more)| {
            let file = folder.path().join("web.toml");
            let text =
                fs::read_to_string(&file).unwrap() + "[switch]\nbake = \"1s\"\ndrain = \"1s\"\n" + more;
            fs::write(file, text).unwrap();
            folder.exits(0, &["update", "web"]);
            folder
        });
        let script = all[0].path().join("ssh");
        let mut text =
            String::from("#!/bin/sh\n[ \"$1 $3 $4\" = '-- dorc remote' ] || exit 255\ncase $2 in\n");
        for (name, folder) in NAMES.iter().zip(&all) {
            text += &format!("ci@{name}) cd {} ;;\n", folder.path().display());
        }
        text +=
            &format!("*) echo no such host >&2; exit 255 ;;\nesac\nexec {DORC} remote $DORC_TEST_REMOTE\n");
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
        Self { ssh: script.display().to_string(), all }
    }

    fn run(&self, hosts: &[&str], limit: &str, words: &[&str]) -> Said {
        let output = self.command(hosts, limit, words).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { exit: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    fn command(&self, hosts: &[&str], limit: &str, words: &[&str]) -> Command {
        let mut command = self.all[0].command(words);
        command.current_dir("/").env("DORC_SSH", &self.ssh).env("DORC_TEST_REMOTE", limit);
        for host in hosts {
            command.args(["--host", &format!("ci@{host}")]);
        }
        command
    }

    fn deploys(&self, exit: i32, build: &Path) -> Said {
        let said = self.run(&NAMES, "", &["deploy", "web", build.to_str().unwrap()]);
        assert_eq!(said.exit, exit, "{}", said.all());
        said
    }

    fn answers(&self) -> [String; 3] {
        self.all.each_ref().map(Folder::answer)
    }
}

#[test]
fn all_of_them_deploy() {
    let machines = Machines::with(["", "", ""]);
    let said = machines.deploys(0, &machines.all[0].build("2", "ok", false));
    for name in NAMES {
        assert!(said.out.contains(&format!("ci@{name} is prepared")), "{}", said.all());
        assert!(said.out.contains(&format!("ci@{name} has switched")), "{}", said.all());
    }
    assert_eq!(machines.answers(), ["2", "2", "2"]);
    let said = machines.run(&NAMES, "", &["deploy", "web", "--json"]);
    assert_eq!((said.exit, said.json()["hosts"].as_array().unwrap().len()), (0, 3), "{}", said.all());
    assert_eq!(machines.answers(), ["2", "2", "2"], "what was there already does not go back");
}

#[test]
fn one_that_does_not_get_healthy_keeps_all_from_switching() {
    let machines = Machines::with(["", "", "[hooks]\nverify = \"/bin/false\"\n"]);
    let said = machines.deploys(10, &machines.all[0].build("2", "ok", false));
    assert!(said.err.contains("ci@three: ") && said.err.contains("no host has switched"), "{}", said.all());
    assert_eq!(machines.answers(), ["1", "1", "1"]);
}

#[test]
fn a_first_release_goes_live_on_all_or_on_none() {
    let machines = Machines::empty(["", "", "[hooks]\nverify = \"/bin/false\"\n"]);
    let build = machines.all[0].build("1", "ok", false);
    let said = machines.deploys(10, &build);
    assert!(said.err.contains("no host has switched"), "{}", said.all());
    for folder in &machines.all {
        assert_eq!(folder.status()["active"], Value::Null, "{}", folder.status());
    }
    let file = machines.all[2].path().join("web.toml");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("/bin/false", "/bin/true")).unwrap();
    machines.all[2].exits(0, &["update", "web"]);
    machines.deploys(0, &build);
    assert_eq!(machines.answers(), ["1", "1", "1"]);
}

#[test]
fn where_there_is_no_way_back_it_is_said_who_is_where() {
    let machines = Machines::of([
        (Folder::up(), ""),
        (Folder::live(), ""),
        (Folder::live(), "[hooks]\nbake = \"/bin/false\"\n"),
    ]);
    let said = machines.deploys(16, &machines.all[0].build("2", "ok", false));
    let places = "ci@one has green r1-";
    assert!(said.err.contains(places) && said.err.contains("ci@three has green r1-"), "{}", said.all());
    assert_eq!(machines.answers(), ["2", "1", "1"]);
}

#[test]
fn what_is_frozen_or_takes_too_long_is_said_before_anything_switches() {
    let machines = Machines::with(["", "", "[hooks]\nverify = \"/bin/sleep 30\"\n"]);
    let build = machines.all[0].build("2", "ok", false);
    let words = ["deploy", "web", build.to_str().unwrap(), "--timeout", "2s"];
    let said = machines.run(&NAMES, "", &words);
    assert_eq!(said.exit, 14, "{}", said.all());
    assert!(said.err.contains("not done after 2s"), "{}", said.all());
    assert_eq!(machines.answers(), ["1", "1", "1"]);
    let said = machines.run(&NAMES, "", &["deploy", "web", "--no-wait"]);
    assert!(said.exit == 2 && said.err.contains("--no-wait"), "{}", said.all());
    machines.all[1].exits(0, &["freeze", "web", "--reason", "the fair"]);
    let other = machines.all[0].build("3", "ok", false);
    let said = machines.deploys(14, &other);
    assert!(said.err.contains("ci@two: web: frozen") && said.err.contains("the fair"), "{}", said.all());
    assert!(!said.out.contains("ci@two has it"), "{}", said.all());
    assert_eq!(machines.answers(), ["1", "1", "1"]);
}

#[test]
fn the_status_of_another_machine_is_watched_over_the_same_way() {
    let machines = Machines::with(["", "", ""]);
    let mut watch = machines.command(&["one"], "--app web", &["status", "web", "--watch", "--json"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut active = || serde_json::from_str::<Value>(&lines.next().unwrap()).unwrap()["apps"][0].clone();
    assert_eq!(active()["active"], "green");
    machines.all[0].upload("2", "ok");
    machines.all[0].exits(0, &["switch", "web"]);
    while active()["active"] != "blue" {}
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn one_that_fails_at_the_switch_takes_all_back() {
    let machines = Machines::with(["", "", "[hooks]\nbake = \"/bin/false\"\n"]);
    let said = machines.deploys(11, &machines.all[0].build("2", "ok", false));
    assert!(said.err.contains("all hosts that had switched are back"), "{}", said.all());
    assert_eq!(machines.answers(), ["1", "1", "1"]);
}

#[test]
fn where_not_all_can_be_taken_back_it_is_said_who_is_where() {
    let mut machines = Machines::with(["", "", "[hooks]\nbake = \"/bin/false\"\n"]);
    let build = machines.all[0].build("2", "ok", false);
    let gone = Pid::from_child(machines.all[1].up.as_ref().unwrap());
    let said = std::thread::scope(|scope| {
        let deployed = scope.spawn(|| machines.run(&NAMES, "", &["deploy", "web", build.to_str().unwrap()]));
        machines.all[1].until("it has switched", |status| status["active"] == "blue");
        kill_process(gone, Signal::KILL).unwrap();
        deployed.join().unwrap()
    });
    machines.all[1].up.take().unwrap().wait().unwrap();
    assert_eq!(said.exit, 16, "{}", said.all());
    let lost = "the hosts disagree: ";
    assert!(
        said.err.contains(lost) && said.err.contains("ci@two does not say what it has"),
        "{}",
        said.all()
    );
    assert_eq!([machines.all[0].answer(), machines.all[2].answer()], ["1", "1"]);
}

#[test]
fn a_connection_for_one_app_is_for_nothing_else() {
    let machines = Machines::with(["", "", ""]);
    let build = machines.all[0].build("2", "ok", false);
    let run = |words: &[&str]| machines.run(&["one"], "--app web", words);
    let said = run(&["deploy", "web", build.to_str().unwrap(), "--label", "v2"]);
    assert_eq!(said.exit, 0, "{}", said.all());
    assert_eq!(machines.all[0].answer(), "2");
    assert_eq!(run(&["status", "web"]).exit, 0);
    assert_eq!(run(&["logs", "web"]).exit, 0);
    for words in [
        &["freeze", "web", "--reason", "x"][..],
        &["remove", "web"],
        &["deploy", "api"],
        &["status", "api"],
        &["logs", "api"],
    ] {
        let said = run(words);
        assert_eq!(said.exit, 77, "{words:?}: {}", said.all());
    }
    let history = machines.all[0].exits(0, &["history", "web"]).out;
    for refused in ["POST /v1/apps/web/freeze", "POST /v1/apps/api/deploy", "GET /v1/apps/api"] {
        assert!(history.contains(refused), "{refused}: {history}");
    }
}

#[test]
fn what_is_wrong_with_the_way_is_said() {
    let machines = Machines::with(["", "", ""]);
    let said = machines.run(&["nowhere"], "", &["status"]);
    assert_eq!(said.exit, 15, "{}", said.all());
    assert!(said.err.contains("no such host") && said.err.contains("ci@nowhere"), "{}", said.all());
    assert_eq!(machines.run(&["one", "two"], "", &["switch", "web"]).exit, 2);
    assert_eq!(machines.run(&["one"], "", &["install"]).exit, 2);
}
