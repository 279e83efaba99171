//! A strict HTTP client: what is not a whole, right answer is a failure.
//!
//! A server may close a kept connection between two requests (RFC 9112, 9.3). A request that meets such a close before
//! the first byte of its answer is sent once more on a new connection, as every HTTP client does, and that is counted.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The longest answer that is taken.
const MAX_ANSWER: usize = 64 << 10;

/// Asks for one path, again and again.
#[derive(Debug)]
pub(super) struct Client {
    address: SocketAddr,
    request: Vec<u8>,
    keeps: bool,
    kept: Option<TcpStream>,
    reopened: Reopened,
}

/// What became of the kept connection before an answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Reopened {
    /// It was used, or there was none.
    #[default]
    No,
    /// It had been closed.
    Before,
    /// It was closed when the request had been sent already.
    After,
}

/// Why there is no answer.
enum Failure {
    /// The connection ended before the first byte of the answer.
    Unanswered(String),
    /// Anything else.
    Other(String),
}

impl Client {
    /// A client that keeps its connection, or opens one for each request.
    pub(super) fn new(address: SocketAddr, path: &str, keeps: bool) -> Self {
        let close = if keeps { "" } else { "Connection: close\r\n" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{close}\r\n").into_bytes();
        Self { address, request, keeps, kept: None, reopened: Reopened::No }
    }

    /// Sends one request: the body of its answer, or why there is none.
    pub(super) async fn ask(&mut self) -> (Result<String, String>, Reopened) {
        self.reopened = Reopened::No;
        let answer = match timeout(LIMIT, self.try_ask()).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(Failure::Unanswered(why) | Failure::Other(why))) => Err(why),
            Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
        };
        (answer, self.reopened)
    }

    async fn try_ask(&mut self) -> Result<String, Failure> {
        if let Some(kept) = self.still_open()? {
            match self.exchange(kept).await {
                Err(Failure::Unanswered(_)) => self.reopened = Reopened::After,
                answer => return answer,
            }
        }
        let connected = TcpStream::connect(self.address).await;
        let new = connected.map_err(|error| Failure::Other(format!("connecting: {error}")))?;
        self.exchange(new).await
    }

    /// The connection of the last request, unless it was closed since.
    fn still_open(&mut self) -> Result<Option<TcpStream>, Failure> {
        let Some(kept) = self.kept.take() else { return Ok(None) };
        match kept.try_read(&mut [0; 1]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(kept)),
            Ok(1..) => return Err(Failure::Other("bytes that were not asked for".into())),
            Ok(0) | Err(_) => self.reopened = Reopened::Before,
        }
        Ok(None)
    }

    async fn exchange(&mut self, mut stream: TcpStream) -> Result<String, Failure> {
        let unanswered = |error: io::Error| Failure::Unanswered(format!("no answer: {error}"));
        stream.write_all(&self.request).await.map_err(unanswered)?;
        let mut bytes = Vec::with_capacity(512);
        loop {
            let answered = !bytes.is_empty();
            match stream.read_buf(&mut bytes).await {
                Ok(0) if answered => return Err(Failure::Other("an answer that ends too early".into())),
                Ok(0) => return Err(Failure::Unanswered("no answer: it was closed".into())),
                Err(error) if answered => return Err(Failure::Other(format!("within an answer: {error}"))),
                Err(error) => return Err(unanswered(error)),
                Ok(_) => {}
            }
            if let Some(body) = whole_body(&bytes).map_err(Failure::Other)? {
                self.kept = self.keeps.then_some(stream);
                return Ok(body);
            }
        }
    }
}

/// The body of a whole 200; `None` while it is not whole.
fn whole_body(bytes: &[u8]) -> Result<Option<String>, String> {
    if bytes.len() > MAX_ANSWER {
        return Err("an answer without an end".into());
    }
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("http/1.1 200 ") {
        return Err(format!("another answer than 200: {status}"));
    }
    let length = lines.find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let length = length.ok_or("an answer without a length")?;
    let body = &bytes[end + 4..];
    if body.len() > length {
        return Err("more bytes than the answer has".into());
    }
    Ok((body.len() == length).then(|| String::from_utf8_lossy(body).trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_200_is_an_answer() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n1.0\n";
        assert_eq!(whole_body(whole), Ok(Some("1.0".into())));
        for cut in 0..whole.len() {
            assert_eq!(whole_body(&whole[..cut]), Ok(None), "{cut}");
        }
        assert!(whole_body(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").is_err());
        assert!(whole_body(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n1.0\n").is_err());
        assert!(whole_body(b"HTTP/1.1 200 OK\r\n\r\n1.0\n").is_err());
        assert!(whole_body(b"SSH-2.0\r\n\r\n").is_err());
    }
}
