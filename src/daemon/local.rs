//! The daemon of one folder: it runs the services itself, as child processes, and ends with them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Daemon, Places, Settings};
use crate::model::app::{AppName, ServiceId};
use crate::model::colour::Colour;
use crate::model::hooks::Hook;
use crate::services::embedded::Embedded;

/// A daemon of one folder that has taken its app files.
pub struct Local {
    daemon: Daemon<Embedded>,
    services: Arc<Embedded>,
}

impl Local {
    /// Starts in `dir`, an absolute path.
    ///
    /// # Errors
    /// Another daemon runs there, or the folder can't be written to.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let places = Places::local(dir);
        let services = Arc::new(embedded(&places));
        let daemon = Daemon::start(Settings { places, threads: 1 }, services.clone()).await?;
        Ok(Self { daemon, services })
    }

    /// What is loaded.
    #[must_use]
    pub fn registry(&self) -> Arc<super::Registry<Embedded>> {
        self.daemon.registry()
    }

    /// Serves until `end` is ready, then stops the services.
    ///
    /// # Errors
    /// The control socket broke.
    pub async fn run(self, end: impl Future<Output = ()>) -> anyhow::Result<()> {
        let result = self.daemon.run(end).await;
        self.services.shutdown().await;
        result
    }
}

/// Where the service of that colour, and those of its hooks that have been run, are logged by a daemon of these places.
#[must_use]
pub fn log_files(places: &Places, app: &AppName, colour: Colour) -> Vec<PathBuf> {
    let (embedded, id) = (embedded(places), ServiceId { app: app.clone(), colour });
    let hooks = Hook::ALL.map(|hook| embedded.hook_log_file(&id, hook));
    hooks.into_iter().filter(|log| log.exists()).chain([embedded.log_file(&id)]).collect()
}

fn embedded(places: &Places) -> Embedded {
    // Not the path: an update may replace the file while this runs.
    Embedded::new(PathBuf::from("/proc/self/exe"), places.state.join("services"))
}
