//! What the services of an app wrote, as it is printed, until the end or until nobody reads it any more.

use std::convert::Infallible;
use std::process::Stdio;
use std::sync::Arc;

use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Body, error, loaded, not_loaded};
use crate::control::{Apps, LogQuery};
use crate::model::colour::Colour;

/// So many may read at a time.
pub(super) const MOST: usize = 32;

/// The most lines that can be asked for.
const MOST_LINES: usize = 1_000_000;

/// How many lines there are unless it is said.
const LINES: usize = 100;

/// Sends what the query of the request asks for.
pub(super) async fn read<A: Apps>(
    request: &Request<Incoming>,
    apps: &A,
    app: &str,
    readers: &Arc<Semaphore>,
) -> Response<Body> {
    let Some(app) = loaded(apps, app) else { return not_loaded(app) };
    let query = match parse(request.uri().query().unwrap_or_default()) {
        Ok(query) => query,
        Err(why) => return error(StatusCode::BAD_REQUEST, why),
    };
    let Ok(place) = readers.clone().try_acquire_owned() else {
        return error(StatusCode::SERVICE_UNAVAILABLE, format!("{MOST} others read logs just now"));
    };
    let mut command = Command::from(apps.logs(app.name(), &query));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    match command.spawn() {
        Ok(mut child) => match child.stdout.take() {
            Some(output) => stream(Reading { output, _child: child, _place: place }),
            None => error(StatusCode::INTERNAL_SERVER_ERROR, "the log can't be read"),
        },
        Err(why) => {
            let program = command.as_std().get_program().display();
            error(StatusCode::INTERNAL_SERVER_ERROR, format!("{program} can't be run: {why}"))
        }
    }
}

/// Somebody who reads; the program ends with it.
struct Reading {
    output: ChildStdout,
    _child: Child,
    _place: OwnedSemaphorePermit,
}

fn stream(reading: Reading) -> Response<Body> {
    let frames = futures_util::stream::unfold(reading, |mut reading| async {
        let mut part = Vec::with_capacity(16 << 10);
        // A program that can't be read from any more is one that has ended.
        match reading.output.read_buf(&mut part).await {
            Ok(1..) => Some((Ok::<_, Infallible>(Frame::data(Bytes::from(part))), reading)),
            _ => None,
        }
    });
    Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
}

/// `lines=100&colour=green&follow`
fn parse(query: &str) -> Result<LogQuery, String> {
    let mut wanted = LogQuery { colours: Colour::BOTH.to_vec(), lines: LINES, follow: false };
    for part in query.split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=').unwrap_or((part, "")) {
            ("follow", "") => wanted.follow = true,
            ("colour", colour) => {
                let colour = colour.parse().map_err(|()| format!("{colour:?} is neither green nor blue"))?;
                wanted.colours = vec![colour];
            }
            ("lines", lines) => {
                let lines = lines.parse().ok().filter(|lines| *lines <= MOST_LINES);
                wanted.lines = lines.ok_or_else(|| format!("lines is a number up to {MOST_LINES}"))?;
            }
            _ => return Err(format!("{part:?} is not known here: lines=, colour=, follow")),
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_understood_or_refused() {
        let all = LogQuery { colours: Colour::BOTH.to_vec(), lines: LINES, follow: false };
        assert_eq!(parse(""), Ok(all.clone()));
        let green = LogQuery { colours: vec![Colour::Green], lines: 7, follow: true };
        assert_eq!(parse("lines=7&colour=green&follow"), Ok(green));
        for wrong in ["colour=red", "lines=-1", "lines=9999999", "follow=yes", "unit=ssh.service"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
