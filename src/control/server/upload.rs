//! Uploads by a command: the body goes to the engine's receiving as it comes.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};

use super::{Body, api, error, json, loaded, not_loaded, report, stream};
use crate::control::Apps;
use crate::control::api::upload::{LABEL, OFFSET, ONLY_STORE, Received};
use crate::engine::Handle;
use crate::engine::receive::{NotReceived, Receiving, Then, Uploaded};
use crate::model::app::AppName;
use crate::model::release::{Digest, Label};

/// How long whoever sends may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// How long what nobody wants any more is read, so that the answer arrives.
const UNWANTED: Duration = Duration::from_secs(60);

/// How much of an upload is here.
pub(super) async fn received<A: Apps>(apps: &A, app: &str, digest: &str) -> Response<Body> {
    let Some(handle) = loaded(apps, app) else { return not_loaded(app) };
    let Ok(digest) = digest.parse() else { return no_digest(digest) };
    match handle.received(digest).await {
        Ok(received) => json(&Received { received }),
        Err(ended) => error(StatusCode::NOT_FOUND, ended.to_string()),
    }
}

/// Receives an upload, or the rest of one.
pub(super) async fn receive<A: Apps>(
    request: Request<Incoming>,
    apps: &A,
    app: &str,
    digest: &str,
    who: String,
) -> Response<Body> {
    let Some(handle) = loaded(apps, app) else { return not_loaded(app) };
    let Ok(digest) = digest.parse() else { return no_digest(digest) };
    let (offset, label) = match (offset(&request), label(&request)) {
        (Ok(offset), Ok(label)) => (offset, label),
        (Err(why), _) | (_, Err(why)) => return error(StatusCode::BAD_REQUEST, why),
    };
    let then = if request.headers().contains_key(ONLY_STORE) { Then::IsAskedFor } else { Then::ComesUp };
    let mut body = request.into_body();
    match all(&handle, digest, offset, &mut body).await {
        Ok(Some(receiving)) => {
            answer(handle.name().clone(), async move { receiving.finish(label, then, who).await })
        }
        Ok(None) => error(StatusCode::BAD_REQUEST, "the upload broke off; the same command goes on with it"),
        Err(why) => {
            tokio::spawn(discard(body));
            answer(handle.name().clone(), std::future::ready(Err(why)))
        }
    }
}

/// Hands all of the body on; `None` if it broke off. What came until then is kept for a while.
async fn all(
    handle: &Handle,
    digest: Digest,
    offset: u64,
    body: &mut Incoming,
) -> Result<Option<Receiving>, NotReceived> {
    let mut receiving = handle.receive(digest, offset).await?;
    loop {
        match tokio::time::timeout(SILENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Ok(bytes) = frame.into_data() {
                    receiving.push(bytes).await?;
                }
            }
            Ok(None) => return Ok(Some(receiving)),
            Ok(Some(Err(_))) | Err(_) => return Ok(None),
        }
    }
}

/// Answers as other commands are answered. What was received becomes a release also when nobody waits for it any more.
fn answer(
    app: AppName,
    result: impl Future<Output = Result<Uploaded, NotReceived>> + Send + 'static,
) -> Response<Body> {
    let (lines, response) = stream(|event: api::Event| api::to_json(&event));
    tokio::spawn(async move {
        let result = result.await;
        if let Ok(Uploaded { release, files, bytes, .. }) = &result {
            let release = release.to_string();
            let _ = lines.send(api::Event::Uploaded { release, files: *files, bytes: *bytes }).await;
        }
        let answer = report::uploaded(&app, result);
        let _ = lines.send(api::Event::Answer(Box::new(answer))).await;
    });
    response
}

/// Reads what is sent still: a connection that is closed on a sender would take the answer with it.
async fn discard(mut body: Incoming) {
    let all = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whoever has not stopped by then does not wait for an answer.
    let _ = tokio::time::timeout(UNWANTED, all).await;
}

fn offset(request: &Request<Incoming>) -> Result<u64, String> {
    let Some(value) = request.headers().get(OFFSET) else { return Ok(0) };
    let offset = value.to_str().ok().and_then(|text| text.parse().ok());
    offset.ok_or_else(|| format!("the header {OFFSET} is not a number"))
}

fn label(request: &Request<Incoming>) -> Result<Option<Label>, String> {
    let Some(value) = request.headers().get(LABEL) else { return Ok(None) };
    std::str::from_utf8(value.as_bytes()).map_err(|_| "the label is not UTF-8")?.parse().map(Some)
}

fn no_digest(text: &str) -> Response<Body> {
    error(StatusCode::BAD_REQUEST, format!("{text:?} is not a digest: 64 hexadecimal digits"))
}
