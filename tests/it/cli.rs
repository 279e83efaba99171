//! The command line against a real `dorc up` in a temporary folder: exit codes and what is printed.

mod changes;
mod hosts;
mod looks;
mod measured;
mod upload;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::ports::free_address;

const DORC: &str = env!("CARGO_BIN_EXE_dorc");

/// Longer than anything here takes, so that a hang is a failure and not a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with the app `web` in it.
struct Folder {
    root: TempDir,
    address: SocketAddr,
    ports: [u16; 2],
    up: Option<Child>,
}

/// What a command printed, and how it ended.
struct Said {
    exit: i32,
    out: String,
    err: String,
}

impl Folder {
    /// Without a daemon.
    fn new() -> Self {
        let [address, blue, green] = [(); 3].map(|()| free_address());
        let ports = [blue.port(), green.port()];
        let folder = Self { root: tempfile::tempdir().unwrap(), address, ports, up: None };
        fs::create_dir(folder.path().join("upload")).unwrap();
        folder.write_app("");
        folder
    }

    /// With a daemon that has `web` loaded.
    fn up() -> Self {
        let mut folder = Self::new();
        folder.start();
        folder
    }

    /// With `1` live in green.
    fn live() -> Self {
        let folder = Self::up();
        folder.upload("1", "ok");
        folder.until("1 is live", |status| status["active"] == "green" && status["phase"] == "steady");
        folder
    }

    /// With `2` ready in blue as well.
    fn ready() -> Self {
        let folder = Self::live();
        folder.upload("2", "ok");
        folder.until("2 is ready", |status| status["blue"]["state"] == "ready");
        folder
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    /// The app file, with `service` added to that section.
    fn write_app(&self, service: &str) {
        let Self { address, ports: [blue, green], .. } = self;
        let text = format!(
            "listen = \"{address}\"\nrelease_dir = \"upload\"\nrelease_bin = \"web\"\n\
             [health]\npath = \"/healthz\"\ninterval = \"50ms\"\n[release]\nsettle = \"100ms\"\n\
             [service]\nports = {{ blue = {blue}, green = {green} }}\n{service}\n"
        );
        fs::write(self.path().join("web.toml"), text).unwrap();
    }

    fn start(&mut self) {
        let log = fs::File::create(self.path().join("log")).unwrap();
        let up = Command::new(DORC)
            .arg("up")
            .current_dir(self.path())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.up = Some(up);
        eventually("the daemon answers", || (self.run(&["status"]).exit == 0).then_some(()));
    }

    fn stop(&mut self) {
        if let Some(mut up) = self.up.take() {
            kill_process(Pid::from_child(&up), Signal::TERM).unwrap();
            assert!(up.wait().unwrap().success());
        }
    }

    /// A program in one piece: written beside the release directory and moved in.
    fn upload(&self, version: &str, behaviour: &str) {
        let program =
            format!("#!/bin/sh\n[ {behaviour} != slow ] || sleep 4\nexec {DORC} demo-backend \"$PORT\"\n");
        self.put("version", version, 0o644);
        self.put("behaviour", if behaviour == "slow" { "ok" } else { behaviour }, 0o644);
        self.put("web", &program.replace("[ exit 3", "[ exit"), 0o755);
    }

    fn put(&self, name: &str, text: &str, mode: u32) {
        let new = self.path().join("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, Permissions::from_mode(mode)).unwrap();
        fs::rename(new, self.path().join("upload").join(name)).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(DORC);
        command.args(words).current_dir(self.path()).env_remove("NO_COLOR").stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Said {
        let Output { status, stdout, stderr } = self.command(words).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { exit: status.code().unwrap(), out: text(stdout), err: text(stderr) }
    }

    /// Runs it and checks how it ended.
    fn exits(&self, exit: i32, words: &[&str]) -> Said {
        let said = self.run(words);
        assert_eq!(said.exit, exit, "{words:?}\n{}{}", said.out, said.err);
        said
    }

    fn status(&self) -> Value {
        self.exits(0, &["status", "web", "--json"]).json()["apps"][0].clone()
    }

    fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || Some(self.status()).filter(&is_so))
    }

    /// What the app answers.
    fn answer(&self) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.rsplit("\r\n").next().unwrap().trim().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.path().join("log")).unwrap_or_default());
        }
        if let Some(mut up) = self.up.take() {
            // Its services end with it.
            let _ = kill_process(Pid::from_child(&up), Signal::TERM);
            let _ = up.wait();
        }
    }
}

impl Said {
    /// The one document that was printed.
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}\n{}{}", self.out, self.err))
    }

    /// A document a line.
    fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}
