//! Tells a program of what happens: one line of JSON each, one after the other.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::config::{EventsConfig, Which};
use crate::control::api;
use crate::control::metrics::Counts;
use crate::engine::Told;
use crate::model::app::AppName;
use crate::state::{DORC, Entry};

/// So many events wait for a slow program; more are lost, which the log tells.
const WAITING: usize = 256;

/// How long the program may take for one event.
const PATIENCE: Duration = Duration::from_secs(30);

/// Counts what happens, and tells the program of it, if there is one.
pub(super) fn told(counts: Arc<Counts>, events: Option<EventsConfig>) -> Told {
    let teller = events.map(Teller::start);
    Arc::new(move |app, entry| {
        counts.count(app, entry);
        teller.iter().for_each(|teller| teller.tell(app, entry));
    })
}

/// The way to the program.
#[derive(Debug)]
struct Teller {
    which: Which,
    lines: mpsc::Sender<String>,
}

impl Teller {
    /// Begins to tell; what waits is lost when the runtime ends.
    fn start(config: EventsConfig) -> Self {
        let EventsConfig { command, which } = config;
        let (lines, mut waiting) = mpsc::channel::<String>(WAITING);
        tokio::spawn(async move {
            while let Some(line) = waiting.recv().await {
                if let Err(error) = tell(&command, &line).await {
                    tracing::error!(error = format!("{error:#}"), line, "the command for events failed");
                }
            }
        });
        Self { which, lines }
    }

    /// Tells of it, if it is one of those that are told.
    fn tell(&self, app: &AppName, entry: &Entry) {
        if self.which == Which::Failures && !is_failure(entry) {
            return;
        }
        let line = api::to_json(&api::Happened { app: app.to_string(), entry: entry.clone() });
        if let Err(error) = self.lines.try_send(line) {
            tracing::error!(%app, what = entry.what, %error, "the command for events is too slow");
        }
    }
}

/// Whoever asked for something is told himself that it failed.
fn is_failure(entry: &Entry) -> bool {
    (entry.failed && entry.who == DORC) || entry.what == "rollback"
}

async fn tell(command: &[String], line: &str) -> anyhow::Result<()> {
    let (program, arguments) = command.split_first().context("no program is named")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{program} can't be run"))?;
    let told = async {
        if let Some(mut input) = child.stdin.take() {
            // One that does not want to know more is none that failed.
            let _ = input.write_all(format!("{line}\n").as_bytes()).await;
        }
        child.wait().await
    };
    let status = timeout(PATIENCE, told).await.with_context(|| format!("not done after {PATIENCE:?}"))??;
    ensure!(status.success(), "{status}");
    Ok(())
}
