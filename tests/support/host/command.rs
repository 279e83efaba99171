//! Commands inside a test host.

use std::fmt;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
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
    stdout: Stream,
    stderr: Stream,
    has_ended: bool,
}

impl Background {
    /// Closes its standard input and waits until it ends.
    pub fn wait(mut self) -> Output {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("a started command can be waited for");
        self.has_ended = true;
        let command = std::mem::take(&mut self.command);
        Output { command, status, stdout: self.stdout.take(), stderr: self.stderr.take() }
    }

    /// Waits until it has written this to one of its streams.
    #[track_caller]
    pub fn wait_for(&self, text: &str, deadline: Duration) {
        let found = match self.stdout.wait_for(text, Duration::ZERO) {
            true => true,
            false => self.stderr.wait_for(text, deadline) || self.stdout.wait_for(text, Duration::ZERO),
        };
        assert!(found, "`{}` did not write `{text}` within {deadline:?}", self.command);
    }

    /// Writes to its standard input.
    pub fn write(&mut self, bytes: &[u8]) {
        let stdin = self.child.stdin.as_mut().expect("open until `wait`");
        stdin.write_all(bytes).expect("it reads its standard input");
    }

    /// Sends a signal to it and to all that it started.
    pub fn signal(&self, signal: Signal) {
        for process in processes::descendants(self.child.id()) {
            processes::signal(process.pid, signal);
        }
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
    start(enter(leader), command)
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
    let stdout = Stream::collect(child.stdout.take().expect("piped"));
    let stderr = Stream::collect(child.stderr.take().expect("piped"));
    Background { command: command.to_owned(), child, stdout, stderr, has_ended: false }
}

/// What a command has written so far; a thread reads it, so that the command never waits for its reader.
#[derive(Debug)]
struct Stream {
    written: Arc<(Mutex<Vec<u8>>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    fn collect(mut stream: impl Read + Send + 'static) -> Stream {
        let written = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let shared = Arc::clone(&written);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                shared.0.lock().expect("no holder panics").extend_from_slice(&buffer[..length]);
                shared.1.notify_all();
            }
        });
        Stream { written, reader: Some(reader) }
    }

    fn wait_for(&self, text: &str, deadline: Duration) -> bool {
        let written = self.written.0.lock().expect("no holder panics");
        let is_missing =
            |bytes: &mut Vec<u8>| !bytes.windows(text.len()).any(|window| window == text.as_bytes());
        let waited = self.written.1.wait_timeout_while(written, deadline, is_missing);
        !waited.expect("no holder panics").1.timed_out()
    }

    /// All of it, once the command has ended.
    fn take(&mut self) -> Vec<u8> {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
        std::mem::take(&mut self.written.0.lock().expect("no holder panics"))
    }
}
