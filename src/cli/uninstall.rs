//! `dorc uninstall`

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use clap::Args;

use super::{Context, fail, install, say};
use crate::control::api::{self, exit};
use crate::control::client::ClientError;
use crate::daemon::system;
use crate::model::app::AppName;

/// Options of `dorc uninstall`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Remove the apps too, with their services, releases and what they stored in $STATE_DIRECTORY
    #[arg(long)]
    purge: bool,
}

pub(super) async fn run(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    if context.is_local() {
        return Err(fail(exit::USAGE, "dorc up installs nothing: end it, and delete its folder .dorc"));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(fail(exit::NOT_PERMITTED, "only root can uninstall dorc: sudo dorc uninstall"));
    }
    remove_apps(context, options.purge).await?;
    if system::uninstall().await? {
        say::done("dorc.service stopped and deleted", "");
    }
    let folders = [Path::new("/run/dorc"), &context.places.state, Path::new("/etc/dorc")];
    for folder in folders {
        delete(fs::remove_dir_all(folder), folder)?;
    }
    // Not there, or used by something else: nothing that dorc could mend.
    let _ = Command::new("groupdel").arg(install::GROUP).stderr(Stdio::null()).status();
    if std::env::current_exe().is_ok_and(|own| own != Path::new(install::PROGRAM)) {
        delete(fs::remove_file(install::PROGRAM), Path::new(install::PROGRAM))?;
        say::line("dorc is gone from this host.");
    } else {
        say::line(&format!("dorc is gone from this host, but for this program: rm {}", install::PROGRAM));
    }
    Ok(ExitCode::SUCCESS)
}

async fn remove_apps(context: &Context, purge: bool) -> anyhow::Result<()> {
    let apps: Vec<String> = match context.client.get::<api::Status>("/v1/apps").await {
        Ok(status) => status.apps.into_iter().map(|app| app.app).collect(),
        Err(ClientError::NoDaemon(_)) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    if !purge && !apps.is_empty() {
        let apps = apps.join(", ");
        let why =
            format!("apps are still deployed: {apps}. To stop and delete them too: dorc uninstall --purge");
        return Err(fail(exit::FAILED, why));
    }
    for app in apps {
        let body = api::to_json(&api::Remove { purge: true });
        let answer = context.client.post(&format!("/v1/apps/{app}/remove"), body, |_| {}).await?;
        if answer.exit != exit::DONE {
            return Err(fail(answer.exit, answer.message));
        }
        if let Ok(name) = AppName::new(&app) {
            system::purge_state(&name).await?;
        }
        say::done(&answer.message, "");
    }
    Ok(())
}

fn delete(deleted: io::Result<()>, path: &Path) -> anyhow::Result<()> {
    match deleted {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(fail(exit::FAILED, format!("{} could not be deleted: {error}", path.display())))
        }
        _ => Ok(()),
    }
}
