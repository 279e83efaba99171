//! The kernel plane: a BPF program gives each client that arrives to the active service's own socket.
//!
//! ```text
//! client ─→ program ─→ the service's socket                      nothing of dorc's is in the path
//!              └ none ─→ dorc's own socket ─→ tcp plane ─→ service   and the socket is looked for
//! ```
//! A [`KernelRoute`] is a route of the tcp plane with a shortcut: all that the shortcut can't do, the tcp plane does.

mod bpf;
mod connections;
mod listeners;
mod program;
mod route;
pub mod sock_diag;
mod steering;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::steering::{Steering, Unavailable};
use crate::model::app::AppName;

pub use route::{ControlGroup, KernelRoute, Traffic};

/// What all apps of a daemon share.
#[derive(Debug)]
pub struct Kernel {
    folder: Result<PathBuf, String>,
    /// Open while an app uses it.
    steering: Mutex<Option<Arc<Steering>>>,
}

impl Kernel {
    /// The kernel plane that is pinned in a bpffs on this folder.
    #[must_use]
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder: Ok(folder), steering: Mutex::new(None) }
    }

    /// None, for this reason.
    #[must_use]
    pub const fn none(reason: String) -> Self {
        Self { folder: Err(reason), steering: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Steering>>> {
        // It is exchanged as a whole.
        self.steering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this host can have it; nothing is changed.
    ///
    /// # Errors
    /// The reason why not, as a sentence.
    pub fn try_out(&self) -> Result<(), String> {
        self.folder.as_ref().map_err(Clone::clone)?;
        if self.lock().is_some() {
            return Ok(());
        }
        Steering::try_out().map_err(|reason| reason.to_string())
    }

    fn open(&self) -> Result<Arc<Steering>, String> {
        let folder = self.folder.as_ref().map_err(Clone::clone)?;
        let mut open = self.lock();
        if let Some(steering) = &*open {
            return Ok(Arc::clone(steering));
        }
        let steering = Steering::open(folder).map(Arc::new).map_err(|reason| match reason {
            Unavailable::Host(reason) => reason,
            Unavailable::Stale(..) => {
                format!("{reason}; it is taken off, and the next dorc update takes the plane")
            }
        })?;
        *open = Some(Arc::clone(&steering));
        Ok(steering)
    }

    fn forget(&self, name: &AppName) -> io::Result<()> {
        let mut open = self.lock();
        let Some(steering) = &*open else { return Ok(()) };
        steering.forget(name)?;
        match &self.folder {
            Ok(folder) if steering.names().is_empty() => {
                *open = None;
                Steering::take_down(folder)
            }
            _ => Ok(()),
        }
    }

    /// Ends what an earlier daemon left for others than these apps, or left in a way that this version can't take over. To be
    /// called when all apps listen by themselves.
    pub fn clean_up(&self, apps: &[AppName]) {
        let Ok(folder) = &self.folder else { return };
        if !Steering::is_pinned(folder) {
            return;
        }
        let result = match self.open() {
            Ok(steering) => {
                let names = steering.names().into_iter().filter_map(|name| AppName::new(&name).ok());
                names.filter(|name| !apps.contains(name)).try_for_each(|name| self.forget(&name))
            }
            Err(_) => Steering::take_down(folder),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "what an earlier dorc pinned could not be cleaned up");
        }
    }

    /// Takes it off the host, with its pins and its mount.
    ///
    /// # Errors
    /// It can't be deleted.
    pub fn take_down(folder: &Path) -> io::Result<()> {
        if folder.exists() {
            Steering::take_down(folder)?;
            steering::unmount(folder)?;
        }
        Ok(())
    }
}
