//! Uploads and clients that mean harm: nothing outside is touched, nothing is disturbed, and the reason is told.

use std::time::Duration;

use crate::apps::{self, QUICK, Traffic};
use crate::host::TestHost;

/// What `ci`, who may write the upload directory and nothing else, puts beside the program, and what is said of it.
const REFUSED: [(&str, &str); 7] = [
    (
        "ln -s ../../etc/passwd out",
        "the symlink /srv/web/out to \"../../etc/passwd\" leads out of the upload",
    ),
    ("ln -s /etc/passwd out", "the symlink /srv/web/out to \"/etc/passwd\" is absolute"),
    ("mkfifo out", "/srv/web/out is a FIFO"),
    ("python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"out\")'", "/srv/web/out is a socket"),
    ("touch \"$(printf 'out\\nside')\"", "has control characters"),
    ("touch \"$(printf 'out\\377')\"", "is not UTF-8"),
    (
        "python3 -c 'import os; os.mkdir(\"out\"); [open(f\"out/{n}\", \"w\").close() for n in range(100000)]'",
        "/srv/web has more than 20,000 files, which is the limit",
    ),
];

/// An app whose uploads are those of the user `ci`.
fn app_of_ci(host: &TestHost) {
    let text = format!("[service]\nstart = \"{{bin}}\"\n[health]\npath = \"/healthz\"\n{QUICK}");
    apps::backend_app(host, "web", 8080, &text);
    host.sh("useradd ci; chown -R ci /srv/web");
}

#[test]
fn what_does_not_belong_into_a_release_is_refused() {
    let Some(host) = apps::boot() else { return };
    app_of_ci(&host);
    let traffic = Traffic::start(&host, 8080, "one");
    let refused = |says: &str| {
        let answer = host.run("dorc switch web");
        answer.exits_with(10);
        assert!(answer.stderr_text().contains(says), "{says:?} is not in\n{answer}");
        assert!(host.sh("dorc status web").contains(says));
    };
    for (how, says) in REFUSED {
        host.run_as("ci", &format!("cd /srv/web && {how}")).success();
        refused(says);
        host.sh("rm -rf /srv/web/out*");
    }
    // A device takes root, who may be careless.
    host.sh("mknod /srv/web/out c 1 5");
    refused("/srv/web/out is a device");
    host.sh("rm /srv/web/out; mkdir /srv/web/out; mount -t tmpfs none /srv/web/out; touch /srv/web/out/file");
    refused("is on another file system than the upload");
    host.sh("umount /srv/web/out; rmdir /srv/web/out");

    traffic.end_without_failure();
    assert_eq!(host.sh("ls /var/lib/dorc/apps/web/releases | wc -l"), "1");
    apps::upload(&host, "web", "two", "ok");
    apps::switch(&host, "web");
    assert_eq!(apps::get(&host, 8080), "two");
}

#[test]
fn a_release_belongs_to_root_and_its_service_can_not_write_it() {
    let Some(host) = apps::boot() else { return };
    app_of_ci(&host);
    let odd = "mkdir -p sub && cp /bin/true sub/setuid && chmod 6777 sub/setuid && chmod 777 sub && ln -s sub/setuid link";
    host.run_as("ci", &format!("cd /srv/web && {odd}")).success();
    apps::switch(&host, "web");

    let release = host.sh("systemctl show -P WorkingDirectory blue-web.service");
    assert!(release.starts_with("/var/lib/dorc/apps/web/releases/r2-"), "{release}");
    assert_eq!(host.sh(&format!("find {release} ! -user root -o ! -group root")), "");
    let modes = host.sh(&format!("cd {release}; find . ! -type l -printf '%m %P\n' | sort"));
    assert_eq!(modes, "644 behaviour\n644 version\n755 \n755 backend\n755 sub\n755 sub/setuid");
    let write = format!(
        "pid=$(systemctl show -P MainPID blue-web); nsenter --target $pid --mount --user \
        --setuid $(id -u dorc-web) -- touch {release}/mine"
    );
    let denied = host.run(&write);
    assert!(!denied.status.success() && denied.stderr_text().contains("touch"), "{denied}");
}

/// Replaces what is being read by a symlink to a secret, and back, for so many seconds.
const REPLACES: &str = r#"
import os, sys, time
os.chdir("/srv/web")
end, rounds = time.monotonic() + float(sys.argv[1]), 0
open("plain", "w").write("plain")
os.makedirs("folder", exist_ok=True)
for name in ("shadow", "passwd"): open("folder/" + name, "w").write("plain")
while time.monotonic() < end:
    rounds += 1
    # A change now and then, so that there is always something new to be taken.
    open("version", "w").write(f"round {rounds // 50}")
    os.symlink("/etc/shadow", "link"); os.rename("link", "plain")
    os.rename("folder", "away"); os.symlink("/etc", "folder")
    if rounds % 3 == 0: time.sleep(0.003)
    os.unlink("folder"); os.rename("away", "folder")
    open("new", "w").write("plain"); os.rename("new", "plain")
    time.sleep(0.12 if rounds % 5 == 0 else 0)
"#;

#[test]
fn a_symlink_put_in_the_place_of_a_file_leads_nowhere() {
    let Some(host) = apps::boot() else { return };
    app_of_ci(&host);
    host.sh("echo 'root:secret-of-root:1::::::' >/etc/shadow; chmod 600 /etc/shadow");
    host.sh("sed -i 's/settle = \"200ms\"/settle = \"50ms\"/' /etc/dorc/apps/web.toml; dorc update web");
    host.write("/opt/replaces.py", REPLACES, 0o644);
    host.sh("cp /opt/replaces.py /srv/replaces.py");
    let traffic = Traffic::start(&host, 8080, "one");

    host.run_as("ci", "python3 /srv/replaces.py 8").success();

    traffic.end_without_failure();
    let taken = host.sh("grep -c '\"what\":\"take\"' /var/lib/dorc/apps/web/history.jsonl");
    assert!(taken.parse::<u32>().is_ok_and(|taken| taken > 3), "{taken}");
    let leaked = host.run("grep -rl 'secret-of-root\\|daemon:x' /var/lib/dorc/apps/web/releases");
    assert_eq!(leaked.stdout_text(), "", "{leaked}");
    apps::upload(&host, "web", "two", "ok");
    apps::switch(&host, "web");
    assert_eq!(apps::get(&host, 8080), "two");
}

/// Clients of the control socket that don't behave.
const CLIENTS: &str = r#"
import os, random, socket, threading, time
random.seed(5)
def client():
    it = socket.socket(socket.AF_UNIX); it.settimeout(20); it.connect("/run/dorc/dorc.sock"); return it
def send(data, end=False):
    it = client()
    try:
        it.sendall(data)
        if end: it.shutdown(socket.SHUT_WR)
        it.settimeout(1)
        while it.recv(65536): pass
    except OSError: pass
    it.close()
for _ in range(300): send(os.urandom(random.randrange(1, 4096)), end=True)
for line in (b"GET", b"POST /v1/apps/web/switch HTTP/1.1", b"GET /v1/apps/../../etc/passwd HTTP/1.1\r\n\r\n",
    b"GET /v1/apps/%2e%2e/releases HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /v1/apps/web/nothing HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v1/apps/web/switch HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n[1,2]",
    b"POST /v1/apps/web/switch HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551615\r\n\r\n{}",
    b"POST /v1/apps/web/switch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"POST /v1/apps/" + b"a" * 60000 + b"/switch HTTP/1.1\r\nHost: x\r\n\r\n"):
    send(line, end=True)
huge = b"POST /v1/apps/web/switch HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n" + b" " * 20000000
send(huge)
# Many at once: idle ones, slow ones, and watchers that never read.
kept = [client() for _ in range(1000)]
for number, it in enumerate(kept):
    if number % 3 == 1: it.sendall(b"POST /v1/apps/web/switch HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
    if number % 3 == 2: it.sendall(b"GET /v1/changes HTTP/1.1\r\nHost: x\r\n\r\n")
print("connected", flush=True)
import sys; sys.stdin.read()
"#;

#[test]
fn clients_that_do_not_behave_disturb_nobody() {
    let Some(host) = apps::boot() else { return };
    app_of_ci(&host);
    host.write("/opt/clients.py", CLIENTS, 0o644);
    let traffic = Traffic::start(&host, 8080, "one,two");
    let daemon = host.daemon_pid();

    let clients = host.spawn("ulimit -n 4096; python3 /opt/clients.py");
    clients.wait_for("connected", Duration::from_secs(100));
    assert_eq!(apps::status(&host, "web")["active"], "green");
    apps::upload(&host, "web", "two", "ok");
    apps::switch(&host, "web");
    host.sh("dorc rollback web");
    clients.wait().success();

    traffic.end_without_failure();
    assert_eq!(host.daemon_pid(), daemon);
    host.wait_until(apps::SOON, "the connections are gone", || {
        let open = host.sh(&format!("ls /proc/{daemon}/fd | wc -l")).parse::<u32>().ok()?;
        (open < 100).then_some(())
    });
    let memory: u32 =
        host.sh(&format!("awk '/VmRSS/ {{ print $2 }}' /proc/{daemon}/status")).parse().expect("kB");
    assert!(memory < 100_000, "{memory} kB");
}

#[test]
fn only_root_and_the_group_may_ask() {
    let Some(host) = apps::boot() else { return };
    app_of_ci(&host);
    for command in ["dorc status", "dorc switch web", "dorc rollback web", "dorc remove web --purge"] {
        let denied = host.run_as("ci", command);
        denied.exits_with(77);
    }
    let direct = "import socket; socket.socket(socket.AF_UNIX).connect('/run/dorc/dorc.sock')";
    let denied = host.run_as("ci", &format!("python3 -c \"{direct}\""));
    assert!(denied.stderr_text().contains("PermissionError"), "{denied}");
    host.run_as("ci", "ls /var/lib/dorc/apps").exits_with(2);
    host.sh("usermod --append --groups dorc ci");
    host.run_as("ci", "dorc status").success();
    apps::upload(&host, "web", "two", "ok");
    host.run_as("ci", "dorc switch web").success();
    let history = host.sh("dorc history web");
    let last: Vec<_> =
        history.lines().last().unwrap_or_default().split_whitespace().skip(2).take(2).collect();
    assert_eq!(last, ["ci", "switch"], "{history}");
}
