//! The metrics, over the control socket and over TCP.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::rights::Caller;
use super::{Body, error, status_of};
use crate::control::{Apps, metrics};

/// So many are answered at a time over TCP; others wait to be accepted.
const MOST: usize = 8;

/// How long a connection over TCP may be without a whole request.
const IDLE: Duration = Duration::from_secs(60);

/// What is measured of the apps that the caller may see.
pub(super) async fn page<A: Apps>(apps: &A, caller: &Caller) -> Response<Body> {
    let status = status_of(apps, None, caller).await;
    let text = metrics::render(&status, apps.counts());
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::MEDIA_TYPE));
    response
}

/// Answers `GET /metrics`, of all apps and whoever asks, until the future is dropped.
///
/// # Errors
/// The socket can't take connections any more.
pub async fn serve_metrics<A: Apps>(listener: TcpListener, apps: Arc<A>) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(MOST));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // It is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let apps = apps.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let apps = apps.clone();
                async move { Ok::<_, std::convert::Infallible>(answer(&request, apps.as_ref()).await) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(IDLE);
            // Whoever asked may have gone.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        });
    }
}

async fn answer<A: Apps>(request: &Request<Incoming>, apps: &A) -> Response<Body> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => page(apps, &Caller::of_metrics()).await,
        _ => error(StatusCode::NOT_FOUND, "there is only GET /metrics"),
    }
}
