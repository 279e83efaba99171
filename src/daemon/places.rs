//! Where dorc's files are.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::admit;

use crate::accounts;
use crate::control::server::GROUP;
use crate::engine;
use crate::model::app::AppName;
use crate::state::StateDir;

/// Where dorc's files are.
#[derive(Debug, Clone)]
pub struct Places {
    /// The folder of app files.
    pub apps: PathBuf,
    /// The daemon's own file, which need not be there.
    pub config: PathBuf,
    /// What survives a restart.
    pub state: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Where the kernel plane pins what outlives the daemon; `None`: there is only the tcp plane.
    pub pins: Option<PathBuf>,
    /// What relative paths in app files are taken from; `None`: they are problems.
    pub base: Option<PathBuf>,
}

impl Places {
    /// The places of the system's daemon.
    #[must_use]
    pub fn system() -> Self {
        Self {
            apps: "/etc/dorc/apps".into(),
            config: "/etc/dorc/dorc.toml".into(),
            state: "/var/lib/dorc".into(),
            socket: "/run/dorc/dorc.sock".into(),
            pins: Some("/run/dorc/bpf".into()),
            base: None,
        }
    }

    /// The places of `dorc up`: the app files are in `dir`, everything else is below `.dorc` in it.
    #[must_use]
    pub fn local(dir: &Path) -> Self {
        let own = dir.join(".dorc");
        Self {
            apps: dir.to_owned(),
            config: own.join("dorc.toml"),
            socket: own.join("dorc.sock"),
            pins: None,
            state: own,
            base: Some(dir.to_owned()),
        }
    }

    /// The app file of an app.
    #[must_use]
    pub fn app_file(&self, app: &AppName) -> PathBuf {
        self.apps.join(format!("{app}.toml"))
    }

    /// The copy of the last app file that was right, for when the file no longer is.
    #[must_use]
    pub fn last_good_file(&self, app: &AppName) -> PathBuf {
        engine::app_dir(&self.state, app).join("app.toml")
    }

    /// The state folder of an app.
    #[must_use]
    pub fn state_dir(&self, app: &AppName) -> StateDir {
        StateDir::new(engine::app_dir(&self.state, app))
    }

    /// Makes the folders that are missing.
    pub(super) fn create(&self) -> anyhow::Result<()> {
        let socket_dir = self.socket.parent().map(Path::to_owned).unwrap_or_default();
        for (dir, mode) in [(&self.apps, 0o755), (&self.state, 0o711), (&socket_dir, 0o755)] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(dir)
                .with_context(|| format!("{} could not be made", dir.display()))?;
        }
        Ok(())
    }

    /// Lets the group dorc use the control socket, where there is such a group.
    pub(super) fn hand_to_group(&self) -> anyhow::Result<()> {
        if !rustix::process::geteuid().is_root() || self.base.is_some() {
            return Ok(());
        }
        let chowned: io::Result<()> = chown(&self.socket, None, accounts::group_id(GROUP));
        chowned.context("the control socket could not be handed to the group dorc")
    }

    /// Lets these users connect to the control socket, besides root and the group dorc; what they may do is decided there.
    pub(super) fn admit(&self, users: &BTreeSet<u32>) {
        if !rustix::process::geteuid().is_root() || self.base.is_some() {
            return;
        }
        if let Err(error) = admit::admit(&self.socket, users) {
            tracing::error!(%error, "deployers can't be let through to the control socket: add them to the group dorc, or mount /run with acl");
        }
    }
}
