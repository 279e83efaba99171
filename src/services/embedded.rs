//! The embedded supervisor: services as child processes, for `dorc up` and `dorc demo`.
//!
//! Each service has a task here that restarts it, and each run of it a guard process (see `guard`) that ends it when
//! dorc is gone. What only systemd can do is not done here: other users, memory limits, sandboxes.

mod explain;
mod frames;
pub mod guard;
mod log;
mod proc;
mod settings;
mod supervise;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use super::{Exited, Finished, HOOK_LINES, Running, ServiceError, Services};
use crate::model::app::{AppName, Service, ServiceId};
use crate::model::health::Exit;
use crate::model::hooks::Hook;
use log::Mark;
use settings::Settings;
use supervise::{Request, Supervised};

/// How long a service has from SIGTERM, or from its stop command's start, until it is killed.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Why a program can't be made to reload by a signal.
const NO_SIGHUP: &str =
    "it has no handler for SIGHUP, which would end it: set service.reload, or deploy it again";

/// How many ends of services a slow reader may have before it.
const EXITS: usize = 64;

/// Services as child processes.
#[derive(Debug)]
pub struct Embedded {
    guard_program: PathBuf,
    dir: PathBuf,
    slots: Mutex<HashMap<ServiceId, Arc<Slot>>>,
    exits: broadcast::Sender<Exited>,
    relays: Mutex<JoinSet<()>>,
}

/// The place of one service.
#[derive(Debug, Default)]
struct Slot {
    /// Held while a service is started or stopped, so that two callers can't do it at once.
    turn: tokio::sync::Mutex<Option<Task>>,
    /// What runs there, as its task tells it.
    status: Arc<Mutex<Status>>,
}

/// What is known of a service.
#[derive(Debug, Default)]
struct Status {
    running: Option<Running>,
    guard_pid: Option<u32>,
    output_from: Option<Mark>,
}

/// The task that supervises a service.
#[derive(Debug)]
struct Task {
    requests: mpsc::Sender<Request>,
    handle: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        // The task's end of the guard's socket closes with it, and the guard does the rest.
        self.handle.abort();
    }
}

impl Embedded {
    /// Supervises with `guard_program` as the guards' program, which is dorc itself, and keeps logs and sockets in `dir`.
    #[must_use]
    pub fn new(guard_program: PathBuf, dir: PathBuf) -> Self {
        let slots = Mutex::default();
        Self { guard_program, dir, slots, exits: broadcast::Sender::new(EXITS), relays: Mutex::default() }
    }

    /// The log of a service; the one before it has `.1` appended.
    #[must_use]
    pub fn log_file(&self, id: &ServiceId) -> PathBuf {
        self.app_dir(&id.app).join(format!("{}.log", id.colour))
    }

    /// The log of a hook of a service, in the same way.
    #[must_use]
    pub fn hook_log_file(&self, id: &ServiceId, hook: Hook) -> PathBuf {
        self.app_dir(&id.app).join(format!("{}_{hook}.log", id.colour))
    }

    /// Stops all services, all at the same time.
    pub async fn shutdown(&self) {
        let slots: Vec<_> = lock(&self.slots).drain().map(|(_, slot)| slot).collect();
        let mut stops = JoinSet::new();
        for slot in slots {
            stops.spawn(async move { slot.stop().await });
        }
        while stops.join_next().await.is_some() {}
    }

    fn app_dir(&self, app: &AppName) -> PathBuf {
        self.dir.join(app.as_str())
    }

    fn slot(&self, id: &ServiceId) -> Option<Arc<Slot>> {
        lock(&self.slots).get(id).cloned()
    }
}

impl Task {
    async fn stop(&mut self) {
        // It may have ended already; then there is nobody to ask.
        let _ = self.requests.send(Request::Stop).await;
        let _ = (&mut self.handle).await;
    }
}

impl Slot {
    async fn stop(&self) {
        let mut turn = self.turn.lock().await;
        if let Some(task) = turn.as_mut() {
            task.stop().await;
        }
        *turn = None;
    }
}

impl Services for Embedded {
    async fn start(&self, service: &Service) -> Result<(), ServiceError> {
        let slot = Arc::clone(lock(&self.slots).entry(service.id.clone()).or_default());
        let settings = Settings::prepare(
            &self.guard_program,
            self.app_dir(&service.id.app),
            self.log_file(&service.id),
            service,
        );
        let settings = settings.await?;
        let mut turn = slot.turn.lock().await;
        if let Some(task) = turn.as_mut() {
            task.stop().await;
        }
        *turn = None;
        let log = self.log_file(&service.id);
        let mark = blocking(move || Mark::at_end(&log)).await;
        let mark = mark.map_err(|error| failure(format!("its log can't be written: {error}")))?;
        *lock(&slot.status) = Status { output_from: Some(mark), ..Status::default() };
        let (started, outcome) = oneshot::channel();
        let (requests, received) = mpsc::channel(8);
        let supervised = Supervised::new(settings, Arc::clone(&slot.status), self.exits.clone(), received);
        *turn = Some(Task { requests, handle: tokio::spawn(supervised.run(started)) });
        drop(turn);
        outcome.await.unwrap_or_else(|_| Err(failure("it was stopped while it was starting")))
    }

    async fn end(&self, id: &ServiceId) -> Result<(), ServiceError> {
        // Nothing of it comes up at boot in any case.
        self.stop(id).await
    }

    async fn stop(&self, id: &ServiceId) -> Result<(), ServiceError> {
        if let Some(slot) = self.slot(id) {
            slot.stop().await;
        }
        Ok(())
    }

    async fn remove(&self, id: &ServiceId) -> Result<(), ServiceError> {
        self.stop(id).await?;
        lock(&self.slots).remove(id);
        let hooks = Hook::ALL.map(|hook| self.hook_log_file(id, hook));
        let logs: Vec<PathBuf> = hooks.into_iter().chain([self.log_file(id)]).collect();
        let removed = blocking(move || logs.iter().try_for_each(|log| log::remove(log))).await;
        removed.map_err(|error| failure(format!("the log of {id} can't be removed: {error}")))
    }

    async fn reload(&self, service: &Service) -> Result<(), ServiceError> {
        let id = &service.id;
        let not_running = || ServiceError::Unsupported(format!("{id} does not run, so it can't be reloaded"));
        let slot = self.slot(id).ok_or_else(not_running)?;
        let (answer, answered) = oneshot::channel();
        let requests = slot.turn.lock().await.as_ref().map(|task| task.requests.clone());
        let requests = requests.ok_or_else(not_running)?;
        requests.send(Request::Reload(service.reload.clone(), answer)).await.map_err(|_| not_running())?;
        match answered.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(ServiceError::Unsupported(format!("{id} was not reloaded: {reason}"))),
            Err(_) => Err(not_running()),
        }
    }

    async fn run(&self, hook: Hook, service: &Service) -> Result<Finished, ServiceError> {
        let (dir, log) = (self.app_dir(&service.id.app), self.hook_log_file(&service.id, hook));
        let settings = Settings::prepare(&self.guard_program, dir, log.clone(), service).await?;
        let (path, told) = (log.clone(), format!("the log of the hook {hook}"));
        let mark = blocking(move || Mark::at_end(&path)).await;
        let mark = mark.map_err(|error| failure(format!("{told} can't be written: {error}")))?;
        let failure = supervise::run_to_its_end(settings).await;
        let lines = blocking(move || log::last_lines(&log, mark, HOOK_LINES)).await.unwrap_or_default();
        Ok(Finished { failure, lines })
    }

    async fn running(&self, id: &ServiceId) -> Result<Option<Running>, ServiceError> {
        Ok(self.slot(id).and_then(|slot| lock(&slot.status).running.clone()))
    }

    fn exits(&self, app: &AppName) -> mpsc::Receiver<Exited> {
        let (sender, receiver) = mpsc::channel(1);
        let mut relays = lock(&self.relays);
        while relays.try_join_next().is_some() {}
        relays.spawn(relay(self.exits.subscribe(), app.clone(), sender));
        receiver
    }

    async fn last_lines(&self, id: &ServiceId, count: usize) -> Vec<String> {
        let from = self.slot(id).and_then(|slot| lock(&slot.status).output_from);
        let (Some(from), log) = (from, self.log_file(id)) else { return Vec::new() };
        blocking(move || log::last_lines(&log, from, count)).await.unwrap_or_else(|error| {
            tracing::warn!("the log of {id} can't be read: {error}");
            Vec::new()
        })
    }

    async fn listening_ports(&self, id: &ServiceId) -> Vec<u16> {
        let Some(guard) = self.slot(id).and_then(|slot| lock(&slot.status).guard_pid) else {
            return Vec::new();
        };
        let ports = blocking(move || Ok(proc::listening_ports(&proc::descendants(guard)))).await;
        ports.unwrap_or_default()
    }

    async fn control_group(&self, _: &ServiceId) -> Option<PathBuf> {
        None
    }
}

/// Passes the ends of one app's services on; the oldest are lost where the reader is slow.
async fn relay(mut exits: broadcast::Receiver<Exited>, app: AppName, to: mpsc::Sender<Exited>) {
    loop {
        let exited = tokio::select! {
            exited = exits.recv() => exited,
            () = to.closed() => return,
        };
        match exited {
            Ok(exited) if exited.id.app == app => {
                if to.send(exited).await.is_err() {
                    return;
                }
            }
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn failure(how: impl Into<String>) -> ServiceError {
    ServiceError::Failed(Exit { how: how.into(), after: None })
}

/// A poisoned lock is used on: what it guards is replaced as a whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// File work, away from the runtime's own thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Whether a socket path is short enough for the kernel.
fn fits_socket_address(path: &Path) -> bool {
    path.as_os_str().len() < 108
}
