//! What runs services: the seam that systemd and the embedded supervisor share.

pub mod embedded;
pub mod systemd;
pub mod unit;

use std::future::Future;
use std::path::PathBuf;

use tokio::sync::mpsc;

use crate::model::app::{Service, ServiceId};
use crate::model::health::Exit;
use crate::model::hooks::Hook;
use crate::model::release::ReleaseId;

/// A service that is up, or that its supervisor is about to start again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The release that it runs; `None` where the supervisor can't tell.
    pub release: Option<ReleaseId>,
    /// Its main process; `None` while it is being started again.
    pub main_pid: Option<u32>,
    /// How often its supervisor started it again since it was last asked to start it.
    pub restarts: u32,
}

/// A service ended without having been told to; its supervisor starts it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exited {
    /// Which.
    pub id: ServiceId,
    /// How.
    pub exit: Exit,
}

/// How many of the last lines of a hook are told.
const HOOK_LINES: usize = 10;

/// How a hook ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// `None`: with success.
    pub failure: Option<Exit>,
    /// The last lines that it wrote, oldest first.
    pub lines: Vec<String>,
}

/// A supervisor did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The service could not be started, or ended while it was being started.
    #[error("{0}")]
    Failed(Exit),
    /// The supervisor does not answer, or answered with an error of its own.
    #[error("{supervisor}: {message}")]
    Supervisor {
        /// `systemd` or `the embedded supervisor`.
        supervisor: &'static str,
        /// What it said, and what to do.
        message: String,
    },
    /// What was asked can't be done for this service.
    #[error("{0}")]
    Unsupported(String),
}

/// What runs services.
pub trait Services: Send + Sync + 'static {
    /// Stops what runs as that service, if anything, and starts `service`; it also comes up at boot
    /// from now on. Returns when its process has been started (with `notify`: when it says that it is ready).
    fn start(&self, service: &Service) -> impl Future<Output = Result<(), ServiceError>> + Send;

    /// Ends what runs as that service, for something to be started in its place: whether it comes up at boot stays as it is.
    fn end(&self, id: &ServiceId) -> impl Future<Output = Result<(), ServiceError>> + Send;

    /// Stops the service, and it stays stopped after a boot; one that does not run is no error.
    fn stop(&self, id: &ServiceId) -> impl Future<Output = Result<(), ServiceError>> + Send;

    /// Stops the service and forgets all that `start` left behind.
    fn remove(&self, id: &ServiceId) -> impl Future<Output = Result<(), ServiceError>> + Send;

    /// Runs the service's reload command, or sends SIGHUP where the program handles it.
    fn reload(&self, service: &Service) -> impl Future<Output = Result<(), ServiceError>> + Send;

    /// Runs a hook beside the service, with its user, sandbox and environment: `service` with the hook's command as
    /// `start`. Returns when it has ended; what takes longer than `start_timeout` is ended.
    fn run(
        &self,
        hook: Hook,
        service: &Service,
    ) -> impl Future<Output = Result<Finished, ServiceError>> + Send;

    /// What runs as that service.
    fn running(&self, id: &ServiceId) -> impl Future<Output = Result<Option<Running>, ServiceError>> + Send;

    /// The ends of the services of one app from now on. A slow reader loses the oldest.
    fn exits(&self, app: &crate::model::app::AppName) -> mpsc::Receiver<Exited>;

    /// The last `count` lines that the service wrote since its last start, oldest first.
    fn last_lines(&self, id: &ServiceId, count: usize) -> impl Future<Output = Vec<String>> + Send;

    /// The TCP ports that the service's processes listen on, for the reason of a failure.
    fn listening_ports(&self, id: &ServiceId) -> impl Future<Output = Vec<u16>> + Send;

    /// The folder of the control group that holds the processes of the service and nothing else; `None`: it does not
    /// run, or its supervisor gives it none of its own.
    fn control_group(&self, id: &ServiceId) -> impl Future<Output = Option<PathBuf>> + Send;
}
