//! One probe: an HTTP request, a connection, or a command.

mod command;
mod http;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::model::app::Check;
use crate::model::health::Probe;
use crate::model::proxy_protocol::ProxyProtocol;

/// How much of an answer is told.
const EXCERPT: usize = 200;

/// Who is probed.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The service's own address.
    pub address: SocketAddr,
    /// How it wants to be told who connects.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How long it has been up.
    pub up_for: Duration,
    /// The environment for a command, besides `PATH`, `HOME` and `LANG`.
    pub env: &'a BTreeMap<String, String>,
    /// Where a command runs.
    pub dir: &'a Path,
}

/// Asks once; the answer comes within `timeout`. A probe that is dropped leaves nothing behind.
pub async fn probe(check: &Check, subject: Subject<'_>, timeout: Duration) -> Probe {
    let result = match check {
        Check::Port { up_for } => port(subject, *up_for, timeout).await,
        Check::Http { path, host } => http::probe(subject, path, host, timeout).await,
        Check::Command(words) => command::probe(words, subject, timeout).await,
    };
    match result {
        Ok(answer) => Probe { healthy: true, answer },
        Err(answer) => Probe { healthy: false, answer },
    }
}

/// What was answered: `Ok` where that is healthy.
type Answer = Result<String, String>;

async fn port(subject: Subject<'_>, needed: Duration, timeout: Duration) -> Answer {
    let begin = Instant::now();
    connect(subject, timeout).await?;
    let answer = format!("connect to {} in {}", subject.address, milliseconds(begin));
    if subject.up_for < needed {
        let (up, needed) = (subject.up_for.as_secs_f64(), needed.as_secs_f64());
        return Err(format!("{answer}, but it has been up for {up:.1} s of {needed:.1} s only"));
    }
    Ok(answer)
}

async fn connect(subject: Subject<'_>, timeout: Duration) -> Result<TcpStream, String> {
    let failed = |reason: &str| format!("connect to {}: {reason}", subject.address);
    match tokio::time::timeout(timeout, introduced(subject)).await {
        Err(_) => Err(failed(&no_answer(timeout))),
        Ok(Err(error)) => Err(failed(&describe(&error))),
        Ok(Ok(stream)) => Ok(stream),
    }
}

/// A connection to a service that knows, if it wants to, who is there.
async fn introduced(Subject { address, proxy_protocol, .. }: Subject<'_>) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let own = stream.local_addr()?;
    // Where nobody listens, the kernel may have chosen the port itself as the source and connected it to itself.
    if own == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    if let Some(version) = proxy_protocol {
        stream.write_all(&version.header(own, address)).await?;
    }
    Ok(stream)
}

fn no_answer(timeout: Duration) -> String {
    format!("no answer within {}", humantime::format_duration(timeout))
}

/// An error of the system in few words: `connection refused`.
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

fn milliseconds(begin: Instant) -> String {
    format!("{} ms", begin.elapsed().as_millis())
}

/// The beginning of what came, in one line and without anything that a terminal would obey; empty for nothing.
fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT)]);
    let text = text.trim();
    if text.is_empty() {
        return String::new();
    }
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect();
    format!(": \"{line}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_are_one_harmless_line() {
        assert_eq!(excerpt(b" no\ndatabase\x1b[2J\n"), ": \"no\\ndatabase\\u{1b}[2J\"");
        assert_eq!(excerpt(b"\n"), "");
        assert_eq!(excerpt(&[b'x'; 1000]).len(), EXCERPT + 4);
    }
}
