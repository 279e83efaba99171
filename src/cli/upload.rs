//! `dorc upload`

mod archive;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use clap::Args;
use tokio::sync::mpsc;

use super::{Change, Context, fail, install, say, send};
use crate::control::api::upload::Manner;
use crate::control::api::{self, exit};
use crate::model::release::Label;
use archive::Source;

/// How many parts wait to be sent.
const PARTS: usize = 4;

/// How often it is told how far it is.
const TELL: Duration = Duration::from_millis(200);

/// Options of `dorc upload`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The app
    app: String,
    /// A folder, an archive (.tar, .tar.gz, .tar.zst), or a file that is to be the release binary
    path: PathBuf,
    #[command(flatten)]
    called: Called,
    #[command(flatten)]
    change: Change,
}

/// What a release is called.
#[derive(Debug, Args)]
pub(super) struct Called {
    /// What to call the release: a git revision, a tag; one line of at most 100 bytes
    #[arg(long, value_name = "TEXT")]
    pub(super) label: Option<String>,
}

impl Called {
    /// Fails where it can't be a label, before anything is sent.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let checked = self.label.as_deref().map(str::parse::<Label>).transpose();
        checked.map(drop).map_err(|why| fail(exit::USAGE, why))
    }

    /// An upload that a deployment asks for once it is stored.
    pub(super) fn for_deployment(&self) -> Manner {
        Manner { label: self.label.clone(), only_store: true }
    }
}

pub(super) async fn run(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    let Options { app, path, called, change } = options;
    called.check()?;
    let manner = Manner { label: called.label, only_store: false };
    let steps = say::Steps::new(change.json, change.no_wait);
    let answer = send::within(&app, &change, upload(context, &app, &path, manner, steps)).await??;
    say::answer(&answer, change.json);
    if answer.exit == exit::DONE && !change.json {
        say::line(&answer.message);
    }
    Ok(ExitCode::from(answer.exit))
}

/// Uploads what is at `path`, and tells how far it is.
pub(super) async fn upload(
    context: &Context,
    app: &str,
    path: &Path,
    manner: Manner,
    mut steps: say::Steps,
) -> anyhow::Result<api::Answer> {
    install::ensure_daemon(context).await?;
    let to = loaded(context, app).await?;
    // What is frozen is not uploaded just to be refused then.
    if let (true, Some(why)) = (manner.only_store, to.frozen) {
        return Err(fail(exit::BUSY, format!("{app}: {why}; when that is over: dorc thaw {app}")));
    }
    let path = std::path::absolute(path)?;
    stream(context, app, path, to.release_bin.into(), manner, |event| steps.event(event)).await
}

async fn loaded(context: &Context, app: &str) -> anyhow::Result<api::AppStatus> {
    let status: api::Status = context.client.get(&format!("/v1/apps/{app}")).await?;
    match (status.apps.into_iter().next(), status.broken.into_iter().next()) {
        (Some(app), _) => Ok(app),
        (None, Some(broken)) => Err(anyhow!("{app} is not loaded: {}", broken.problem)),
        (None, None) => Err(anyhow!("{app} is not loaded")),
    }
}

/// Sends it, from where it stopped if that is how it was begun.
async fn stream(
    context: &Context,
    app: &str,
    path: PathBuf,
    bin: PathBuf,
    manner: Manner,
    mut tell: impl FnMut(&api::Event),
) -> anyhow::Result<api::Answer> {
    let measured = tokio::task::spawn_blocking(move || {
        let source = Source::of(&path, &bin)?;
        let (digest, bytes) = source.measure()?;
        anyhow::Ok((source, digest, bytes))
    });
    let (source, digest, bytes) = measured.await??;
    let place = api::upload::path(app, digest);
    let api::upload::Received { received } = context.client.get(&place).await?;
    let (parts, sent) = (mpsc::channel(PARTS), Arc::new(AtomicU64::new(received)));
    let feed = Feed { skip: received, sent: Arc::clone(&sent), parts: parts.0 };
    let feeding = tokio::task::spawn_blocking(move || source.write(feed));
    let (events, mut told) = mpsc::channel(PARTS);
    let sending = context.client.upload(&place, received, manner, parts.1, move |event| {
        // There are few, and they are told as they come.
        let _ = events.try_send(event);
    });
    tokio::pin!(sending);
    let mut ticks = tokio::time::interval(TELL);
    let answer = loop {
        tokio::select! {
            answer = &mut sending => break answer,
            Some(event) = told.recv() => tell(&event),
            _ = ticks.tick() => tell(&api::Event::Uploading { sent: sent.load(Ordering::Relaxed), bytes }),
        }
    };
    while let Ok(event) = told.try_recv() {
        tell(&event);
    }
    match feeding.await? {
        // The daemon did not want any more, and its answer says why.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(answer?),
    }
}

/// Hands a stream on to be sent, without what was received already.
struct Feed {
    skip: u64,
    sent: Arc<AtomicU64>,
    parts: mpsc::Sender<Bytes>,
}

impl Write for Feed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= skipped as u64;
        if skipped < bytes.len() {
            let part = Bytes::copy_from_slice(&bytes[skipped..]);
            self.parts.blocking_send(part).map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.sent.fetch_add((bytes.len() - skipped) as u64, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
