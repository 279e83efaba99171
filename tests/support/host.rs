//! Test hosts: a real systemd that boots in well under a second in a throw-away place and leaves nothing behind.
//!
//! The place is an overlay of `/` on tmpfs, so all that is installed here is installed there too, and nothing
//! that a test does there reaches this machine. Each host has its own processes, network, users and disk.

#![allow(dead_code, reason = "a scenario takes what it needs")]

#[path = "host/command.rs"]
mod command;
#[path = "host/machine.rs"]
mod machine;
#[path = "host/processes.rs"]
mod processes;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub use command::{Background, Output};
use machine::Machine;

/// How long a boot may take before it counts as failed; it takes half a second where nothing else runs.
const BOOT_DEADLINE: Duration = Duration::from_secs(60);

/// A booted host. Dropping it ends it; the journal is printed if the test is failing.
pub struct TestHost {
    machine: Machine,
}

impl TestHost {
    /// Boots a host. `None` where this machine can't, which is said aloud; in CI that is a failure.
    pub fn boot() -> Option<TestHost> {
        if let Some(reason) = machine::missing() {
            skip(&reason);
            return None;
        }
        let machine = Machine::boot(BOOT_DEADLINE).unwrap_or_else(|error| panic!("no test host: {error}"));
        Some(TestHost { machine })
    }

    /// Runs a shell command as root, as after a login, and says how it went.
    pub fn run(&self, command: &str) -> Output {
        self.run_with_input(command, b"")
    }

    /// As [`run`](Self::run), as another user.
    pub fn run_as(&self, user: &str, command: &str) -> Output {
        command::run_as(self.leader(), user, command, b"")
    }

    /// As [`run`](Self::run), with bytes on standard input.
    pub fn run_with_input(&self, command: &str, input: &[u8]) -> Output {
        command::run_as(self.leader(), "root", command, input)
    }

    /// Runs a shell command that must succeed, and returns its standard output without the last line end.
    #[track_caller]
    pub fn sh(&self, command: &str) -> String {
        self.run(command).success()
    }

    /// Starts a shell command that goes on while the test does; its standard input stays open until `wait`.
    pub fn spawn(&self, command: &str) -> Background {
        command::spawn(self.leader(), command)
    }

    /// Writes a file and the folders above it.
    #[track_caller]
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) {
        let command = format!("install -D -m {mode:o} /dev/stdin '{path}'");
        self.run_with_input(&command, content.as_ref()).success();
    }

    /// Reads a file.
    #[track_caller]
    pub fn read(&self, path: &str) -> Vec<u8> {
        let output = self.run(&format!("cat '{path}'"));
        output.success();
        output.stdout
    }

    /// Copies the `dorc` under test to where a user would put it.
    #[track_caller]
    pub fn install_dorc(&self) {
        self.install(Path::new(env!("CARGO_BIN_EXE_dorc")), "/usr/local/bin/dorc");
    }

    /// Copies one of `tests/programs` (`backend`, `load`) to a path in the host.
    #[track_caller]
    pub fn install_program(&self, name: &str, path: &str) {
        self.install(&program(name), path);
    }

    /// Puts a release of the test backend into a folder as an upload does: the program, its version, its behaviour.
    #[track_caller]
    pub fn upload_backend(&self, folder: &str, version: &str, behaviour: &str) {
        self.write(&format!("{folder}/version"), version, 0o644);
        self.write(&format!("{folder}/behaviour"), behaviour, 0o644);
        self.install_program("backend", &format!("{folder}/backend"));
    }

    /// Copies a program of this machine to a path in the host, which does not see all of this machine.
    #[track_caller]
    pub fn install(&self, from: &Path, to: &str) {
        let content = fs::read(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        // By another name first: a program that runs can't be written to.
        self.write(&format!("{to}.new"), content, 0o755);
        self.sh(&format!("mv '{to}.new' '{to}'"));
    }

    /// Reboots, and returns when the host is up again. What was started with `spawn` is gone then.
    #[track_caller]
    pub fn reboot(&mut self) {
        let _killed_with_the_host = self.run("systemctl reboot");
        if let Err(error) = self.machine.wait_for_next_boot(BOOT_DEADLINE) {
            panic!("the test host did not come back: {error}");
        }
    }

    /// The main process of a unit as it is known inside; `None` if it does not run.
    pub fn main_pid(&self, unit: &str) -> Option<u32> {
        let pid = self.sh(&format!("systemctl show --property MainPID --value '{unit}'")).parse().ok();
        pid.filter(|pid| *pid != 0)
    }

    /// The process of the daemon.
    #[track_caller]
    pub fn daemon_pid(&self) -> u32 {
        self.main_pid("dorc.service").expect("dorc.service runs")
    }

    /// What a unit wrote since the last boot.
    pub fn journal(&self, unit: &str) -> String {
        self.run(&format!("journalctl --boot --no-pager --output short-precise --unit '{unit}'"))
            .stdout_text()
    }

    /// Asks again until there is an answer, for what gives no event to wait for.
    #[track_caller]
    pub fn wait_until<T>(&self, deadline: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + deadline;
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            assert!(Instant::now() < end, "not within {deadline:?}: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Connects the networks of other hosts to this one's by a bridge: this is 10.0.0.1, they are 10.0.0.2 and so on.
    #[track_caller]
    pub fn bridge(&self, others: &[TestHost]) {
        self.ip("link add fleet type bridge");
        self.ip("address add 10.0.0.1/24 dev fleet");
        self.ip("link set fleet up");
        for (number, other) in (2..).zip(others) {
            self.ip(&format!("link add port{number} type veth peer name fleet netns {}", other.leader()));
            self.ip(&format!("link set port{number} master fleet up"));
            other.ip(&format!("address add 10.0.0.{number}/24 dev fleet"));
            other.ip("link set fleet up");
        }
    }

    /// Runs `ip` in the host's network, as this machine knows processes.
    #[track_caller]
    pub fn ip(&self, arguments: &str) {
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &self.leader().to_string(), "--net", "--", "ip"]);
        let status = enter.args(arguments.split(' ')).status().expect("nsenter runs");
        assert!(status.success(), "ip {arguments}");
    }

    /// The first process of the host as it is known outside.
    pub fn leader(&self) -> u32 {
        self.machine.leader()
    }

    /// The name of the host, which its control groups have too.
    pub fn name(&self) -> &str {
        self.machine.name()
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = self.run("journalctl --no-pager --output short-precise --lines 400");
            tell(&format!("--- the journal of the test host {} ---\n{journal}---", self.name()));
        }
    }
}

/// A program of `tests/programs`, which cargo builds as an example.
pub fn program(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_dorc")).parent().expect("a program is in a folder");
    let path = folder.join("examples").join(name);
    assert!(path.exists(), "{} is not built; build it with: cargo build --examples", path.display());
    path
}

/// Says that a test is skipped; in CI that is a failure.
pub fn skip(reason: &str) {
    let in_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!in_ci, "in CI no test may be skipped, and this one can't run: {reason}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Past the test harness, which swallows what a test that passes prints.
    let _best_effort = writeln!(io::stderr(), "skipped: {test}: {reason}");
}

/// Prints what belongs to the output of the test that fails.
#[expect(clippy::print_stderr, reason = "the test harness shows it with the failure")]
fn tell(text: &str) {
    eprintln!("{text}");
}
