//! The machine of a test host: its start, its boots, and its end, whatever happens to the test.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::processes;

/// Why no test host can run here; `None` if one can.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("test hosts need root".to_owned());
    }
    let needed =
        [("systemd-nspawn", "systemd-container"), ("nsenter", "util-linux"), ("dbus-daemon", "dbus")];
    let folders = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];
    let (program, package) =
        needed.iter().find(|(program, _)| !folders.iter().any(|f| is_file(&format!("{f}/{program}"))))?;
    Some(format!("test hosts need {program} (Debian's package {package})"))
}

fn is_file(path: &str) -> bool {
    std::path::Path::new(path).is_file()
}

/// A running systemd-nspawn and the keeper that ends it.
pub struct Machine {
    name: String,
    /// Its standard input is the lifeline: the machine lives as long as this end of it.
    keeper: Child,
    leader: u32,
    /// systemd-nspawn says here when systemd is up.
    notifications: UnixDatagram,
    console: File,
}

impl Machine {
    /// Starts one and waits until its systemd has finished its boot.
    pub fn boot(deadline: Duration) -> io::Result<Machine> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = format!("dorc-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let notifications = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        let console = tempfile::tempfile()?;
        let keeper = Command::new("sh")
            .args(["-c", include_str!("keeper.sh"), "keeper", &name, include_str!("boot.sh")])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("NOTIFY_SOCKET", format!("@{name}"))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(console.try_clone()?)
            .stderr(console.try_clone()?)
            // Ctrl-C ends the test, and the lifeline ends the machine; not both at once.
            .process_group(0)
            .spawn()?;
        let mut machine = Machine { name, keeper, leader: 0, notifications, console };
        machine.wait_for_next_boot(deadline)?;
        Ok(machine)
    }

    /// Waits until a systemd other than the last one has finished its boot.
    pub fn wait_for_next_boot(&mut self, deadline: Duration) -> io::Result<()> {
        let end = Instant::now() + deadline;
        self.notifications.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut message = [0; 4096];
        while Instant::now() < end {
            if let Some(status) = self.keeper.try_wait()? {
                return Err(self.failure(&format!("it ended with {status}")));
            }
            let Ok(length) = self.notifications.recv(&mut message) else { continue };
            let ready = message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1");
            // A reload of systemd's configuration says READY=1 too, hence the comparison.
            if let Some(leader) = self.find_leader().filter(|leader| ready && *leader != self.leader) {
                self.leader = leader;
                return Ok(());
            }
        }
        Err(self.failure(&format!("it was not up within {deadline:?}")))
    }

    fn find_leader(&self) -> Option<u32> {
        let family = processes::descendants(self.keeper.id());
        let nspawn = family.iter().find(|process| process.name == "systemd-nspawn")?.pid;
        family.iter().find(|process| process.parent == nspawn && process.name == "systemd").map(|p| p.pid)
    }

    fn failure(&mut self, what: &str) -> io::Error {
        let mut console = Vec::new();
        if self.console.rewind().and_then(|()| self.console.read_to_end(&mut console)).is_err() {
            console = b"(its console can't be read)".to_vec();
        }
        io::Error::other(format!("{what}; its console:\n{}", String::from_utf8_lossy(&console)))
    }

    /// The first process of the machine as it is known outside.
    pub fn leader(&self) -> u32 {
        self.leader
    }

    /// The machine's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // It waits, for ten seconds at most, until the last process is gone.
        match self.keeper.wait() {
            Ok(status) if status.code() != Some(1) => {}
            result => super::tell(&format!("the test host {} did not end well: {result:?}", self.name)),
        }
    }
}
