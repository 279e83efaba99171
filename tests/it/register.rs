//! `dorc register` on a terminal, in the folder of a `dorc up`: as its user sees it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tempfile::TempDir;

use crate::ports::free_address;

const DORC: &str = env!("CARGO_BIN_EXE_dorc");
const PATIENCE: Duration = Duration::from_secs(60);
const ENTER: &str = "\r";

/// A folder called `shop` in which `dorc up` runs.
struct Up {
    dir: TempDir,
    daemon: Child,
}

impl Up {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("shop");
        fs::create_dir(&folder).unwrap();
        let mut daemon = Command::new(DORC)
            .arg("up")
            .current_dir(&folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert!(said.starts_with("dorc runs in "), "{said}");
        Self { dir, daemon }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("shop")
    }

    /// A program that is started as `dorc register` offers it.
    fn upload(&self, name: &str) {
        let dir = self.folder().join("upload/shop");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("version"), "1.0\n").unwrap();
        fs::write(dir.join(name), format!("#!/bin/sh\nexec {DORC} demo-backend \"$2\"\n")).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.daemon.id().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        self.daemon.wait().unwrap();
    }
}

/// A command on a terminal of its own.
struct Terminal {
    keys: File,
    screen: Receiver<String>,
    seen: String,
    child: Child,
}

impl Terminal {
    fn start(arguments: &[&str], folder: &Path) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let size = Winsize { ws_row: 50, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&keys, size).unwrap();
        let far = PathBuf::from(ptsname(&keys, Vec::new()).unwrap().into_string().unwrap());
        let far = File::options().read(true).write(true).open(far).unwrap();
        let child = Command::new(DORC)
            .args(arguments)
            .current_dir(folder)
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .stdin(far.try_clone().unwrap())
            .stdout(far.try_clone().unwrap())
            .stderr(far)
            .spawn()
            .unwrap();
        let keys = File::from(keys);
        let mut reader = keys.try_clone().unwrap();
        let (to, screen) = sync_channel(64);
        // It ends with the last process that has the terminal open.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if to.send(String::from_utf8_lossy(&bytes[..count]).into_owned()).is_err() {
                    break;
                }
            }
        });
        Self { keys, screen, seen: String::new(), child }
    }

    /// Waits for a text, and answers it.
    #[track_caller]
    fn answer(&mut self, text: &str, keys: &str) {
        self.wait_for(text);
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.seen.contains(text) {
            match self.screen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(more) => self.seen.push_str(&more),
                Err(why) => panic!("no {text:?} ({why}) in {}", self.seen),
            }
        }
        self.seen.drain(..self.seen.find(text).unwrap() + text.len());
    }

    /// Its exit code, and what there is still on the screen.
    fn end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.screen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(more) => self.seen.push_str(&more),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end: {}", self.seen),
            }
        }
        (self.child.wait().unwrap().code(), self.seen)
    }
}

#[test]
fn it_asks_its_way_through_to_a_release_that_runs() {
    let up = Up::start();
    up.upload("program.sh");
    let port = free_address().port();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    let erase = "\u{7f}".repeat(10);
    let mut terminal = Terminal::start(&["register"], &up.folder());
    // The folder's name is offered; a wrong one is refused at once.
    terminal.answer("Name of the app (shop)", &format!("Shop!{ENTER}"));
    terminal.answer("starts with a lower-case letter", &format!("{erase}{ENTER}"));
    terminal.answer("Release directory (upload/shop)", ENTER);
    // The only program there is the one that is meant.
    terminal.answer("Release binary (program.sh)", ENTER);
    terminal.answer("Listen address (", &format!("here{ENTER}"));
    terminal.answer("neither a port nor an address", &format!("{erase}{taken_port}{ENTER}"));
    terminal.answer("another program listens on 127.0.0.1", &format!("{erase}{port}{ENTER}"));
    terminal.answer("Start command ({bin} --port {port})", &format!("program.sh{ENTER}"));
    terminal.answer("is not a whole path", &format!("{erase}{ENTER}"));
    terminal.answer("Health path", &format!("healthz{ENTER}"));
    terminal.answer("does not start with /", &format!("{erase}/healthz{ENTER}"));
    terminal.wait_for("\u{1b}[32mgreen-shop ");
    terminal.wait_for("\u{1b}[34mblue-shop ");
    terminal.answer("Register shop? (Y/n)", ENTER);
    terminal.wait_for("shop.toml written");
    terminal.wait_for(&format!("shop is live on 127.0.0.1:{port}"));
    let (code, rest) = terminal.end();
    assert_eq!(code, Some(0), "{rest}");
    assert!(rest.contains("dorc switch shop") && rest.contains("dorc rollback shop"), "{rest}");
    let text = fs::read_to_string(up.folder().join("shop.toml")).unwrap();
    assert!(text.contains("release_dir = \"upload/shop\"") && text.contains("path = \"/healthz\""), "{text}");

    // The next app is told what this one has.
    let mut terminal = Terminal::start(&["register", "other"], &up.folder());
    terminal.answer("Release directory (upload/other)", ENTER);
    terminal.answer("Release binary (other)", ENTER);
    terminal.answer("Listen address (", &format!("{port}{ENTER}"));
    terminal.answer("is taken by the app shop", "\u{3}");
    assert_eq!(terminal.end().0, Some(1));
}

#[test]
fn who_stops_in_the_middle_has_changed_nothing() {
    let up = Up::start();
    let (ctrl_c, escape) = ("\u{3}", "\u{1b}");
    for (questions, key) in [(0, ctrl_c), (1, escape), (3, ctrl_c), (5, escape), (6, ctrl_c), (6, "n\r")] {
        let mut terminal = Terminal::start(&["register"], &up.folder());
        let all = [
            "Name of the app (",
            "Release directory (",
            "Release binary (",
            "Listen address (",
            "Start command (",
            "Health path",
            "Register shop? (Y/n)",
        ];
        for question in &all[..questions] {
            terminal.answer(question, ENTER);
        }
        terminal.answer(all[questions], key);
        let (code, rest) = terminal.end();
        assert_eq!(code, Some(1), "{rest}");
        assert!(rest.contains("stopped, nothing was changed"), "{rest}");
        let left: Vec<_> =
            fs::read_dir(up.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [".dorc"]);
    }
}
