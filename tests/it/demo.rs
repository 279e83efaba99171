//! `dorc demo` by an ordinary user: all of it happens, no request is lost, and nothing is left, however it ends.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// What a demo may take on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(120);

/// An ordinary user, where the tests run as root.
const NOBODY: u32 = 65534;

/// A folder of an ordinary user that a demo takes for the system's temporary one, and dorc in it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        // Not by this process: what it writes can't be run while a child of another test still has it open.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_dorc")).arg(dir.path().join("dorc")).status();
        assert!(copied.unwrap().success());
        if rustix::process::geteuid().is_root() {
            chown(dir.path().join("tmp"), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Self { dir }
    }

    fn demo(&self) -> Command {
        let mut command = Command::new(self.dir.path().join("dorc"));
        command.arg("demo").env_clear().env("TMPDIR", self.tmp()).current_dir("/").stdin(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn tmp(&self) -> PathBuf {
        self.dir.path().join("tmp")
    }

    /// What demos left in the folder.
    fn files(&self) -> Vec<PathBuf> {
        fs::read_dir(self.tmp()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// The processes whose program or working directory is in here: every demo's, its guards' and its services'.
    fn processes(&self) -> Vec<PathBuf> {
        let is_here = |link: PathBuf| fs::read_link(link).is_ok_and(|to| to.starts_with(self.dir.path()));
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        processes.filter(|process| is_here(process.join("exe")) || is_here(process.join("cwd"))).collect()
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        assert_eq!((self.processes(), self.files()), (Vec::new(), Vec::new()));
    }
}

/// A demo under way; its output has been read up to a line.
struct Running {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(place: &Place, until: &str) -> Self {
        let mut child = place.demo().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut all = String::new();
        while !all.lines().last().is_some_and(|line| line.contains(until)) {
            assert_ne!(output.read_line(&mut all).unwrap(), 0, "no {until:?} in {all}");
        }
        Self { child, output }
    }

    fn kill(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Its exit code and what else it printed.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn all_of_it_happens_and_no_request_fails() {
    let place = Place::new();
    let start = Instant::now();
    let output = place.demo().output().unwrap();
    let took = start.elapsed();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    place.assert_nothing_left();
    assert!(took < PATIENCE, "{took:?}");
    let in_order = [
        "$ dorc register hello ",
        "hello is live on 127.0.0.1:",
        "$ dorc switch hello",
        "✓ traffic moved                  green → blue",
        "✓ settled",
        "$ dorc switch hello",
        "$ dorc rollback hello",
        "✓ traffic moved                  blue → green",
        "$ dorc status",
        "version 1.0",
        "version 2.0",
        "no process and no file is left",
    ];
    let mut rest = said.as_str();
    for expected in in_order {
        rest = rest.split_once(expected).unwrap_or_else(|| panic!("no {expected:?} in its place: {said}")).1;
    }
    assert!(said.contains("did not get healthy: it ended: exit status 3"), "{said}");
    let last = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned();
    let sent: u64 =
        last.strip_suffix(" requests sent, 0 failed").and_then(|sent| sent.parse().ok()).expect(&last);
    assert!(sent > 100, "{last}");
}

#[test]
fn the_same_as_one_json_document() {
    let place = Place::new();
    let output = place.demo().arg("--json").output().unwrap();
    place.assert_nothing_left();
    let demo: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output));
    assert_eq!((&demo["ok"], &demo["problem"]), (&Value::Bool(true), &Value::Null), "{demo:#}");
    let requests = &demo["requests"];
    assert_eq!(requests["failed"], 0, "{demo:#}");
    let answers = |version: &str| requests["answers"][version].as_u64().unwrap();
    assert_eq!(requests["sent"], answers("1.0") + answers("2.0"));
    let steps: Vec<_> = demo["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| {
            let command = step["command"].as_str().unwrap().split(' ').nth(1).unwrap();
            let release = step["release"].as_str().unwrap().split('-').next().unwrap();
            (command, step["exit"].as_u64().unwrap(), step["active"].as_str().unwrap(), release)
        })
        .collect();
    assert_eq!(
        steps,
        [
            ("register", 0, "green", "r1"),
            ("switch", 0, "blue", "r2"),
            ("switch", 10, "blue", "r2"),
            ("rollback", 0, "green", "r1"),
            ("status", 0, "green", "r1"),
        ]
    );
}

#[test]
fn a_signal_in_the_middle_leaves_nothing() {
    std::thread::scope(|scope| {
        for (signal, moment) in [
            (Signal::INT, "draining green"),
            (Signal::TERM, "$ dorc register"),
            (Signal::HUP, "green → blue"),
        ] {
            scope.spawn(move || {
                let place = Place::new();
                let running = Running::start(&place, moment);
                running.kill(signal);
                let (code, said) = running.end();
                assert_eq!(code, Some(1), "{said}");
                assert!(
                    said.contains("it was stopped before its end") && said.contains(" 0 failed"),
                    "{said}"
                );
                place.assert_nothing_left();
            });
        }
    });
}

#[test]
fn after_a_kill_no_process_is_left_and_the_next_demo_removes_the_folder() {
    let place = Place::new();
    let running = Running::start(&place, "green → blue");
    running.kill(Signal::KILL);
    assert_eq!(running.end().0, None);
    let deadline = Instant::now() + PATIENCE;
    while !place.processes().is_empty() {
        assert!(Instant::now() < deadline, "{:?} outlived the demo", place.processes());
        std::thread::sleep(Duration::from_millis(20));
    }
    let left = place.files();
    assert_eq!(left.len(), 1, "{left:?}");

    let next = Running::start(&place, "cd ");
    assert!(!left[0].exists(), "{left:?} is there still");
    // That of a demo that runs is not taken for an abandoned one.
    let other = Running::start(&place, "cd ");
    assert_eq!(place.files().len(), 2);
    for running in [next, other] {
        running.kill(Signal::INT);
        assert_eq!(running.end().0, Some(1));
    }
    place.assert_nothing_left();
}
