//! `dorc upload`, and `dorc deploy` of what has to be uploaded first.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{DORC, Folder, Said, eventually};

impl Folder {
    /// A folder with the program of that version, beside the release directory; `large`: with much besides.
    pub(super) fn build(&self, version: &str, behaviour: &str, large: bool) -> PathBuf {
        let dir = self.path().join(format!("build-{version}"));
        fs::create_dir_all(dir.join("assets")).unwrap();
        fs::write(dir.join("version"), version).unwrap();
        fs::write(dir.join("behaviour"), behaviour).unwrap();
        fs::write(dir.join("web"), format!("#!/bin/sh\nexec {DORC} demo-backend \"$PORT\"\n")).unwrap();
        fs::set_permissions(dir.join("web"), Permissions::from_mode(0o755)).unwrap();
        if large {
            // More than the socket and the queues on the way hold.
            File::create(dir.join("assets/large")).unwrap().set_len(64 << 20).unwrap();
        }
        dir
    }

    fn bake(&self, time: &str) {
        let file = self.path().join("web.toml");
        let text = fs::read_to_string(&file).unwrap() + &format!("[switch]\nbake = \"{time}\"\n");
        fs::write(file, text).unwrap();
        self.exits(0, &["update", "web"]);
    }

    fn tar(&self, version: &str, option: &str, ending: &str) -> PathBuf {
        let (dir, to) = (self.build(version, "ok", false), self.path().join(format!("{version}{ending}")));
        let mut tar = Command::new("tar");
        tar.arg(format!("-c{option}f")).arg(&to).arg("-C").arg(dir).arg(".");
        assert!(tar.status().unwrap().success());
        to
    }

    fn uploads(&self, exit: i32, path: &std::path::Path) -> Said {
        self.exits(exit, &["upload", "web", path.to_str().unwrap()])
    }

    /// What the release store holds that is no release.
    fn debris(&self) -> Vec<String> {
        let names = fs::read_dir(self.path().join(".dorc/apps/web/releases")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with('.')).collect()
    }

    /// Begins an upload by hand and sends some of it.
    fn begin(&self, digest: &str, some: &[u8]) -> UnixStream {
        let mut stream = UnixStream::connect(self.path().join(".dorc/dorc.sock")).unwrap();
        let head = format!(
            "POST /v1/apps/web/uploads/{digest} HTTP/1.1\r\nhost: dorc\r\ncontent-length: 100000000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(some).unwrap();
        stream
    }

    fn received(&self, digest: &str) -> u64 {
        let mut stream = UnixStream::connect(self.path().join(".dorc/dorc.sock")).unwrap();
        let request =
            format!("GET /v1/apps/web/uploads/{digest} HTTP/1.1\r\nhost: dorc\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let body: serde_json::Value = serde_json::from_str(answer.lines().last().unwrap()).unwrap();
        body["received"].as_u64().unwrap()
    }
}

#[test]
fn a_folder_comes_up_in_the_inactive_colour_under_its_label() {
    let folder = Folder::live();
    let build = folder.build("2", "ok", false);
    let build = build.to_str().unwrap();
    let said = folder.exits(0, &["upload", "web", build, "--label", "v2 (ünï)"]);
    for expected in ["r2-", "is uploaded", "3 files", "comes up in blue", "dorc switch web"] {
        assert!(said.out.contains(expected), "{expected}: {}", said.out);
    }
    let status = folder.until("it is ready", |status| status["blue"]["state"] == "ready");
    assert_eq!(status["blue"]["label"], "v2 (ünï)");
    let answer = folder.exits(0, &["switch", "web", "--json"]).lines().pop().unwrap();
    assert_eq!((&answer["active"], &answer["label"]), (&"blue".into(), &"v2 (ünï)".into()));
    assert_eq!(folder.answer(), "2");
    for verb in ["releases", "history"] {
        assert!(folder.exits(0, &[verb, "web"]).out.contains("v2 (ünï)"), "{verb}");
        assert!(folder.exits(0, &[verb, "web", "--json"]).out.contains("\"v2 (ünï)\""), "{verb}");
    }
    assert!(folder.exits(0, &["status", "web"]).out.contains("v2 (ünï)"));

    let again = folder.exits(0, &["upload", "web", build, "--json", "--no-wait"]).json();
    assert!(again["message"].as_str().unwrap().contains("is active already"), "{again}");
    assert_eq!((&again["exit"], &again["label"]), (&0.into(), &"v2 (ünï)".into()));
    let long = "x".repeat(101);
    for label in ["", "two\nlines", &long] {
        assert!(
            folder.exits(2, &["upload", "web", build, "--label", label]).err.contains("one line of 1 to")
        );
    }
}

#[test]
fn an_archive_is_what_it_has_and_a_file_is_the_release_binary() {
    let folder = Folder::live();
    folder.bake("0s");
    for (number, (option, ending)) in [("", ".tar"), ("z", ".tar.gz"), ("z", ".tgz")].into_iter().enumerate()
    {
        let version = format!("archive {number}");
        folder.uploads(0, &folder.tar(&version, option, ending));
        folder.exits(0, &["switch", "web"]);
        assert_eq!(folder.answer(), version);
    }
    let program = folder.path().join("built");
    let text = format!("#!/bin/sh\nprintf file >version; exec {DORC} demo-backend \"$PORT\"\n");
    fs::write(&program, text).unwrap();
    let said = folder.uploads(1, &program);
    assert!(said.err.contains("web is not executable; try: chmod +x web"), "{}", said.err);
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    assert!(folder.uploads(0, &program).out.contains("1 file"));
    assert!(folder.uploads(1, &folder.path().join("nothing")).err.contains("can't be uploaded"));
    folder.exits(1, &["upload", "other", program.to_str().unwrap()]);
}

#[test]
fn deploy_uploads_first_and_has_one_exit_code() {
    let folder = Folder::live();
    folder.bake("300ms");
    let build = folder.build("2", "ok", false);
    let words = ["deploy", "web", build.to_str().unwrap(), "--label", "two", "--json"];
    let lines = folder.exits(0, &words).lines();
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap_or_default()).collect();
    let place =
        |event| events.iter().position(|one| *one == event).unwrap_or_else(|| panic!("{event}: {lines:#?}"));
    assert!(place("uploading") < place("uploaded") && place("uploaded") < place("moved"), "{events:?}");
    assert!(place("moved") < place("baked"), "{events:?}");
    assert_eq!(lines.last().unwrap()["label"], "two");
    assert_eq!(folder.answer(), "2");
    // Again it is so already.
    folder.exits(0, &words);

    let bad = folder.build("3", "exit 3", false);
    let said = folder.exits(10, &["deploy", "web", bad.to_str().unwrap()]);
    assert!(said.all().contains("did not get healthy"), "{}", said.all());
    let again = folder.uploads(0, &bad);
    assert!(again.out.contains("failed before"), "{}", again.out);
    folder.exits(10, &["deploy", "web", bad.to_str().unwrap()]);
    folder.exits(0, &["freeze", "web", "--reason", "the fair is on"]);
    let said = folder.exits(14, &["deploy", "web", folder.build("4", "ok", false).to_str().unwrap()]);
    assert!(said.err.contains("the fair is on"), "{}", said.err);
    assert_eq!(folder.exits(0, &["releases", "web", "--json"]).json().as_array().unwrap().len(), 3);
    folder.exits(2, &["deploy", "web", ".", "--release", "r1"]);
}

#[test]
fn what_is_deployed_from_the_release_directory_gets_a_label_too() {
    let folder = Folder::ready();
    folder.exits(0, &["deploy", "web", "--label", "two", "--timeout", "1m", "--no-wait"]);
    let status = folder.until("it has a label", |status| status["active"] == "blue");
    assert_eq!(status["blue"]["label"], "two");
}

#[test]
fn one_that_was_killed_goes_on_where_it_stopped() {
    let folder = Folder::live();
    let build = folder.build("2", "ok", true);
    let archive = folder.path().join("2.tar");
    let mut tar = Command::new("tar");
    assert!(tar.arg("-cf").arg(&archive).arg("-C").arg(&build).arg(".").status().unwrap().success());
    let content = fs::read(&archive).unwrap();
    let digest = blake3::hash(&content).to_hex().to_string();
    let sent = folder.begin(&digest, &content[..30_000_000]);
    folder.until("it is told of", |status| status["upload"] == "30.00 MB have arrived");
    let busy = folder.uploads(14, &folder.build("3", "ok", false));
    assert!(busy.err.contains("another upload is being received"), "{}", busy.err);
    drop(sent);
    eventually("all of it is there", || (folder.received(&digest) == 30_000_000).then_some(()));
    let mut other = folder.command(&["upload", "web", archive.to_str().unwrap(), "--json"]);
    let said = String::from_utf8(other.output().unwrap().stdout).unwrap();
    assert!(said.contains("\"exit\":0") && said.contains("\"sent\":30000000,"), "{said}");
    folder.exits(0, &["switch", "web"]);
    assert_eq!(folder.answer(), "2");
    assert_eq!(folder.debris(), Vec::<String>::new());
}

#[test]
fn a_daemon_that_was_killed_leaves_no_debris_and_takes_it_again() {
    let mut folder = Folder::live();
    let build = folder.build("2", "ok", true);
    File::options().write(true).open(build.join("assets/large")).unwrap().set_len(256 << 20).unwrap();
    let mut command = folder.command(&["upload", "web", build.to_str().unwrap()]);
    let client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("some of it is there", || (!folder.debris().is_empty()).then_some(()));
    let mut up = folder.up.take().unwrap();
    kill_process(Pid::from_child(&up), Signal::KILL).unwrap();
    up.wait().unwrap();
    let said = client.wait_with_output().unwrap();
    let reason = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(1), "{reason}");
    assert!(reason.contains("the daemon did not answer to the end"), "{reason}");
    assert!(!folder.debris().is_empty());
    folder.uploads(15, &build);
    folder.start();
    assert_eq!(folder.debris(), Vec::<String>::new());
    folder.uploads(0, &build);
    folder.exits(0, &["switch", "web"]);
    assert_eq!(folder.answer(), "2");
}

#[test]
fn what_is_refused_in_the_middle_is_told_and_the_client_does_not_hang() {
    let folder = Folder::live();
    // The first entry is wrong, and much comes after it.
    let dir = folder.build("2", "ok", true);
    std::os::unix::fs::symlink("/etc/passwd", dir.join("assets/a-link")).unwrap();
    let said = folder.uploads(1, &dir);
    assert!(said.err.contains("nothing was uploaded") && said.err.contains("is absolute"), "{}", said.err);
    assert_eq!((folder.debris(), folder.answer()), (Vec::new(), "1".to_owned()));
    fs::remove_file(dir.join("assets/a-link")).unwrap();
    folder.uploads(0, &dir);
}

#[test]
fn on_a_terminal_a_bar_moves() {
    let folder = Folder::live();
    let build = folder.build("2", "ok", true);
    // `script` is a terminal.
    let command = format!("{DORC} upload web {}", build.display());
    let mut script = Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).current_dir(folder.path()).env("TERM", "xterm");
    let Ok(mut child) = script.stdin(Stdio::null()).stdout(Stdio::piped()).spawn() else {
        eprintln!("skipped: there is no script(1) here");
        return;
    };
    let lines = BufReader::new(child.stdout.take().unwrap()).split(b'\n');
    let all: Vec<u8> = lines.map_while(Result::ok).flatten().collect();
    assert!(child.wait().unwrap().success());
    let all = String::from_utf8_lossy(&all);
    assert!(all.contains("uploading ") && all.contains("is uploaded"), "{all}");
}
