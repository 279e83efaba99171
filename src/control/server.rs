//! The server: one task a connection, no request waits for another.

mod gate;
mod logs;
mod metrics;
mod rights;
mod upload;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::api::{self, exit};
use super::{Apps, report};
use crate::engine::{Handle, LONGEST_PAUSE, Wish};
use crate::model::app::AppName;
use crate::model::deployment::{Outcome, Wait};
use crate::model::share::Share;
use rights::{Caller, Need, Refusals};

pub use metrics::serve_metrics;
pub use rights::GROUP;

/// The largest body of a request, in bytes.
const MAX_BODY: usize = 64 << 10;

/// The longest reason of a freeze, in bytes.
const MAX_REASON: usize = 200;

/// How long a connection may be without a whole request: one from another machine is used again after a wait.
const IDLE: Duration = Duration::from_secs(300);

/// How long the body of a request may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many lines may wait for a client that reads slowly.
const LINES: usize = 64;

/// How many history entries are sent unless more are asked for.
const HISTORY: usize = 100;

/// A watcher that is not told anything is told the state again after this long.
const WATCH_AGAIN: Duration = Duration::from_secs(30);

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Lines = mpsc::Sender<api::Event>;

/// What is bounded for all connections together.
struct Bounds {
    refusals: Refusals,
    log_readers: Arc<Semaphore>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { refusals: Refusals::default(), log_readers: Arc::new(Semaphore::new(logs::MOST)) }
    }
}

/// Serves the API until the future is dropped.
///
/// # Errors
/// The socket can't take connections any more.
pub async fn serve<A: Apps>(listener: UnixListener, apps: Arc<A>) -> io::Result<()> {
    let mut connections = tokio::task::JoinSet::new();
    let bounds = Arc::new(Bounds::default());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, apps.clone(), bounds.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a control connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection<A: Apps>(stream: UnixStream, apps: Arc<A>, bounds: Arc<Bounds>) {
    let credentials = stream.peer_cred().ok();
    let Ok(caller) = tokio::task::spawn_blocking(move || Caller::of(credentials)).await else { return };
    let caller = Arc::new(caller);
    let service = service_fn(move |request| {
        let (apps, caller, bounds) = (apps.clone(), caller.clone(), bounds.clone());
        async move { Ok::<_, Infallible>(gate::pass(request, apps, &caller, &bounds).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a control connection ended early");
    }
}

fn nothing() -> Response<Body> {
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

async fn route<A: Apps>(
    request: Request<Incoming>,
    apps: Arc<A>,
    caller: &Arc<Caller>,
    bounds: &Bounds,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let method = request.method().clone();
    let who = caller.name.clone();
    match (&method, segments.as_slice()) {
        (&Method::GET, ["v1", "apps"]) => status(apps.as_ref(), None, caller).await,
        (&Method::GET, ["v1", "apps", app]) => status(apps.as_ref(), Some(app), caller).await,
        (&Method::GET, ["v1", "apps", app, "releases"]) => releases(apps.as_ref(), app).await,
        (&Method::GET, ["v1", "apps", app, "history"]) => history(apps.as_ref(), app).await,
        (&Method::GET, ["v1", "apps", app, "changes"]) => changes(apps, Some(app), caller),
        (&Method::GET, ["v1", "apps", app, "logs"]) => {
            logs::read(&request, apps.as_ref(), app, &bounds.log_readers).await
        }
        (&Method::GET, ["v1", "metrics"]) => metrics::page(apps.as_ref(), caller).await,
        (&Method::GET, ["v1", "changes"]) => changes(apps, None, caller),
        (&Method::GET, ["v1", "apps", app, "uploads", digest]) => {
            upload::received(apps.as_ref(), app, digest).await
        }
        (&Method::POST, ["v1", "apps", app, "uploads", digest]) => {
            upload::receive(request, apps.as_ref(), app, digest, who).await
        }
        (&Method::POST, ["v1", "apps", app, verb]) => {
            let verb = (*verb).to_owned();
            match AppName::new(app) {
                Ok(app) => command(request, apps, app, verb, who).await,
                Err(why) => error(StatusCode::BAD_REQUEST, why),
            }
        }
        _ => error(StatusCode::NOT_FOUND, format!("there is no {method} {path}")),
    }
}

async fn status<A: Apps>(apps: &A, only: Option<&str>, caller: &Caller) -> Response<Body> {
    match (only, status_of(apps, only, caller).await) {
        (Some(only), api::Status { apps, broken, .. }) if apps.is_empty() && broken.is_empty() => {
            not_loaded(only)
        }
        (_, status) => json(&status),
    }
}

/// What the apps are like that the caller may see.
async fn status_of<A: Apps>(apps: &A, only: Option<&str>, caller: &Caller) -> api::Status {
    let mut handles = apps.handles();
    handles.retain(|handle| {
        only.is_none_or(|only| only == handle.name().as_str())
            && caller.may(Need::Deploy, handle.name().as_str(), &apps.deployers(handle.name()))
    });
    let found = join_all(handles.iter().map(async |handle| {
        let view = handle.view().await.ok()?;
        Some(report::status(&view, apps.plane(handle.name()).await))
    }));
    let found = found.await.into_iter().flatten().collect();
    let broken: Vec<_> = apps
        .broken()
        .into_iter()
        .filter(|(app, _)| caller.may_all() && only.is_none_or(|only| only == app))
        .map(|(app, problem)| api::Broken { app, problem })
        .collect();
    let no_kernel_plane = apps.kernel_plane().await.err();
    api::Status { version: env!("CARGO_PKG_VERSION").into(), no_kernel_plane, apps: found, broken }
}

fn loaded<A: Apps>(apps: &A, app: &str) -> Option<Handle> {
    AppName::new(app).ok().and_then(|app| apps.handle(&app))
}

fn not_loaded(app: &str) -> Response<Body> {
    error(StatusCode::NOT_FOUND, format!("{app} is not loaded; dorc status lists the apps that are"))
}

async fn releases<A: Apps>(apps: &A, app: &str) -> Response<Body> {
    let Some(handle) = loaded(apps, app) else { return not_loaded(app) };
    match handle.view().await {
        Ok(view) => {
            let all: Vec<_> =
                view.catalogue.releases.iter().map(|release| report::release(&view, release)).collect();
            json(&all)
        }
        Err(ended) => error(StatusCode::NOT_FOUND, ended.to_string()),
    }
}

async fn history<A: Apps>(apps: &A, app: &str) -> Response<Body> {
    let Ok(app) = AppName::new(app) else { return not_loaded(app) };
    let history = apps.history(&app);
    match tokio::task::spawn_blocking(move || history.read(HISTORY)).await {
        Ok(Ok(entries)) if entries.is_empty() && apps.handle(&app).is_none() => not_loaded(app.as_str()),
        Ok(Ok(entries)) => json(&entries),
        Ok(Err(why)) => error(StatusCode::INTERNAL_SERVER_ERROR, why.to_string()),
        Err(why) => error(StatusCode::INTERNAL_SERVER_ERROR, why.to_string()),
    }
}

/// The status, a line, now and each time that it changes.
fn changes<A: Apps>(apps: Arc<A>, only: Option<&str>, caller: &Arc<Caller>) -> Response<Body> {
    let (only, caller) = (only.map(str::to_owned), caller.clone());
    let watched = (apps.changes(), String::new());
    let frames = futures_util::stream::unfold(watched, move |(mut changes, mut last)| {
        let (apps, only, caller) = (apps.clone(), only.clone(), caller.clone());
        async move {
            loop {
                changes.mark_unchanged();
                let status = status_of(apps.as_ref(), only.as_deref(), &caller).await;
                let line = api::to_json(&status) + "\n";
                if line != last {
                    let frame = Frame::data(Bytes::from(line.clone()));
                    return Some((Ok::<_, Infallible>(frame), (changes, line)));
                }
                match tokio::time::timeout(WATCH_AGAIN, changes.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_ended)) => return None,
                    Err(_) => last.clear(),
                }
            }
        }
    });
    Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
}

async fn command<A: Apps>(
    request: Request<Incoming>,
    apps: Arc<A>,
    app: AppName,
    verb: String,
    who: String,
) -> Response<Body> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect();
    let body = match tokio::time::timeout(PATIENCE, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(why)) => return error(StatusCode::BAD_REQUEST, format!("the request's body: {why}")),
        Err(_) => return error(StatusCode::REQUEST_TIMEOUT, "the request's body did not come in time"),
    };
    let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
    let command = match parse(&verb, body) {
        Ok(command) => command,
        Err(why) => return error(StatusCode::BAD_REQUEST, why),
    };
    let (lines, response) = stream(|event: api::Event| api::to_json(&event));
    tokio::spawn(async move {
        let answer = run(command, apps.as_ref(), &app, who, &lines).await;
        // The client may have gone: what it asked for goes on.
        let _ = lines.send(api::Event::Answer(Box::new(answer))).await;
    });
    response
}

enum Command {
    Wish(Wish, Wait),
    Freeze(Option<String>),
    Pause(Option<Duration>),
    Reload,
    Load,
    Update,
    Remove(bool),
}

fn parse(verb: &str, body: &[u8]) -> Result<Command, String> {
    Ok(match verb {
        "switch" => {
            let api::Switch { to, if_active, canary, no_wait } = api::from_json(body)?;
            let canary = canary.map(|share| share_of(&share)).transpose()?;
            Command::Wish(Wish::Switch { to, if_active, canary }, wait(no_wait, Wait::Drained))
        }
        "rollback" => {
            let api::Rollback { to, if_active, no_wait } = api::from_json(body)?;
            Command::Wish(Wish::Rollback { to, if_active }, wait(no_wait, Wait::Drained))
        }
        "deploy" => {
            let api::Deploy { release, prepare, label, no_wait } = api::from_json(body)?;
            let label = label.map(|label| label.parse()).transpose()?;
            Command::Wish(Wish::Deploy { release, prepare, label }, wait(no_wait, Wait::Baked))
        }
        "freeze" => Command::Freeze(Some(reason(api::from_json::<api::Freeze>(body)?.reason)?)),
        "thaw" => Command::Freeze(None),
        "pause" => Command::Pause(Some(pause(api::from_json::<api::Pause>(body)?.millis)?)),
        "resume" => Command::Pause(None),
        "reload" => Command::Reload,
        "load" => Command::Load,
        "update" => Command::Update,
        "remove" => Command::Remove(api::from_json::<api::Remove>(body)?.purge),
        _ => return Err(format!("there is no command {verb:?}")),
    })
}

/// How far someone waits who may have said that he does not.
const fn wait(no_wait: bool, otherwise: Wait) -> Wait {
    if no_wait { Wait::Moved } else { otherwise }
}

/// The share of a canary; none: by the configured steps.
fn share_of(text: &str) -> Result<Option<Share>, String> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// Checks the reason of a freeze: others read it on their terminals.
fn reason(text: String) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("a freeze needs a reason, for whoever wants to deploy meanwhile".into());
    }
    if text.len() > MAX_REASON || text.chars().any(char::is_control) {
        return Err(format!("a reason has at most {MAX_REASON} bytes and is one line"));
    }
    Ok(text)
}

/// Checks how long new connections are to wait.
fn pause(millis: u64) -> Result<Duration, String> {
    let time = Duration::from_millis(millis);
    if time.is_zero() || time > LONGEST_PAUSE {
        let longest = humantime::format_duration(LONGEST_PAUSE);
        return Err(format!("a pause lasts for some time, and for {longest} at most"));
    }
    Ok(time)
}

async fn run<A: Apps>(command: Command, apps: &A, app: &AppName, who: String, lines: &Lines) -> api::Answer {
    let plain = |result: Result<String, String>| {
        let (exit, message) = match result {
            Ok(message) => (exit::DONE, message),
            Err(message) => (exit::FAILED, message),
        };
        api::Answer { exit, app: app.to_string(), message: format!("{app}: {message}"), ..Default::default() }
    };
    let loaded = || apps.handle(app).ok_or_else(|| format!("it is not loaded; first: dorc load {app}"));
    match command {
        Command::Load => plain(apps.load(app, &who).await),
        Command::Update => plain(apps.update(app, &who).await),
        Command::Remove(purge) => plain(apps.remove(app, purge, &who).await),
        Command::Reload => match loaded() {
            Ok(handle) => plain(handle.reload(who).await.unwrap_or_else(|ended| Err(ended.to_string()))),
            Err(why) => plain(Err(why)),
        },
        Command::Freeze(why) => match loaded() {
            Ok(handle) => plain(handle.freeze(why, who).await.unwrap_or_else(|ended| Err(ended.to_string()))),
            Err(why) => plain(Err(why)),
        },
        Command::Pause(time) => match loaded() {
            Ok(handle) => plain(handle.pause(time, who).await.unwrap_or_else(|ended| Err(ended.to_string()))),
            Err(why) => plain(Err(why)),
        },
        Command::Wish(wish, wait) => match loaded() {
            Ok(handle) => match follow(&handle, wish, who, wait, lines).await {
                Some(outcome) => labelled(report::answer(app, outcome), &handle).await,
                None => plain(Err("it was removed meanwhile".into())),
            },
            Err(why) => plain(Err(why)),
        },
    }
}

/// An answer that also says what the user calls the release that it names.
async fn labelled(answer: api::Answer, handle: &Handle) -> api::Answer {
    match handle.view().await {
        Ok(view) if answer.release.is_some() => report::labelled(answer, &view),
        _ => answer,
    }
}

/// Asks, and passes on what happens until the answer is there.
async fn follow(handle: &Handle, wish: Wish, who: String, wait: Wait, lines: &Lines) -> Option<Outcome> {
    let mut notices = handle.notices();
    let mut answer: oneshot::Receiver<Outcome> = handle.wish(wish, who, wait).await.ok()?;
    loop {
        tokio::select! {
            biased;
            notice = notices.recv() => if let Ok(notice) = notice {
                // A client that does not read must not hold anything up.
                let _ = lines.try_send(report::event(notice));
            },
            outcome = &mut answer => return outcome.ok(),
            // Nobody listens any more; by the end of `answer` the engine sees that.
            () = lines.closed() => return None,
        }
    }
}

fn json<T: api::Document>(value: &T) -> Response<Body> {
    respond(StatusCode::OK, api::to_json(value))
}

fn error(status: StatusCode, why: impl Into<String>) -> Response<Body> {
    respond(status, api::to_json(&api::Error { error: why.into() }))
}

fn respond(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text + "\n")).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// A response whose lines are sent as they come.
fn stream<T: Send + 'static>(
    line: impl Fn(T) -> String + Send + Sync + 'static,
) -> (mpsc::Sender<T>, Response<Body>) {
    let (sender, mut receiver) = mpsc::channel::<T>(LINES);
    let frames = futures_util::stream::poll_fn(move |context| {
        receiver
            .poll_recv(context)
            .map(|item| item.map(|item| Ok::<_, Infallible>(Frame::data(Bytes::from(line(item) + "\n")))))
    });
    (sender, Response::new(BodyExt::boxed_unsync(StreamBody::new(frames))))
}
