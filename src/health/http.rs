//! A GET that must say 2xx.

use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::{Answer, EXCERPT, Subject, connect, excerpt, milliseconds, no_answer};

/// The longest head of an answer.
const MAX_HEAD: usize = 32 << 10;

/// So much of a body is read, and for so long, for the service not to see its answer refused.
const BODY: (usize, Duration) = (32 << 10, Duration::from_millis(100));

/// One request. Redirects are not followed: what they lead to need not be this service.
pub(super) async fn probe(subject: Subject<'_>, path: &str, host: &str, timeout: Duration) -> Answer {
    let begin = Instant::now();
    let deadline = begin + timeout;
    let stream = connect(subject, timeout).await?;
    let failed = |reason: String| format!("GET {path}: {reason}");
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("dorc/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(format!("it can't be asked: {error}")))?;
    // Dropped at the end of the probe, and the connection with it.
    let mut connection = JoinSet::new();
    let exchange = async {
        let (mut sender, driver) =
            http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
        connection.spawn(driver);
        sender.send_request(request).await
    };
    let response = match timeout_at(deadline, exchange).await {
        Err(_) => return Err(failed(no_answer(timeout))),
        Ok(Err(error)) => return Err(failed(describe(&error))),
        Ok(Ok(response)) => response,
    };
    let answer = format!("GET {path} {} in {}", response.status().as_u16(), milliseconds(begin));
    judge(answer, response, deadline).await
}

async fn judge(answer: String, mut response: Response<Incoming>, deadline: Instant) -> Answer {
    let status = response.status();
    if status.is_success() {
        let patience = deadline.min(Instant::now() + BODY.1);
        read(&mut response, BODY.0, patience).await;
        return Ok(answer);
    }
    if status.is_redirection() {
        let to = response.headers().get(header::LOCATION);
        return Err(match to {
            Some(to) => format!("{answer}, a redirect to{}", excerpt(to.as_bytes()).trim_start_matches(':')),
            None => answer,
        });
    }
    let body = read(&mut response, EXCERPT, deadline).await;
    Err(format!("{answer}{}", excerpt(&body)))
}

/// The beginning of the body, as much as comes in time.
async fn read(response: &mut Response<Incoming>, limit: usize, deadline: Instant) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < limit {
        match timeout_at(deadline, response.frame()).await {
            Ok(Some(Ok(frame))) => body.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            _ => break,
        }
    }
    body
}

fn describe(error: &hyper::Error) -> String {
    if error.is_parse_too_large() {
        format!("the head of the answer is longer than {} KiB", MAX_HEAD >> 10)
    } else if error.is_parse() {
        format!("no HTTP answer: {error}")
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        "the connection was closed without an answer".to_owned()
    } else {
        match std::error::Error::source(error).and_then(|source| source.downcast_ref()) {
            Some(error) => super::describe(error),
            None => error.to_string(),
        }
    }
}
