//! The story: two releases, a switch under load, a bad release, the way back.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, ensure};

use super::stage::Stage;
use super::traffic::Traffic;
use crate::control::api::exit;

/// The app.
const APP: &str = "hello";

/// The versions that may ever answer: that of the bad release is not among them.
const GOOD: &[&str] = &["1.0", "2.0"];

/// Plays it; an error is a promise that was not kept.
pub(super) async fn play(stage: &mut Stage) -> anyhow::Result<()> {
    let address = free_address().context("no free port")?;
    first_release(stage, address).await?;
    stage.tell(&format!(
        "From now on {} clients send requests: some keep their connections, some open one for each.",
        Traffic::clients()
    ));
    stage.start_traffic(address, GOOD).await?;
    new_release(stage, address).await?;
    bad_release(stage, address).await?;
    way_back(stage, address).await
}

async fn first_release(stage: &mut Stage, address: SocketAddr) -> anyhow::Result<()> {
    let folder = std::env::current_dir()?;
    let dorc = std::env::current_exe()?;
    stage.tell(
        "This is a whole deployment, in a folder that is gone at the end: no root, no systemd, dorc up.",
    );
    stage.shell(&format!("cd {}; dorc up &", quoted(&folder)), Ok(()))?;
    stage.tell(
        "An app is a program, a folder to upload it to, and an address. This one is a server inside dorc.",
    );
    let program = fs::create_dir("upload")
        // Not its path: an update may have replaced the file.
        .and_then(|()| fs::copy("/proc/self/exe", "upload/hello").map(drop))
        .and_then(|()| fs::set_permissions("upload/hello", Permissions::from_mode(0o755)));
    stage.shell(&format!("mkdir upload; cp {} upload/hello", quoted(&dorc)), program)?;
    stage.shell("echo 1.0 > upload/version", fs::write("upload/version", "1.0\n"))?;
    let listen = address.port().to_string();
    let words = ["register", APP, "--listen", &listen, "--release-dir", "upload", "--release-bin", "hello"];
    let more = ["--start", "{bin} demo-backend {port}", "--health-path", "/healthz", "--bake", "1s"];
    stage.dorc(&[&words[..], &more[..]].concat(), exit::DONE).await?;
    stage.ask(address, "1.0", "green").await
}

async fn new_release(stage: &mut Stage, address: SocketAddr) -> anyhow::Result<()> {
    stage.tell("A new version is uploaded. It comes up beside the old one, and a switch moves the traffic.");
    stage.shell("echo 2.0 > upload/version", fs::write("upload/version", "2.0\n"))?;
    stage.dorc_under_load(&["switch", APP], exit::DONE).await?;
    stage.ask(address, "2.0", "blue").await
}

async fn bad_release(stage: &mut Stage, address: SocketAddr) -> anyhow::Result<()> {
    stage.tell("The next version is bad: it ends as soon as it is started. It never gets a request.");
    let written =
        fs::write("upload/behaviour", "exit 3\n").and_then(|()| fs::write("upload/version", "3.0\n"));
    stage.shell("echo exit 3 > upload/behaviour; echo 3.0 > upload/version", written)?;
    stage.dorc_under_load(&["switch", APP], exit::NOT_HEALTHY).await?;
    stage.ask(address, "2.0", "blue").await
}

async fn way_back(stage: &mut Stage, address: SocketAddr) -> anyhow::Result<()> {
    stage.tell("Back to 1.0. It does not run any more, the bad one took its place; but releases are kept.");
    stage.dorc_under_load(&["rollback", APP], exit::DONE).await?;
    stage.ask(address, "1.0", "green").await?;
    let first = stage.steps.first().and_then(|step| step.release.clone());
    let last = stage.steps.last().and_then(|step| step.release.clone());
    ensure!(first == last, "the rollback did not lead to the first release again");
    stage.dorc(&["status"], exit::DONE).await
}

/// A path as it is typed.
fn quoted(path: &Path) -> String {
    shell_words::quote(&path.to_string_lossy()).into_owned()
}

/// A port of the loopback interface that was free a moment ago.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
