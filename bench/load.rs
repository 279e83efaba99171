//! What is measured, each through one peer at a time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::peers::Peer;

/// One measurement and the names of the values that it gives.
pub struct Measurement {
    /// Its name in the table.
    pub name: &'static str,
    /// Its values, and whether more of them is better.
    pub values: &'static [(&'static str, bool)],
    /// Makes it, for so many seconds.
    pub measure: fn(&Peer, u64) -> Result<Vec<Option<f64>>>,
}

/// The proxy's own processor time for each request is the value that others on the machine disturb the least.
const HTTP: &[(&str, bool)] =
    &[("requests/s", true), ("p50 µs", false), ("p99 µs", false), ("cpu ns each", false)];

/// All of them.
pub const ALL: [Measurement; 6] = [
    Measurement { name: "keep-alive, 1", values: HTTP, measure: |peer, seconds| wrk(peer, seconds, 1, true) },
    Measurement {
        name: "keep-alive, 64",
        values: HTTP,
        measure: |peer, seconds| wrk(peer, seconds, 64, true),
    },
    Measurement {
        name: "keep-alive, 512",
        values: HTTP,
        measure: |peer, seconds| wrk(peer, seconds, 512, true),
    },
    Measurement {
        name: "new connections, 64",
        values: HTTP,
        measure: |peer, seconds| wrk(peer, seconds, 64, false),
    },
    Measurement { name: "bulk, 1 stream", values: &[("MB/s", true), ("cpu ns/MB", false)], measure: bulk },
    Measurement { name: "idle, 5000", values: &[("bytes each", false)], measure: idle },
];

fn wrk(peer: &Peer, seconds: u64, connections: usize, keep_alive: bool) -> Result<Vec<Option<f64>>> {
    let mut command = Command::new("wrk");
    command.args(["--latency", "-t1", &format!("-c{connections}"), &format!("-d{seconds}s")]);
    if !keep_alive {
        command.args(["-H", "Connection: close"]);
    }
    let before = peer.cpu()?;
    let output = command.arg(format!("http://{}/", peer.web)).output().context("wrk does not start")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("requests failed:\n{text}{}", String::from_utf8_lossy(&output.stderr));
    }
    let value = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
    let rate = value("Requests/sec:").context("wrk told no rate")?.parse::<f64>()?;
    let requests = text.lines().find(|line| line.contains(" requests in "));
    let count = requests
        .and_then(|line| line.split_whitespace().next())
        .context("wrk told no count")?
        .parse::<f64>()?;
    let micros = |label| value(label).context("wrk told no latency").and_then(micros);
    Ok(vec![Some(rate), Some(micros("50%")?), Some(micros("99%")?), cpu_since(peer, before, count)?])
}

/// The processor time in nanoseconds for each of so many.
fn cpu_since(peer: &Peer, before: Option<Duration>, count: f64) -> Result<Option<f64>> {
    let used = peer.cpu()?.zip(before).map(|(after, before)| after.saturating_sub(before));
    Ok(used.map(|used| used.as_secs_f64() * 1e9 / count))
}

fn micros(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 1.0), ("ms", 1e3), ("s", 1e6)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    bail!("{text:?} is no time")
}

fn bulk(peer: &Peer, seconds: u64) -> Result<Vec<Option<f64>>> {
    let mut socket = TcpStream::connect(peer.bulk)?;
    let mut chunk = vec![0; 256 * 1024];
    let (start, before) = (Instant::now(), peer.cpu()?);
    let mut count = 0;
    while start.elapsed() < Duration::from_secs(seconds) {
        count += socket.read(&mut chunk)?;
    }
    let megabytes = count as f64 / 1e6;
    let rate = megabytes / start.elapsed().as_secs_f64();
    Ok(vec![Some(rate), cpu_since(peer, before, megabytes)?])
}

/// What each of many connections costs, after one request on each of them.
fn idle(peer: &Peer, _seconds: u64) -> Result<Vec<Option<f64>>> {
    const COUNT: usize = 5_000;
    let Some(before) = peer.memory()? else { return Ok(vec![None]) };
    let mut clients = Vec::with_capacity(COUNT);
    for _ in 0..COUNT {
        let mut socket = TcpStream::connect(peer.web)?;
        socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut answer = [0; 4096];
        let count = socket.read(&mut answer)?;
        if !answer[..count].starts_with(b"HTTP/1.1 200") {
            bail!("no answer");
        }
        clients.push(socket);
    }
    std::thread::sleep(Duration::from_millis(500));
    let after = peer.memory()?.context("it has ended")?;
    Ok(vec![Some(after.saturating_sub(before) as f64 / COUNT as f64)])
}
