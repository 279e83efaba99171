//! Commands inside a test host.

use std::fmt;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;

use super::processes;

/// No command of a test takes longer than this; one that does is ended and fails with status 124.
const LIMIT: &str = "120";

/// How a command went.
#[derive(Debug)]
pub struct Output {
    /// The command itself.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Its standard output without the last line end; panics with both streams if it failed.
    #[track_caller]
    pub fn success(&self) -> String {
        assert!(self.status.success(), "{self}");
        self.stdout_text().trim_end_matches('\n').to_owned()
    }

    /// Panics with both streams unless it exited with this status.
    #[track_caller]
    pub fn exits_with(&self, status: i32) -> &Output {
        assert_eq!(self.status.code(), Some(status), "{self}");
        self
    }

    /// Standard output as text.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("not JSON: {error}\n{self}"))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}\n({})", self.command, self.status)?;
        writeln!(f, "{}", self.stdout_text().trim_end())?;
        if !self.stderr.is_empty() {
            writeln!(f, "--- standard error:\n{}", self.stderr_text().trim_end())?;
        }
        Ok(())
    }
}

/// A command that goes on while the test does; dropping it ends it.
#[derive(Debug)]
pub struct Background {
    command: String,
    child: Child,
    written: Arc<Written>,
    readers: Vec<JoinHandle<()>>,
    has_ended: bool,
}

impl Background {
    /// Closes its standard input and waits until it ends.
    pub fn wait(mut self) -> Output {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("a started command can be waited for");
        self.has_ended = true;
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader does not panic");
        }
        let [stdout, stderr] = std::mem::take(&mut *self.written.lock());
        Output { command: std::mem::take(&mut self.command), status, stdout, stderr }
    }

    /// Waits until it has written this to one of its streams.
    #[track_caller]
    pub fn wait_for(&self, text: &str, deadline: Duration) {
        let found = self.written.wait_for(text, deadline);
        assert!(found, "`{}` did not write `{text}` within {deadline:?}", self.command);
    }

    /// Writes to its standard input.
    pub fn write(&mut self, bytes: &[u8]) {
        let stdin = self.child.stdin.as_mut().expect("open until `wait`");
        stdin.write_all(bytes).expect("it reads its standard input");
    }

    /// Sends a signal to it and to all that it started.
    pub fn signal(&self, signal: Signal) {
        // As a group: one by one, a process could be missed that is being started meanwhile.
        let commands = processes::all().into_iter().filter(|process| process.parent == self.child.id());
        commands.for_each(|command| processes::signal_group(command.pid, signal));
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(self) -> Output {
        self.signal(Signal::KILL);
        self.wait()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if !self.has_ended {
            self.signal(Signal::KILL);
            let _gone_already = self.child.wait();
        }
    }
}

/// Runs a shell command in the host with this first process, feeds it `input`, and waits for it.
pub fn run_as(leader: u32, user: &str, command: &str, input: &[u8]) -> Output {
    let mut enter = enter(leader);
    enter.args(["timeout", "--kill-after=5", LIMIT]);
    if user != "root" {
        enter.args(["runuser", "--user", user, "--"]);
    }
    let mut background = start(enter, command);
    let mut stdin = background.child.stdin.take().expect("piped");
    // One that does not read all of its input is not wrong: its status tells.
    let _not_read = stdin.write_all(input);
    drop(stdin);
    background.wait()
}

/// Starts a shell command in the host with this first process.
pub fn spawn(leader: u32, command: &str) -> Background {
    let mut enter = enter(leader);
    enter.arg("setsid");
    start(enter, command)
}

/// All namespaces of the host, and an environment as after a login.
fn enter(leader: u32) -> Command {
    let mut enter = Command::new("nsenter");
    enter.args(["--target", &leader.to_string(), "--all", "--wdns=/root", "--"]);
    enter.env_clear();
    enter.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    enter.envs([
        ("HOME", "/root"),
        ("USER", "root"),
        ("LOGNAME", "root"),
        ("SHELL", "/bin/sh"),
        ("LANG", "C.UTF-8"),
    ]);
    enter
}

fn start(mut enter: Command, command: &str) -> Background {
    let spawned = enter
        .args(["sh", "-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("nsenter: {error}"));
    let written = Arc::new(Written::default());
    let readers = vec![
        written.collect(0, child.stdout.take().expect("piped")),
        written.collect(1, child.stderr.take().expect("piped")),
    ];
    Background { command: command.to_owned(), child, written, readers, has_ended: false }
}

/// What a command has written so far. A thread for each stream reads it, so that the command never waits for us.
#[derive(Debug, Default)]
struct Written {
    /// Standard output and standard error.
    streams: Mutex<[Vec<u8>; 2]>,
    grew: Condvar,
}

impl Written {
    fn collect(self: &Arc<Self>, which: usize, mut stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let written = Arc::clone(self);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                written.lock()[which].extend_from_slice(&buffer[..length]);
                written.grew.notify_all();
            }
        })
    }

    fn wait_for(&self, text: &str, deadline: Duration) -> bool {
        let has = |bytes: &Vec<u8>| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        let waited = self.grew.wait_timeout_while(self.lock(), deadline, |streams| !streams.iter().any(has));
        !waited.expect("no holder panics").1.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, [Vec<u8>; 2]> {
        self.streams.lock().expect("no holder panics")
    }
}
