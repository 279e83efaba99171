//! The backend of `dorc demo`: a real HTTP server, as small as it can be, that can also misbehave.
//!
//! Its folder has a file `version`, which is what it answers, and may have a file `behaviour`: `ok`, `exit N`,
//! `unhealthy` (or `sick`), `wrong-port`, `hang`.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long requests get after a SIGTERM.
const GRACE: Duration = Duration::from_secs(9);

/// For so long a connection goes on after a SIGTERM before it takes no more requests: one that has arrived counts, also where
/// nobody has read it yet.
const MOMENT: Duration = Duration::from_millis(20);

/// The longest that `/slow` may take.
const SLOWEST: Duration = Duration::from_secs(60);

struct Backend {
    dir: PathBuf,
    version: Bytes,
}

/// `dorc demo-backend PORT`, in its folder.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let served = || {
        let port = arguments.into_iter().next().and_then(|port| port.to_str()?.parse().ok());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(run(port.context("which port?")?, &std::env::current_dir()?))
    };
    served().unwrap_or_else(|error: anyhow::Error| {
        say(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

/// Serves on that port of 127.0.0.1 what the folder says, until SIGTERM; requests under way are finished.
///
/// # Errors
/// The port can't be had.
pub async fn run(port: u16, dir: &Path) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let version = fs::read_to_string(dir.join("version")).unwrap_or_else(|_| "unknown".into());
    let behaviour = behaviour(dir);
    if let Some(status) = behaviour.strip_prefix("exit ") {
        say("DATABASE_URL must be set");
        return Ok(ExitCode::from(status.parse().unwrap_or(1)));
    }
    let port = if behaviour == "wrong-port" { 0 } else { port };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    say(&format!("version {} listens on {}", version.trim(), listener.local_addr()?));
    let version = format!("{}\n", version.trim()).into();
    let backend = Arc::new(Backend { dir: dir.to_owned(), version });
    let (ending, end) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(Arc::clone(&backend), stream, end.clone()))),
                // No descriptor left, most likely: a connection that ends gives one back.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
            _ = terminate.recv() => break,
        }
    }
    // What the kernel has taken on for this listener would be reset with it.
    while let Some(Ok((stream, _))) = listener.accept().now_or_never() {
        connections.spawn(serve(Arc::clone(&backend), stream, end.clone()));
    }
    drop(listener);
    // Without connections there is nobody to be told.
    let _ = ending.send(true);
    let finished = async { while connections.join_next().await.is_some() {} };
    // Those that take longer are cut: the supervisor would do it a moment later.
    let _ = timeout(GRACE, finished).await;
    Ok(ExitCode::SUCCESS)
}

/// Its output is a service's log.
fn say(line: &str) {
    // A log that can't be written is no reason not to serve.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn behaviour(dir: &Path) -> String {
    fs::read_to_string(dir.join("behaviour")).unwrap_or_default().trim().to_owned()
}

async fn serve(backend: Arc<Backend>, stream: TcpStream, mut end: watch::Receiver<bool>) {
    let answer = service_fn(|request| answer(Arc::clone(&backend), request));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    // A connection that ends with an error is the client's affair.
    tokio::select! {
        _ = &mut connection => return,
        _ = end.wait_for(|end| *end) => {}
    }
    if timeout(MOMENT, &mut connection).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

async fn answer(
    backend: Arc<Backend>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let behaviour = behaviour(&backend.dir);
    if behaviour == "hang" {
        std::future::pending::<()>().await;
    }
    let (status, body) = match request.uri().path() {
        "/" => (StatusCode::OK, backend.version.clone()),
        "/healthz" if matches!(behaviour.as_str(), "sick" | "unhealthy") => {
            (StatusCode::SERVICE_UNAVAILABLE, "no database\n".into())
        }
        "/healthz" => (StatusCode::OK, "ok\n".into()),
        "/slow" => {
            tokio::time::sleep(slowness(request.uri().query())).await;
            (StatusCode::OK, backend.version.clone())
        }
        _ => (StatusCode::NOT_FOUND, "nothing here\n".into()),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    Ok(response)
}

fn slowness(query: Option<&str>) -> Duration {
    let text = query.and_then(|query| query.strip_prefix("ms=")).unwrap_or("1000");
    text.parse().map_or(SLOWEST, |ms| SLOWEST.min(Duration::from_millis(ms)))
}
