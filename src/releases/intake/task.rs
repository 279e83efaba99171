//! The task of an intake.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::Seen;
use crate::releases::listing::Listing;
use crate::releases::store::{Store, Taken};
use crate::releases::upload::{Limits, Refusal, TakeError, Upload, show};
use crate::releases::watch::Watch;

/// How soon new folders are watched. Not at once, because an upload of many makes them one after the other.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// While a file is open for writing it is looked at this often, because a writer that mapped it or sits on another
/// host may close it without an event.
const WRITERS: Duration = Duration::from_secs(3);

/// When something that the host could not do is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// Why the task ends: nobody owns it or listens to it any more.
struct Gone;

/// What ended a wait.
#[derive(PartialEq, Eq)]
enum Woken {
    Changed,
    Deadline,
}

/// What came of trying to take the upload.
enum Attempt {
    /// It is the one that was dealt with last.
    Same,
    Taken(Taken),
    Not {
        error: TakeError,
        fingerprint: Option<String>,
    },
}

/// The state of an intake.
pub(super) struct Task {
    pub(super) job: Job,
    pub(super) settle: Duration,
    pub(super) watch: Watch,
    pub(super) tell: mpsc::Sender<Seen>,
    /// Closed by the owner to end the task.
    pub(super) asked: mpsc::Receiver<oneshot::Sender<()>>,
    /// Those who asked, and get their answer once all is told.
    pub(super) asking: Vec<oneshot::Sender<()>>,
    /// The upload that was dealt with last, and its refusal if it was refused.
    pub(super) last: Option<(String, Option<Refusal>)>,
    /// What the last `Incoming` said; nothing once it came to something.
    pub(super) told: Option<String>,
}

impl Task {
    /// Works until nobody wants it any more.
    pub(super) async fn run(mut self) {
        let Err(Gone) = self.work().await;
    }

    async fn work(&mut self) -> Result<Infallible, Gone> {
        let mut retry = self.begin().await?;
        loop {
            self.next(retry).await?;
            retry = self.follow().await?;
        }
    }

    /// Deals with what is there at the start.
    async fn begin(&mut self) -> Result<Option<Instant>, Gone> {
        // First the watch, then the look: so no change falls in between.
        if let Err(error) = self.watch.look_again().await {
            return self.failed(error.to_string()).await;
        }
        let (job, last) = (self.job.clone(), self.fingerprint());
        let news = tokio::task::spawn_blocking(move || job.glance(last.as_deref())).await;
        if news.unwrap_or(true) {
            return self.follow().await;
        }
        self.say(Seen::Nothing).await?;
        Ok(None)
    }

    /// Follows an upload from its first change to what comes of it. Says when to try again by itself, if so.
    async fn follow(&mut self) -> Result<Option<Instant>, Gone> {
        let mut changed = true;
        loop {
            if changed && let Err(error) = self.settle().await? {
                return self.failed(error).await;
            }
            changed = match self.attempt().await? {
                None | Some(Attempt::Not { error: TakeError::Changed, .. }) => true,
                Some(Attempt::Not { error: TakeError::BeingWritten(path), .. }) => {
                    self.incoming(format!("{} is still open for writing", show(&path))).await?;
                    self.next(Some(Instant::now() + WRITERS)).await? == Woken::Changed
                }
                Some(Attempt::Not { error: TakeError::NotWhole(why), .. }) => {
                    self.incoming(why).await?;
                    self.next(None).await? == Woken::Changed
                }
                Some(Attempt::Not { error: error @ TakeError::Io { .. }, .. }) => {
                    return self.failed(error.to_string()).await;
                }
                Some(done) => {
                    let seen = self.conclude(done);
                    self.say(seen).await?;
                    return Ok(None);
                }
            };
        }
    }

    /// What an attempt came to that ends the following.
    fn conclude(&mut self, attempt: Attempt) -> Seen {
        match attempt {
            Attempt::Taken(taken) => {
                self.last = taken.fingerprint.clone().map(|fingerprint| (fingerprint, None));
                Seen::Taken(taken)
            }
            Attempt::Not { error: TakeError::Refused(refusal), fingerprint } => {
                self.last = fingerprint.map(|fingerprint| (fingerprint, Some(refusal.clone())));
                Seen::Refused(refusal)
            }
            Attempt::Same => match &self.last {
                Some((_, Some(refusal))) => Seen::Refused(refusal.clone()),
                _ => Seen::Nothing,
            },
            Attempt::Not { .. } => Seen::Nothing,
        }
    }

    async fn failed(&mut self, why: String) -> Result<Option<Instant>, Gone> {
        self.say(Seen::Failed(why)).await?;
        Ok(Some(Instant::now() + RETRY))
    }

    /// Waits until it is quiet and everything is watched; the inner error is a host that can't watch.
    async fn settle(&mut self) -> Result<Result<(), String>, Gone> {
        if self.told.is_none() {
            let quiet = humantime::format_duration(self.settle);
            self.incoming(format!("it is being changed; it is taken after {quiet} of quiet")).await?;
        }
        let mut quiet_at = Instant::now() + self.settle;
        loop {
            let look_at = self.watch.stale().map(|since| Instant::from_std(since) + LOOK_AGAIN);
            let until = look_at.map_or(quiet_at, |at| at.min(quiet_at));
            match self.next(Some(until)).await? {
                Woken::Changed => quiet_at = Instant::now() + self.settle,
                Woken::Deadline if look_at.is_some() => match self.watch.look_again().await {
                    Ok(true) => quiet_at = Instant::now() + self.settle,
                    Ok(false) => {}
                    Err(error) => return Ok(Err(error.to_string())),
                },
                Woken::Deadline => return Ok(Ok(())),
            }
        }
    }

    /// Tries to take the upload; `None` if it changed meanwhile.
    async fn attempt(&mut self) -> Result<Option<Attempt>, Gone> {
        let cancel = Cancel::default();
        let (job, last, cancelled) = (self.job.clone(), self.fingerprint(), Arc::clone(&cancel.0));
        let mut taking = tokio::task::spawn_blocking(move || job.attempt(last.as_deref(), &cancelled));
        let mut changed = false;
        let result = loop {
            tokio::select! {
                result = &mut taking => break result,
                woken = self.next(None) => {
                    cancel.now();
                    changed = true;
                    if woken.is_err() {
                        // What was taken is deleted before this task ends.
                        let _ = taking.await;
                        return Err(Gone);
                    }
                }
            }
        };
        let attempt = result.unwrap_or_else(|error| Attempt::Not {
            error: TakeError::io("the taking of an upload broke off", std::io::Error::other(error)),
            fingerprint: None,
        });
        if changed || self.watch.drain() {
            // Deleting a copy blocks. Nobody depends on its end.
            let _ = tokio::task::spawn_blocking(move || drop(attempt)).await;
            return Ok(None);
        }
        Ok(Some(attempt))
    }

    /// Waits for a change, or until `deadline`.
    async fn next(&mut self, deadline: Option<Instant>) -> Result<Woken, Gone> {
        loop {
            // Whoever comes back here to wait has told all that there was to tell.
            for asking in self.asking.drain(..) {
                // One that does not wait for it any more needs no answer.
                let _ = asking.send(());
            }
            let passed = async {
                match deadline {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.watch.changed() => return Ok(Woken::Changed),
                () = passed => return Ok(Woken::Deadline),
                () = self.tell.closed() => return Err(Gone),
                asking = self.asked.recv() => {
                    self.asking.push(asking.ok_or(Gone)?);
                    if self.watch.drain() {
                        return Ok(Woken::Changed);
                    }
                }
            }
        }
    }

    fn fingerprint(&self) -> Option<String> {
        self.last.as_ref().map(|(fingerprint, _)| fingerprint.clone())
    }

    async fn incoming(&mut self, why: String) -> Result<(), Gone> {
        if self.told.as_ref() == Some(&why) {
            return Ok(());
        }
        self.say(Seen::Incoming(why.clone())).await?;
        self.told = Some(why);
        Ok(())
    }

    async fn say(&mut self, seen: Seen) -> Result<(), Gone> {
        self.told = None;
        loop {
            tokio::select! {
                place = self.tell.reserve() => {
                    place.map_err(|_| Gone)?.send(seen);
                    return Ok(());
                }
                asking = self.asked.recv() => self.asking.push(asking.ok_or(Gone)?),
            }
        }
    }
}

/// Ends a taking early, also when the task is dropped.
#[derive(Default)]
struct Cancel(Arc<AtomicBool>);

impl Cancel {
    fn now(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        self.now();
    }
}

/// What is needed to take an upload.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) store: Arc<Store>,
    pub(super) upload: Upload,
    pub(super) limits: Limits,
}

impl Job {
    /// Takes the upload unless it is the `last` one. Blocks.
    fn attempt(&self, last: Option<&str>, cancelled: &AtomicBool) -> Attempt {
        let fingerprint = match Listing::of(&self.upload, &self.limits) {
            Ok(listing) => listing.fingerprint(&self.upload),
            Err(error) => return Attempt::Not { error, fingerprint: None },
        };
        if last == Some(&fingerprint) {
            return Attempt::Same;
        }
        match self.store.take(&self.upload, &self.limits, cancelled) {
            Ok(taken) => Attempt::Taken(taken),
            Err(error) => Attempt::Not { error, fingerprint: Some(fingerprint) },
        }
    }

    /// Whether there is an upload to be dealt with. Blocks.
    fn glance(&self, last: Option<&str>) -> bool {
        match Listing::of(&self.upload, &self.limits) {
            Ok(listing) => last != Some(&listing.fingerprint(&self.upload)),
            Err(error) => !matches!(error, TakeError::Nothing),
        }
    }
}
