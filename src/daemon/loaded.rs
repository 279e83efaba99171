//! What the daemon has of one app.

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

use crate::engine::{Handle, Summary};
use crate::model::app::App;
use crate::model::colour::ByColour;
use crate::model::deployment::Notice;
use crate::routing::kernel::KernelRoute;

/// A loaded app.
pub(super) struct Loaded {
    pub(super) app: App,
    pub(super) handle: Handle,
    pub(super) route: KernelRoute,
    /// Passes on that something changed; ends with this.
    _watcher: JoinSet<()>,
}

impl Loaded {
    /// One whose changes are told to `changes`.
    pub(super) fn new(app: App, handle: Handle, route: KernelRoute, changes: watch::Sender<()>) -> Self {
        let mut watcher = JoinSet::new();
        watcher.spawn(pass_on(handle.notices(), handle.summary(), changes));
        Self { app, handle, route, _watcher: watcher }
    }

    /// Its configuration with the ports that it really has, also where dorc chose them.
    pub(super) fn with_ports(&self) -> App {
        let mut app = self.app.clone();
        app.service.ports = Some(self.ports());
        app
    }

    /// The ports of its services.
    pub(super) fn ports(&self) -> ByColour<u16> {
        self.handle.summary().borrow().ports
    }
}

async fn pass_on(
    mut notices: broadcast::Receiver<Notice>,
    mut summary: watch::Receiver<Summary>,
    changes: watch::Sender<()>,
) {
    loop {
        tokio::select! {
            notice = notices.recv() => if matches!(notice, Err(RecvError::Closed)) { return },
            changed = summary.changed() => if changed.is_err() { return },
        }
        changes.send_replace(());
    }
}
