//! The daemon when there is nothing to do, and when it does nothing any more.

use std::time::Duration;

use crate::host::TestHost;
use crate::user;

/// What the daemon may have in memory with twenty apps, in KiB. A debug build is larger.
const MEMORY: u64 = if cfg!(debug_assertions) { 40 << 10 } else { 12 << 10 };

/// How often threads of the daemon went to sleep by themselves: each wake-up ends so.
fn wake_ups(host: &TestHost) -> u64 {
    let pid = host.daemon_pid();
    let counts =
        host.sh(&format!("grep --no-filename ^voluntary /proc/{pid}/task/*/status | cut --fields 2"));
    counts.lines().map(|line| line.parse::<u64>().expect("a number")).sum()
}

/// Installs dorc with so many apps, and waits until all of them serve.
fn install_with_apps(host: &TestHost, count: usize) {
    let program = "#!/bin/sh\nexec /usr/local/bin/dorc demo-backend $PORT\n";
    for number in 0..count {
        host.write(&format!("/srv/app-{number}/version"), "one", 0o644);
        host.write(&format!("/srv/app-{number}/run"), program, 0o755);
        host.write(
            &format!("/etc/dorc/apps/app-{number}.toml"),
            format!(
                "listen = {}\nrelease_dir = \"/srv/app-{number}\"\nrelease_bin = \"run\"\n",
                9000 + number
            ),
            0o644,
        );
    }
    host.sh("dorc install");
    host.wait_until(user::LONG, "all are live", || (steady(host) == count).then_some(()));
}

/// How many apps have come up.
fn steady(host: &TestHost) -> usize {
    let status = host.run("dorc status --json").json();
    let apps = status["apps"].as_array().expect("a list");
    apps.iter().filter(|app| app["phase"] == "steady").count()
}

#[test]
fn twenty_apps_at_rest_cost_no_wake_up_and_little_memory() {
    let Some(host) = user::fresh() else { return };
    // So that what is counted is not the watchdog's.
    host.write("/etc/systemd/system/dorc.service.d/test.conf", "[Service]\nWatchdogSec=0\n", 0o644);
    install_with_apps(&host, 20);
    host.sh("for port in $(seq 9000 9019); do curl --silent --fail localhost:$port >/dev/null || exit; done");

    // What came of all that is over soon.
    let quiet = host.wait_until(user::LONG, "no wake-up in ten seconds", || {
        let before = wake_ups(&host);
        std::thread::sleep(Duration::from_secs(10));
        (wake_ups(&host) == before).then_some(before)
    });
    assert!(quiet > 0, "they are counted");

    let pid = host.daemon_pid();
    let memory = host.sh(&format!("awk '/^VmRSS/ {{ print $2 }}' /proc/{pid}/status"));
    assert!(memory.parse::<u64>().expect("a number") <= MEMORY, "{memory} KiB");
}

/// More than the kernel gives inotify instances to a user, and than the bus lets a connection ask questions or listen.
const MANY: usize = 200;

#[test]
fn two_hundred_apps_are_served_as_one_is() {
    let Some(host) = user::fresh() else { return };
    install_with_apps(&host, MANY);
    host.sh("systemctl restart dorc");
    assert_eq!(steady(&host), MANY);
    let complaints = host.sh("journalctl --quiet --unit dorc --priority warning");
    assert_eq!(complaints, "");
    assert!(host.sh("systemctl show dorc --property StatusText --value").ends_with(", and 190 more"));

    let last = MANY - 1;
    host.sh(&format!("kill -KILL {}", host.main_pid(&format!("green-app-{last}")).expect("it runs")));
    host.wait_until(user::LONG, "its end was noticed", || {
        let status = host.run(&format!("dorc status app-{last} --json")).json();
        status["apps"][0]["last_exit"].is_string().then_some(())
    });
    host.write(&format!("/srv/app-{last}/version"), "two", 0o644);
    host.sh(&format!("dorc switch app-{last}"));
    assert_eq!(host.sh(&format!("curl --silent localhost:{}", 9000 + last)), "two");
}

#[test]
fn systemd_knows_what_is_true() {
    let Some(host) = user::fresh() else { return };
    let said = || host.sh("systemctl show dorc --property StatusText --value");
    let says = |text: &str| {
        host.wait_until(user::LONG, text, || said().contains(text).then_some(()));
    };
    host.sh("dorc install");
    assert_eq!(host.sh("systemctl show dorc --property Type --value"), "notify");
    says("no apps yet");
    host.upload_backend(user::UPLOADS, "one", "ok");
    host.sh(user::REGISTER);
    says("web → green r1-");
    user::upload(&host, "two");
    host.sh("dorc switch web");
    says("web → blue r2-");
    host.write("/etc/dorc/apps/bad.toml", "listne = 1\n", 0o644);
    host.sh("systemctl restart dorc");
    says("could not be taken");
    host.sh("rm /etc/dorc/apps/bad.toml && dorc remove web && systemctl restart dorc");
    says("no apps yet");
}

#[test]
fn a_daemon_that_hangs_is_replaced() {
    let Some(host) = user::serving() else { return };
    let text = "[Service]\nWatchdogSec=2s\n";
    host.write("/etc/systemd/system/dorc.service.d/test.conf", text, 0o644);
    host.sh("systemctl daemon-reload && systemctl restart dorc");
    let (daemon, service) = (host.daemon_pid(), host.main_pid("green-web"));
    // It is fed while the daemon is well.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(host.daemon_pid(), daemon);

    host.sh(&format!("kill -STOP {daemon}"));

    host.wait_until(user::LONG, "another one runs", || {
        host.main_pid("dorc.service").filter(|pid| *pid != daemon)
    });
    assert_eq!(host.sh("curl --silent localhost"), "one");
    assert_eq!(host.main_pid("green-web"), service);
}
