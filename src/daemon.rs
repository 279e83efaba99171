//! The daemon: the only place that wires.

mod admit;
mod descriptors;
mod files;
mod loaded;
pub mod local;
mod logs;
mod places;
mod planes;
mod registry;
pub mod system;
mod teller;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use sd_notify::NotifyState;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{self, DaemonConfig};
use crate::control::{self, Apps};
use crate::engine::Handle;
use crate::routing::tcp::Plane;
use crate::services::Services;

use planes::Planes;

pub use places::Places;
pub use registry::Registry;

/// How long connections get to come to an end before the daemon does.
const FINISH: Duration = Duration::from_secs(10);

/// How many apps the one-line status names: it is a line, and systemd ignores one of more than 4096 bytes.
const STATUS_APPS: usize = 10;

/// How the daemon is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where its files are.
    pub places: Places,
    /// How many threads move bytes.
    pub threads: usize,
}

/// A daemon that is being run in this process.
pub struct Daemon<S: Services> {
    registry: Arc<Registry<S>>,
    listener: UnixListener,
    metrics: Option<TcpListener>,
}

impl<S: Services> Daemon<S> {
    /// Takes the control socket, then all app files. From then on connections are accepted.
    ///
    /// # Errors
    /// Another daemon runs on the same places, or they can't be written to.
    pub async fn start(settings: Settings, services: Arc<S>) -> anyhow::Result<Self> {
        let Settings { places, threads } = settings;
        places.create()?;
        let listener = take_socket(&places.socket).await?;
        places.hand_to_group()?;
        let plane = Plane::start(threads).context("the data plane could not be started")?;
        let planes = Planes::new(plane, places.pins.clone());
        let config = read_config(&places);
        let metrics = match config.metrics {
            Some(address) => listen_for_metrics(address).await,
            None => None,
        };
        let registry = Arc::new(Registry::new(places, planes, services, descriptors::adopt(), config.events));
        registry.load_all().await;
        Ok(Self { registry, listener, metrics })
    }

    /// What is loaded, for those who run in the same process.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry<S>> {
        self.registry.clone()
    }

    /// Serves until `end` is ready, then lets connections finish. Services go on.
    ///
    /// # Errors
    /// The control socket broke.
    pub async fn run(self, end: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { registry, listener, metrics } = self;
        notify(&[NotifyState::Ready]);
        tokio::select! {
            served = control::server::serve(listener, registry.clone()) => served?,
            served = answer_metrics(metrics, &registry) => served?,
            () = keep_status(&registry) => {}
            () = feed_watchdog() => {}
            () = registry.load_missing() => {}
            () = end => {}
        }
        notify(&[NotifyState::Stopping, NotifyState::Status("connections are coming to their end")]);
        registry.end(FINISH).await;
        // The next daemon takes its place in any case.
        let _ = std::fs::remove_file(&registry.places().socket);
        Ok(())
    }
}

/// The daemon's own file; one that is wrong is as good as none, and apps go on.
fn read_config(places: &Places) -> DaemonConfig {
    config::load_daemon(&places.config).unwrap_or_else(|problems| {
        for problem in problems {
            tracing::error!("{problem}");
        }
        DaemonConfig::default()
    })
}

async fn listen_for_metrics(address: SocketAddr) -> Option<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::error!(%address, %error, "metrics can't be had there");
            None
        }
    }
}

async fn answer_metrics<S: Services>(
    listener: Option<TcpListener>,
    registry: &Arc<Registry<S>>,
) -> io::Result<()> {
    match listener {
        Some(listener) => control::server::serve_metrics(listener, registry.clone()).await,
        None => std::future::pending().await,
    }
}

/// Ready when SIGTERM or SIGINT came.
///
/// # Errors
/// Signals can't be received.
pub fn told_to_end() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Listens on the control socket; what a dead daemon left there is replaced, a living one is not.
async fn take_socket(path: &Path) -> anyhow::Result<UnixListener> {
    if UnixStream::connect(path).await.is_ok() {
        bail!("another dorc daemon answers on {}; there can be only one", path.display());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("{} could not be replaced", path.display()));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("{} could not be made", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Keeps systemd's one-line status true.
async fn keep_status<S: Services>(registry: &Registry<S>) {
    let mut last = None;
    loop {
        let changed = registry.changed();
        let status = status_line(registry);
        if last.as_ref() != Some(&status) {
            notify(&[NotifyState::Status(&status)]);
            last = Some(status);
        }
        changed.await;
    }
}

fn status_line<S: Services>(registry: &Registry<S>) -> String {
    let handles = registry.handles();
    let mut parts: Vec<String> = handles.iter().take(STATUS_APPS).map(status_of).collect();
    if handles.len() > STATUS_APPS {
        parts.push(format!("and {} more", handles.len() - STATUS_APPS));
    }
    let broken = registry.broken().len();
    if broken > 0 {
        parts.push(format!("{broken} app files could not be taken, see dorc status"));
    }
    if parts.is_empty() { "no apps yet: dorc register".into() } else { parts.join(", ") }
}

fn status_of(handle: &Handle) -> String {
    match handle.summary().borrow().active {
        Some(live) => format!("{} → {} {}", handle.name(), live.colour, live.release),
        None => format!("{} waits for its first release", handle.name()),
    }
}

async fn feed_watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut timer = tokio::time::interval(limit / 2);
    loop {
        timer.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
