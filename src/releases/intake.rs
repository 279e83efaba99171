//! When an upload is finished and whole: settled, closed by its writers, and then taken.
//!
//! Each app has one intake, a task that sleeps until the kernel tells of a change:
//!
//! ```text
//! at rest ── change ──▶ settling ── quiet ──▶ taking ──▶ taken, refused, failed, nothing: at rest again
//!                          ▲                    │
//!                          └── changed, still being written, not whole: Incoming says so
//! ```

mod task;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::inotify::Inotify;
use super::store::{Store, Taken};
use super::upload::{Limits, Refusal, Upload};
use super::watch::Watch;
use task::{Job, Task};

/// How many sightings wait for their reader.
const SEEN: usize = 16;

/// How long `sync` waits for an intake that is busy.
const SYNC: Duration = Duration::from_secs(2);

/// What came of the upload directory.
#[derive(Debug)]
pub enum Seen {
    /// Something is being uploaded; what is waited for, for people. One of the others follows.
    Incoming(String),
    /// An upload was taken, perhaps one with a content that is known already. Its fingerprint is to be handed to the
    /// next intake as what is known.
    Taken(Taken),
    /// The upload is wrong.
    Refused(Refusal),
    /// The host could not take it; it is tried again by itself. One sentence without a full stop.
    Failed(String),
    /// There is nothing to take (any more): no upload, or the one that was dealt with last.
    Nothing,
}

/// The intake of one app.
#[derive(Debug)]
pub struct Intake {
    /// The task ends when this is dropped.
    asks: mpsc::Sender<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Intake {
    /// Starts it; `known` is the fingerprint of the upload that was dealt with last. The first thing that it tells
    /// is what is there now. It ends when its receiver is dropped, too.
    pub fn start(
        inotify: Arc<Inotify>,
        store: Arc<Store>,
        upload: Upload,
        settle: Duration,
        limits: Limits,
        known: Option<String>,
    ) -> (Self, mpsc::Receiver<Seen>) {
        let watch = Watch::new(inotify, upload.clone(), limits);
        let (tell, seen) = mpsc::channel(SEEN);
        let (asks, asked) = mpsc::channel(1);
        let task = Task {
            job: Job { store, upload, limits },
            settle,
            watch,
            tell,
            asked,
            asking: Vec::new(),
            last: known.map(|fingerprint| (fingerprint, None)),
            told: None,
        };
        (Self { asks, task: tokio::spawn(task.run()) }, seen)
    }

    /// Returns once all that the kernel has told so far was read, and `Incoming` was sent if that was a change. So
    /// what was uploaded before this call is in the channel after it.
    pub async fn sync(&self) {
        let (answer, answered) = oneshot::channel();
        let ask = async {
            if self.asks.send(answer).await.is_ok() {
                // No answer: it ended.
                let _ = answered.await;
            }
        };
        if tokio::time::timeout(SYNC, ask).await.is_err() {
            tracing::warn!("the intake did not answer within {SYNC:?}; is the reader of its channel stuck?");
        }
    }

    /// Ends it; what is being taken is given up. Dropping it does the same, without waiting for the end.
    pub async fn stop(self) {
        let Self { asks, task } = self;
        drop(asks);
        if let Err(error) = task.await {
            tracing::warn!("the intake ended badly: {error}");
        }
    }
}
