//! One client: its requests, one after the other.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::tally::Tally;

/// What each client asks for.
pub struct Request {
    pub address: SocketAddr,
    pub path: String,
    pub keep_alive: bool,
    pub timeout: Duration,
    pub expect: Vec<String>,
}

impl Request {
    fn bytes(&self) -> Vec<u8> {
        let close = if self.keep_alive { "" } else { "Connection: close\r\n" };
        format!("GET {} HTTP/1.1\r\nHost: localhost\r\n{close}\r\n", self.path).into_bytes()
    }
}

/// Why a request has no right answer.
enum Failure {
    /// Nobody listens.
    Refused,
    /// The connection ended before the first byte of the answer.
    ClosedUnanswered(String),
    /// Anything else.
    Other(String),
}

pub struct Client {
    request: Request,
    bytes: Vec<u8>,
    connection: Option<TcpStream>,
    tally: Rc<RefCell<Tally>>,
    is_warm: bool,
}

impl Client {
    pub fn new(request: Request, tally: Rc<RefCell<Tally>>) -> Client {
        let bytes = request.bytes();
        Client { request, bytes, connection: None, tally, is_warm: false }
    }

    /// Sends one request after the other until `stop` says so; the last one is finished.
    pub async fn run(mut self, every: Duration, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            self.one_request().await;
            tokio::select! {
                _told = stop.wait_for(|stop| *stop) => break,
                () = sleep(every) => {}
            }
        }
    }

    async fn one_request(&mut self) {
        let start = Instant::now();
        let limit = self.request.timeout;
        let result = timeout(limit, self.ask()).await;
        let result = result.unwrap_or_else(|_| Err(Failure::Other(format!("no answer within {limit:?}"))));
        if result.is_err() || !self.request.keep_alive {
            self.connection = None;
        }
        let mut tally = self.tally.borrow_mut();
        match result {
            Ok(body) => {
                tally.answered(body, start.elapsed());
                if !std::mem::replace(&mut self.is_warm, true) {
                    tally.one_more_is_warm();
                }
            }
            Err(Failure::Refused) => tally.failed_because("connection refused".to_owned(), true),
            Err(Failure::ClosedUnanswered(why) | Failure::Other(why)) => tally.failed_because(why, false),
        }
    }

    async fn ask(&mut self) -> Result<String, Failure> {
        if let Some(mut kept) = self.kept()? {
            match self.exchange(&mut kept).await {
                Err(Failure::ClosedUnanswered(_)) => self.tally.borrow_mut().retried(),
                answer => return self.keep(kept, answer),
            }
        }
        let mut new = self.connect().await?;
        let answer = self.exchange(&mut new).await;
        self.keep(new, answer)
    }

    /// The connection of the last request, unless the server has closed it since.
    fn kept(&mut self) -> Result<Option<TcpStream>, Failure> {
        let Some(kept) = self.connection.take() else { return Ok(None) };
        match kept.try_read(&mut [0; 1]) {
            Ok(0) => self.tally.borrow_mut().reopened(),
            Ok(_) => return Err(Failure::Other("bytes that nobody asked for".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(kept)),
            Err(_) => self.tally.borrow_mut().reopened(),
        }
        Ok(None)
    }

    fn keep(&mut self, stream: TcpStream, answer: Result<Answer, Failure>) -> Result<String, Failure> {
        let answer = answer?;
        if !answer.closes {
            self.connection = Some(stream);
        }
        let expected = &self.request.expect;
        match answer.status {
            200 if expected.is_empty() || expected.contains(&answer.body) => Ok(answer.body),
            200 => Err(Failure::Other(format!("a wrong body: {}", answer.body))),
            status => Err(Failure::Other(format!("status {status}"))),
        }
    }

    async fn connect(&self) -> Result<TcpStream, Failure> {
        let stream = TcpStream::connect(self.request.address).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::Refused,
            _ => Failure::Other(format!("connect: {error}")),
        })?;
        stream.set_nodelay(true).map_err(|error| Failure::Other(format!("nodelay: {error}")))?;
        Ok(stream)
    }

    async fn exchange(&self, stream: &mut TcpStream) -> Result<Answer, Failure> {
        let closed = |error: io::Error| Failure::ClosedUnanswered(format!("no answer: {error}"));
        stream.write_all(&self.bytes).await.map_err(closed)?;
        let mut received = Vec::with_capacity(512);
        loop {
            match stream.read_buf(&mut received).await {
                Ok(0) if received.is_empty() => {
                    return Err(Failure::ClosedUnanswered("no answer: the connection was closed".to_owned()));
                }
                Ok(0) => return Err(Failure::Other("the connection was closed within an answer".to_owned())),
                Ok(_) => {}
                Err(error) if received.is_empty() => return Err(closed(error)),
                Err(error) => return Err(Failure::Other(format!("within an answer: {error}"))),
            }
            if let Some(answer) = parse(&received).map_err(Failure::Other)? {
                return Ok(answer);
            }
        }
    }
}

/// A whole answer.
struct Answer {
    status: u16,
    body: String,
    closes: bool,
}

/// The answer in these bytes; `None` while it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<Answer>, String> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "a head that is no text".to_owned())?;
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    // The end of an older answer is the end of its connection.
    let older = status_line.strip_prefix("HTTP/1.0 ");
    let status = status_line.strip_prefix("HTTP/1.1 ").or(older);
    let status = status.and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| format!("not an answer: {status_line}"))?;
    let mut length = None;
    let mut closes = older.is_some();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse::<usize>().ok(),
            "connection" => closes = value.trim().eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let length = length.ok_or("an answer without a length")?;
    let body = &bytes[end + 4..];
    match body.len().cmp(&length) {
        std::cmp::Ordering::Less => Ok(None),
        std::cmp::Ordering::Equal => {
            Ok(Some(Answer { status, body: String::from_utf8_lossy(body).into_owned(), closes }))
        }
        std::cmp::Ordering::Greater => Err("more bytes than the answer has".to_owned()),
    }
}
