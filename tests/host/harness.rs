//! The test host itself: it must be a real host, and leave nothing behind however a test ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::host::TestHost;

#[test]
fn boots_a_real_systemd() {
    let Some(host) = TestHost::boot() else { return };

    let state = host.run("systemctl is-system-running").stdout_text();

    assert!(matches!(state.trim(), "running" | "degraded"), "{state}");
    assert_eq!(host.sh("hostname"), host.name());
    assert_eq!(host.sh("cat /proc/1/comm"), "systemd");
    assert_eq!(host.sh("ip -brief -4 address | awk '{ print $1, $3 }'"), "lo 127.0.0.1/8");
}

#[test]
fn runs_commands_as_after_a_login() {
    let Some(host) = TestHost::boot() else { return };
    host.sh("useradd --create-home ci");

    assert_eq!(host.run_as("ci", "id -un").success(), "ci");
    assert_eq!(host.sh("echo $HOME; pwd"), "/root\n/root");
    assert_eq!(host.run("echo told >&2; exit 3").exits_with(3).stderr_text(), "told\n");
    host.write("/srv/a folder/file", b"\0bytes", 0o600);
    assert_eq!(host.read("/srv/a folder/file"), b"\0bytes");
    assert_eq!(host.sh("stat --format %a '/srv/a folder/file'"), "600");
    assert_eq!(host.run_with_input("wc --bytes", &[7; 1 << 20]).success(), "1048576");
}

#[test]
fn a_command_in_the_background_takes_input_and_signals() {
    let Some(host) = TestHost::boot() else { return };

    let mut echo = host.spawn("cat");
    echo.write(b"more\n");
    echo.wait_for("more", Duration::from_secs(10));
    assert_eq!(echo.wait().success(), "more");

    let killed = host.spawn("echo started; sleep 60; true");
    killed.wait_for("started", Duration::from_secs(10));
    assert!(!killed.kill().status.success());
    host.run("pgrep sleep").exits_with(1);
}

#[test]
fn serves_the_test_backend_without_a_lost_request() {
    let Some(host) = TestHost::boot() else { return };
    host.upload_backend("/srv/web", "one", "ok");
    host.install_program("load", "/usr/local/bin/load");
    host.sh("systemd-run --unit green-web --setenv PORT=8081 /srv/web/backend");
    host.wait_until(Duration::from_secs(10), "the backend listens", || {
        host.journal("green-web.service").contains("listens on").then_some(())
    });

    let load =
        host.spawn("load --address 127.0.0.1:8081 --every 5ms --expect one --until-stdin-closes --json");
    load.wait_for("warm", Duration::from_secs(10));
    let result = load.wait();

    result.success();
    let counted = result.json();
    assert_eq!((counted["failed"].as_u64(), counted["retried"].as_u64()), (Some(0), Some(0)), "{result}");
    assert_eq!(counted["bodies"]["one"], counted["sent"], "{result}");
    assert!(host.main_pid("green-web").is_some());
}

#[test]
fn a_lost_request_is_seen() {
    let Some(host) = TestHost::boot() else { return };
    host.upload_backend("/srv/web", "one", "crash-after 1s");
    host.install_program("load", "/usr/local/bin/load");
    host.sh("systemd-run --unit green-web --setenv PORT=8081 /srv/web/backend");
    host.wait_until(Duration::from_secs(10), "the backend listens", || {
        host.journal("green-web.service").contains("listens on").then_some(())
    });

    let result = host.run("load --address 127.0.0.1:8081 --every 5ms --seconds 2 --json");

    result.exits_with(1);
    assert_ne!(result.json()["refused"], 0, "{result}");
    assert_eq!(host.sh("systemctl show --property ExecMainStatus --value green-web"), "101");
}

#[test]
fn a_reboot_keeps_the_disk_and_starts_what_is_enabled() {
    let Some(mut host) = TestHost::boot() else { return };
    let unit = "[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
    host.write("/etc/systemd/system/enabled.service", unit, 0o644);
    host.sh("systemctl daemon-reload && systemctl enable enabled.service && touch /run/gone");
    assert_eq!(host.main_pid("enabled.service"), None);

    host.reboot();

    assert!(host.main_pid("enabled.service").is_some());
    host.run("test -e /run/gone").exits_with(1);
    assert_eq!(host.sh("journalctl --list-boots --quiet | wc --lines"), "2");
}

#[test]
fn a_dropped_host_leaves_nothing() {
    let Some(host) = TestHost::boot() else { return };
    let (name, leader) = (host.name().to_owned(), host.leader());
    assert!(!traces(&name).is_empty(), "a host that runs is seen");
    let _background = host.spawn("sleep infinity");

    drop(host);

    assert_eq!(traces(&name), Vec::<String>::new());
    assert!(!Path::new(&format!("/proc/{leader}")).exists());
}

#[test]
fn a_killed_test_leaves_nothing() {
    if TestHost::boot().is_none() {
        return;
    }
    let mut test = Command::new(std::env::current_exe().expect("a test knows its own program"))
        .args(["--exact", "harness::a_test_to_be_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a test can start itself");
    let lines = BufReader::new(test.stdout.take().expect("piped")).lines();
    let name = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("booted ").map(str::to_owned));
    let name = name.expect("it boots");
    assert!(!traces(&name).is_empty(), "a host that runs is seen");

    test.kill().expect("it waits to be killed");
    test.wait().expect("it is killed");

    let end = Instant::now() + Duration::from_secs(10);
    while !traces(&name).is_empty() {
        assert!(Instant::now() < end, "still there after ten seconds: {:?}", traces(&name));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "started, and killed, by `a_killed_test_leaves_nothing`"]
#[expect(clippy::print_stdout, reason = "tells the test that started it")]
fn a_test_to_be_killed() {
    let host = TestHost::boot().expect("whoever starts this test can boot a host");
    println!("booted {}", host.name());
    std::thread::sleep(Duration::from_secs(60));
}

/// What can be seen of a host from outside: processes, mounts in any namespace, control groups.
fn traces(name: &str) -> Vec<String> {
    let mut traces = Vec::new();
    for process in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let path = process.path();
        let groups = fs::read_to_string(path.join("cgroup")).unwrap_or_default();
        let command = fs::read(path.join("cmdline")).unwrap_or_default();
        if groups.contains(name) || String::from_utf8_lossy(&command).contains(name) {
            traces.push(format!("{}: {}", path.display(), String::from_utf8_lossy(&command)));
        }
    }
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc is mounted");
    traces.extend(mounts.lines().filter(|line| line.starts_with("dorc-test-host")).map(str::to_owned));
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(name) {
                traces.push(entry.path().display().to_string());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    traces
}
