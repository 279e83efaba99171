//! The programs that are compared, and the backend behind them: each a child process with a configuration of its
//! own in a temporary folder, ended when it is dropped.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dorc::routing::kernel::Kernel;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::plane::READY;
use super::processors::{Processors, Side};

/// What a connection goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: the backend itself.
    Direct,
    /// The kernel plane.
    Kernel,
    /// The kernel plane, with a thousand apps loaded.
    Kernel1000,
    /// The tcp plane on one thread.
    Dorc,
    /// HAProxy in tcp mode on one thread, with splice.
    Haproxy,
    /// nginx's stream module with one worker.
    Nginx,
}

impl Kind {
    /// All, in the order of the table.
    pub const ALL: [Self; 6] =
        [Self::Direct, Self::Kernel, Self::Kernel1000, Self::Dorc, Self::Haproxy, Self::Nginx];

    /// Its name in tables and options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Kernel => "kernel",
            Self::Kernel1000 => "kernel-1000",
            Self::Dorc => "dorc",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    /// Whether it is the kernel plane.
    pub const fn is_steered(&self) -> bool {
        matches!(self, Self::Kernel | Self::Kernel1000)
    }
}

/// A child process, killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to be done about it here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Fails unless a client gets an answer while this process can't do anything.
    fn is_passed_by(&self, address: SocketAddr) -> Result<()> {
        let process = Pid::from_child(&self.0);
        kill_process(process, Signal::STOP)?;
        let answers = answers(address);
        kill_process(process, Signal::CONT)?;
        if answers { Ok(()) } else { bail!("connections to {address} pass through a process") }
    }
}

/// Leaves when no program is on the hook any more: what a process had attached is taken off a little after its end.
struct Hook;

impl Drop for Hook {
    fn drop(&mut self) {
        if let Err(error) = until(|| kernel_plane().is_ok()) {
            eprintln!("the kernel plane was not taken off: {error}");
        }
    }
}

/// Whether there can be the kernel plane now.
///
/// # Errors
/// The reason why not, as a sentence.
pub fn kernel_plane() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("it needs root");
    }
    Kernel::new(PathBuf::new()).try_out().map_err(anyhow::Error::msg)
}

/// nginx with one worker and a body of 12 bytes, beside a source of bulk data.
pub struct Backend {
    web: SocketAddr,
    bulk: SocketAddr,
    _nginx: Running,
    _folder: TempDir,
}

impl Backend {
    /// Starts it.
    pub fn start(bulk: SocketAddr) -> Result<Self> {
        let (folder, web) = (TempDir::new()?, free_address()?);
        let events = "events { worker_connections 16384; }";
        let server = format!(
            "http {{ access_log off; keepalive_timeout 1h; keepalive_requests 1000000000;
             server {{ listen {web} backlog=4096; location / {{ return 200 'hello world\\n'; }} }} }}"
        );
        let nginx = nginx(folder.path(), &format!("{events}\n{server}"))?;
        wait_for(web)?;
        Ok(Self { web, bulk, _nginx: nginx, _folder: folder })
    }
}

/// Sends to each client for as long as it takes what is sent.
pub fn source(processors: &Processors) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    processors.be(Side::Server)?;
    // It runs where it was started, as do those that it starts.
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let chunk = vec![b'x'; 128 * 1024];
                while client.write_all(&chunk).is_ok() {}
            });
        }
    });
    Ok(address)
}

/// One way to the backend.
pub struct Peer {
    /// Where it answers HTTP.
    pub web: SocketAddr,
    /// Where bulk data comes from.
    pub bulk: SocketAddr,
    running: Option<Running>,
    // Dropped after the process that may be attached there.
    _hook: Option<Hook>,
    _folder: TempDir,
}

impl Peer {
    /// Starts it and waits until it answers.
    pub fn start(kind: Kind, backend: &Backend) -> Result<Self> {
        let folder = TempDir::new()?;
        let (mut web, mut bulk) = (backend.web, backend.bulk);
        let hook = kind.is_steered().then(|| Hook);
        let running = if kind == Kind::Direct {
            None
        } else {
            (web, bulk) = (free_address()?, free_address()?);
            let ways = [(web, backend.web), (bulk, backend.bulk)];
            Some(match kind {
                Kind::Direct | Kind::Dorc => dorc(ways)?,
                Kind::Kernel => steered(folder.path(), ways, 1)?,
                Kind::Kernel1000 => steered(folder.path(), ways, 1000)?,
                Kind::Haproxy => haproxy(folder.path(), ways)?,
                Kind::Nginx => nginx(folder.path(), &stream(ways))?,
            })
        };
        wait_for(web)?;
        if let (Some(_), Some(running)) = (&hook, &running) {
            running.is_passed_by(web).context("the kernel plane, as it is to be measured")?;
            running.is_passed_by(bulk).context("the kernel plane, as it is to be measured")?;
        }
        Ok(Self { web, bulk, running, _hook: hook, _folder: folder })
    }

    /// The processor time that it has used; `None` if there is no process.
    pub fn cpu(&self) -> Result<Option<Duration>> {
        let Some(running) = &self.running else { return Ok(None) };
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", running.0.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            nanoseconds += text.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
        }
        Ok(Some(Duration::from_nanos(nanoseconds)))
    }

    /// Its resident memory in bytes, as far as it is its own; `None` if there is no process.
    pub fn memory(&self) -> Result<Option<u64>> {
        let Some(running) = &self.running else { return Ok(None) };
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", running.0.id()))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()).context("no Private_Dirty")?;
        Ok(Some(kib.parse::<u64>()? * 1024))
    }
}

fn dorc(ways: [(SocketAddr, SocketAddr); 2]) -> Result<Running> {
    plane(Command::new(std::env::current_exe()?), ways)
}

/// The kernel plane with so many apps. What it pins is in a mount of its own, which ends with it whatever ends it.
fn steered(folder: &Path, ways: [(SocketAddr, SocketAddr); 2], apps: usize) -> Result<Running> {
    let mut command = Command::new("unshare");
    command.arg("--mount").arg(std::env::current_exe()?);
    command.arg("--kernel").arg(folder.join("bpf")).args(["--more-apps", &(apps - 1).to_string()]);
    plane(command, ways)
}

/// Starts this program as a plane and waits until it is set up.
fn plane(mut command: Command, ways: [(SocketAddr, SocketAddr); 2]) -> Result<Running> {
    let addresses = ways.iter().flat_map(|(listen, target)| [listen.to_string(), target.to_string()]);
    let mut running = Running(command.arg("--plane").args(addresses).stdout(Stdio::piped()).spawn()?);
    let mut word = String::new();
    BufReader::new(running.0.stdout.take().context("it was piped")?).read_line(&mut word)?;
    if word.trim() == READY { Ok(running) } else { bail!("it has ended before it was set up") }
}

fn haproxy(folder: &Path, ways: [(SocketAddr, SocketAddr); 2]) -> Result<Running> {
    let mut text = String::from(
        "global\n nbthread 1\n maxconn 6000\ndefaults\n mode tcp\n option splice-auto\n timeout connect 5s\n \
         timeout client 1h\n timeout server 1h\n",
    );
    for (number, (listen, target)) in ways.into_iter().enumerate() {
        text += &format!("listen way{number}\n bind {listen} backlog 4096\n server it {target}\n");
    }
    let path = folder.join("haproxy.cfg");
    fs::write(&path, text)?;
    let mut command = Command::new("haproxy");
    Ok(Running(command.arg("-db").arg("-f").arg(path).stderr(Stdio::null()).spawn()?))
}

fn stream(ways: [(SocketAddr, SocketAddr); 2]) -> String {
    let server = |(listen, target)| {
        format!("server {{ listen {listen} backlog=4096; proxy_pass {target}; proxy_timeout 1h; }}\n")
    };
    format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
         events {{ worker_connections 16384; }}\nstream {{ {} }}",
        ways.map(server).concat()
    )
}

fn nginx(folder: &Path, text: &str) -> Result<Running> {
    let path = folder.join("nginx.conf");
    let (pid, log) = (folder.join("pid"), folder.join("error.log"));
    let head = format!(
        "daemon off; master_process off; worker_processes 1; pid {}; error_log {} error;\n",
        pid.display(),
        log.display()
    );
    fs::write(&path, head + text)?;
    let mut command = Command::new("nginx");
    Ok(Running(command.arg("-p").arg(folder).arg("-e").arg(log).arg("-c").arg(path).spawn()?))
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn wait_for(address: SocketAddr) -> Result<()> {
    until(|| answers(address)).with_context(|| format!("nothing answers on {address}"))
}

fn until(done: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !done() {
        if Instant::now() > deadline {
            bail!("not within five seconds");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<usize> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        socket.read(&mut [0; 1])
    };
    ask().is_ok_and(|count| count == 1)
}

/// Debian's packages of the peers and of the load generator.
pub fn install_what_is_missing() -> Result<()> {
    let needed = [
        ("/usr/sbin/haproxy", "haproxy"),
        ("/usr/sbin/nginx", "nginx"),
        ("/usr/lib/nginx/modules/ngx_stream_module.so", "libnginx-mod-stream"),
        ("/usr/bin/wrk", "wrk"),
    ];
    let missing: Vec<_> = needed
        .into_iter()
        .filter(|(path, _)| !Path::new(path).exists())
        .map(|(_, package)| package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let done =
        Command::new("apt-get").args(["install", "-y", "--no-install-recommends"]).args(&missing).status();
    match done {
        Ok(status) if status.success() => Ok(()),
        _ => bail!("these packages are missing and could not be installed: {}", missing.join(", ")),
    }
}
