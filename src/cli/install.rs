//! `dorc install`, and the installation that the first command does by itself.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use super::{Context, fail, say};
use crate::control::api::{self, exit};
use crate::control::client::ClientError;
use crate::daemon::system;

/// The unit, as it is installed but for the program's path.
const UNIT: &str = include_str!("../../dist/etc/systemd/system/dorc.service");

/// Where the program is put if it is somewhere that only its user controls.
pub(super) const PROGRAM: &str = "/usr/local/bin/dorc";

/// The group whose members may use the control socket.
pub(super) const GROUP: &str = "dorc";

/// How long the daemon may take to answer after it was started.
const ANSWERS: Duration = Duration::from_secs(60);

pub(super) async fn run(context: &Context) -> anyhow::Result<ExitCode> {
    may_install(context)?;
    install(context).await?;
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that a daemon answers: installs and starts it if need be, and says what to run if it may not.
pub(super) async fn ensure_daemon(context: &Context) -> anyhow::Result<()> {
    if !context.hosts.is_empty() {
        // Another machine is asked, and says itself what is wrong.
        return Ok(());
    }
    match context.client.get::<api::Status>("/v1/apps").await {
        Ok(_) => Ok(()),
        Err(ClientError::NoDaemon(_)) => {
            may_install(context)?;
            install(context).await
        }
        Err(error) => Err(error.into()),
    }
}

/// Fails where no daemon answers and none can be installed.
pub(super) async fn check_daemon(context: &Context) -> anyhow::Result<()> {
    match context.client.get::<api::Status>("/v1/apps").await {
        Ok(_) => Ok(()),
        Err(ClientError::NoDaemon(_)) => may_install(context),
        Err(error) => Err(error.into()),
    }
}

/// Whether a daemon can be installed here by us.
fn may_install(context: &Context) -> anyhow::Result<()> {
    if let Some(dir) = &context.places.base {
        let dir = dir.display();
        return Err(fail(exit::NO_DAEMON, format!("no daemon runs in {dir}; start one there: dorc up")));
    }
    if !system::is_booted() {
        let why =
            "this host was not booted with systemd, which dorc's services need; without systemd: dorc up";
        return Err(fail(exit::NO_DAEMON, why));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(fail(exit::NOT_PERMITTED, "dorc.service does not run; as root: sudo dorc install"));
    }
    Ok(())
}

async fn install(context: &Context) -> anyhow::Result<()> {
    let program = place_program()?;
    make_group();
    let text = UNIT.replace(PROGRAM, &program.display().to_string());
    system::install(&text, &program).await?;
    let answers = async {
        while context.client.get::<api::Status>("/v1/apps").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(ANSWERS, answers).await.map_err(|_| {
        fail(exit::NO_DAEMON, "dorc.service was started but does not answer: journalctl -u dorc")
    })?;
    say::done("dorc.service installed and running", "");
    Ok(())
}

/// The path of a program that only root can change: ours if it is one, else a copy.
fn place_program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("where dorc is")?;
    if only_roots(&own) {
        return Ok(own);
    }
    let new = Path::new(PROGRAM).with_extension("new");
    fs::copy(&own, &new)
        .and_then(|_| fs::set_permissions(&new, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&new, PROGRAM))
        .with_context(|| format!("dorc could not be copied to {PROGRAM}"))?;
    say::done(&format!("copied to {PROGRAM}"), "");
    Ok(PROGRAM.into())
}

/// Whether a path, with all the folders above it, is in the system's tree and root's alone.
fn only_roots(path: &Path) -> bool {
    path.starts_with("/usr")
        && path
            .ancestors()
            .all(|part| fs::metadata(part).is_ok_and(|found| found.uid() == 0 && found.mode() & 0o022 == 0))
}

fn make_group() {
    let made = Command::new("groupadd")
        .args(["--force", "--system", GROUP])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        say::error("the group dorc could not be made, so only root can use dorc");
    }
}
