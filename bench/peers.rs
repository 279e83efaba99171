//! The programs that are compared, and the backend behind them: each a child process with a configuration of its
//! own in a temporary folder, ended when it is dropped.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// What a connection goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: the backend itself.
    Direct,
    /// The tcp plane on one thread.
    Dorc,
    /// HAProxy in tcp mode on one thread, with splice.
    Haproxy,
    /// nginx's stream module with one worker.
    Nginx,
}

impl Kind {
    /// All, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Direct, Self::Dorc, Self::Haproxy, Self::Nginx];

    /// Its name in tables and options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Dorc => "dorc",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
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

/// nginx with one worker and a body of 12 bytes, and a source of bulk data.
pub struct Backend {
    web: SocketAddr,
    bulk: SocketAddr,
    _nginx: Running,
    _folder: TempDir,
}

impl Backend {
    /// Starts both.
    pub fn start() -> Result<Self> {
        let (folder, web) = (TempDir::new()?, free_address()?);
        let events = "events { worker_connections 16384; }";
        let server = format!(
            "http {{ access_log off; keepalive_timeout 1h; keepalive_requests 1000000000;
             server {{ listen {web} backlog=4096; location / {{ return 200 'hello world\\n'; }} }} }}"
        );
        let nginx = nginx(folder.path(), &format!("{events}\n{server}"))?;
        wait_for(web)?;
        Ok(Self { web, bulk: source()?, _nginx: nginx, _folder: folder })
    }
}

/// Sends to each client for as long as it takes what is sent.
fn source() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
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
    _folder: TempDir,
}

impl Peer {
    /// Starts it and waits until it answers.
    pub fn start(kind: Kind, backend: &Backend) -> Result<Self> {
        let folder = TempDir::new()?;
        let (mut web, mut bulk) = (backend.web, backend.bulk);
        let running = if kind == Kind::Direct {
            None
        } else {
            (web, bulk) = (free_address()?, free_address()?);
            let ways = [(web, backend.web), (bulk, backend.bulk)];
            Some(match kind {
                Kind::Direct | Kind::Dorc => dorc(ways)?,
                Kind::Haproxy => haproxy(folder.path(), ways)?,
                Kind::Nginx => nginx(folder.path(), &stream(ways))?,
            })
        };
        wait_for(web)?;
        Ok(Self { web, bulk, running, _folder: folder })
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
    let addresses = ways.iter().flat_map(|(listen, target)| [listen.to_string(), target.to_string()]);
    let mut command = Command::new(std::env::current_exe()?);
    Ok(Running(command.arg("--plane").args(addresses).spawn()?))
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
    let deadline = Instant::now() + Duration::from_secs(5);
    while !answers(address) {
        if Instant::now() > deadline {
            bail!("nothing answers on {address}");
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
