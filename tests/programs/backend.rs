//! A backend for tests: HTTP/1.1 with keep-alive on `127.0.0.1:$PORT`.
//!
//! It answers `/` with the content of the file `version` beside it, and does what the file `behaviour` beside it
//! says, one word a line: `ok`, `exit 3`, `unhealthy`, `wrong-port`, `hang`, `crash-after 2s`, `slow-start 2s`,
//! `hang-after 2s`, `unhealthy-after 2s`, `ignore-term`, `dual-stack` (it listens on `[::]`). Other paths: `/healthz`, `/slow?ms=200`, `/peer`, `/pid`, `/env?NAME`, `/reloads`.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use std::{env, fs, io};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

/// What this run of the program is to do.
#[derive(Debug, Default)]
struct Behaviour {
    version: String,
    exit: Option<u8>,
    unhealthy: bool,
    wrong_port: bool,
    hang: bool,
    crash_after: Option<Duration>,
    hang_after: Option<Duration>,
    unhealthy_after: Option<Duration>,
    slow_start: Duration,
    ignore_term: bool,
    dual_stack: bool,
}

impl Behaviour {
    fn read(folder: &Path) -> io::Result<Behaviour> {
        let version = fs::read_to_string(folder.join("version"))?;
        let mut behaviour = Behaviour { version: version.trim().to_owned(), ..Behaviour::default() };
        for line in fs::read_to_string(folder.join("behaviour")).unwrap_or_default().lines() {
            behaviour.add(line).map_err(|()| io::Error::other(format!("unknown behaviour: {line}")))?;
        }
        Ok(behaviour)
    }

    fn add(&mut self, line: &str) -> Result<(), ()> {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [] | ["ok"] => {}
            ["exit", status] => self.exit = Some(status.parse().map_err(drop)?),
            ["unhealthy"] => self.unhealthy = true,
            ["wrong-port"] => self.wrong_port = true,
            ["hang"] => self.hang = true,
            ["crash-after", time] => self.crash_after = Some(humantime::parse_duration(time).map_err(drop)?),
            ["hang-after", time] => self.hang_after = Some(humantime::parse_duration(time).map_err(drop)?),
            ["unhealthy-after", time] => {
                self.unhealthy_after = Some(humantime::parse_duration(time).map_err(drop)?);
            }
            ["slow-start", time] => self.slow_start = humantime::parse_duration(time).map_err(drop)?,
            ["ignore-term"] => self.ignore_term = true,
            ["dual-stack"] => self.dual_stack = true,
            _ => return Err(()),
        }
        Ok(())
    }
}

/// What all connections share.
struct Backend {
    behaviour: Behaviour,
    reloads: AtomicU32,
    is_hanging: AtomicBool,
    is_ill: AtomicBool,
}

impl Backend {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> (StatusCode, String) {
        let query = request.uri().query().unwrap_or_default();
        let body = match request.uri().path() {
            "/" => self.behaviour.version.clone(),
            "/healthz" if self.is_ill.load(Ordering::Relaxed) => {
                return (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer".to_owned());
            }
            "/healthz" => "ok".to_owned(),
            "/slow" => {
                let milliseconds = query.strip_prefix("ms=").and_then(|ms| ms.parse().ok()).unwrap_or(1000);
                sleep(Duration::from_millis(milliseconds)).await;
                self.behaviour.version.clone()
            }
            "/peer" => peer.to_string(),
            "/pid" => std::process::id().to_string(),
            "/env" => env::var(query).unwrap_or_default(),
            "/reloads" => self.reloads.load(Ordering::Relaxed).to_string(),
            _ => return (StatusCode::NOT_FOUND, "no such path".to_owned()),
        };
        (StatusCode::OK, body)
    }

    /// Serves one connection; when `stop` says so, after the response that is on its way.
    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, mut stop: watch::Receiver<bool>) {
        let service = service_fn(|request| async {
            if self.is_hanging.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            let (status, body) = self.answer(request, peer).await;
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        });
        let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        let ended_by_the_client = tokio::select! {
            _ended = connection.as_mut() => true,
            _told = stop.wait_for(|stop| *stop) => false,
        };
        if !ended_by_the_client {
            connection.as_mut().graceful_shutdown();
            let _the_client_may_be_gone = connection.await;
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            say(&format!("backend: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> io::Result<u8> {
    let program = env::current_exe()?;
    let behaviour = Behaviour::read(program.parent().unwrap_or(Path::new("/")))?;
    if let Some(status) = behaviour.exit {
        say("DATABASE_URL must be set");
        return Ok(status);
    }
    // Before it listens: who sees it listening may send it a signal.
    let (terminate, hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    sleep(behaviour.slow_start).await;
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok());
    let port: u16 = port.ok_or_else(|| io::Error::other("$PORT must be a port"))?;
    let port = if behaviour.wrong_port { 0 } else { port };
    let address =
        if behaviour.dual_stack { Ipv6Addr::UNSPECIFIED.into() } else { IpAddr::from(Ipv4Addr::LOCALHOST) };
    let listener = TcpListener::bind((address, port)).await?;
    say(&format!("version {} listens on {}", behaviour.version, listener.local_addr()?));
    let backend = Backend {
        reloads: AtomicU32::new(0),
        is_hanging: behaviour.hang.into(),
        is_ill: behaviour.unhealthy.into(),
        behaviour,
    };
    Ok(serve(Arc::new(backend), listener, terminate, hangup).await)
}

async fn serve(
    backend: Arc<Backend>,
    listener: TcpListener,
    mut terminate: Signal,
    mut hangup: Signal,
) -> u8 {
    let mut connections = tokio::task::JoinSet::new();
    let (stop, stopped) = watch::channel(false);
    let crash = sleep(backend.behaviour.crash_after.unwrap_or(Duration::MAX));
    let mut crash = pin!(crash);
    let mut turn = pin!(turn(&backend));
    let mut has_turned = false;
    loop {
        tokio::select! {
            Ok((stream, peer)) = listener.accept() => {
                connections.spawn(Arc::clone(&backend).serve(stream, peer, stopped.clone()));
            }
            Some(_ended) = connections.join_next() => {}
            () = turn.as_mut(), if !has_turned => has_turned = true,
            () = crash.as_mut() => {
                say("thread 'main' panicked: the end of the list is reached");
                return 101;
            }
            Some(()) = hangup.recv() => {
                backend.reloads.fetch_add(1, Ordering::Relaxed);
                say("reloaded");
            }
            Some(()) = terminate.recv(), if !backend.behaviour.ignore_term => break,
        }
    }
    drop(listener);
    stop.send_replace(true);
    while connections.join_next().await.is_some() {}
    say("stopped");
    0
}

/// Some programs are well at first.
async fn turn(backend: &Backend) {
    let Behaviour { hang_after, unhealthy_after, .. } = backend.behaviour;
    let Some(after) = hang_after.or(unhealthy_after) else { return std::future::pending().await };
    sleep(after).await;
    backend.is_hanging.store(hang_after.is_some(), Ordering::Relaxed);
    backend.is_ill.store(unhealthy_after.is_some(), Ordering::Relaxed);
    say("something is wrong from now on");
}

#[expect(clippy::print_stderr, reason = "a service's log is its standard error")]
fn say(line: &str) {
    eprintln!("{line}");
}
