//! Receives releases as streams: a tar archive, plain or compressed, that is named by the digest of its bytes.
//!
//! A thread unpacks what arrives into a hidden folder of the store. If whoever sends goes away, it waits for a while with
//! what it has, so that the same stream can go on where it stopped. Nothing else is ever kept of a stream.

mod stream;
mod unpack;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::store::{Store, Taken};
use super::upload::{Limits, TakeError, Upload};
use super::{signed, whole};
use crate::model::app::ReleaseBin;
use crate::model::release::Digest;
use stream::{Arriving, Part};
use unpack::Unpacking;

/// How long a stream that was cut is kept for the same one to go on.
const KEPT: Duration = Duration::from_secs(10 * 60);

/// How long the one before gets to be found gone.
const TURN: Duration = Duration::from_secs(1);

/// How long the disk may take for one part, and what is left to be done after the last one.
const DISK: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(10 * 60);

/// How many parts of a stream wait for the disk.
const PARTS: usize = 16;

/// What a stream may have at most beside the files' bytes, for each entry.
const OVERHEAD: u64 = 4 << 10;

/// Why a stream can't be received now.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// There is one at a time.
    #[error("another upload is being received; try again when it has ended")]
    Busy,
    /// It can only go on where it stopped.
    #[error("the upload goes on at byte {0}; it can be begun again at 0")]
    Elsewhere(u64),
    /// The host could not do it.
    #[error("the upload can't be received: {0}")]
    Host(io::Error),
}

/// Receives the streams of one app, one at a time.
#[derive(Debug)]
pub struct Receiver {
    store: Arc<Store>,
    limits: Limits,
    slot: Arc<Mutex<Option<Stream>>>,
    /// How much has arrived of the stream in the slot, for those who must not wait for it.
    arrived: Arc<AtomicU64>,
    closed: Arc<AtomicBool>,
}

/// A stream of which some has arrived.
#[derive(Debug)]
struct Stream {
    digest: Digest,
    upload: Upload,
    arrived: Arrived,
    touched: Instant,
    parts: mpsc::Sender<Part>,
    taken: oneshot::Receiver<Result<Taken, TakeError>>,
    /// It ends once `parts` is dropped.
    thread: JoinHandle<()>,
    /// Forgets the stream when nobody goes on with it; ends with it.
    _patience: JoinSet<()>,
}

/// How much of a stream has arrived, as long as there is one.
#[derive(Debug)]
struct Arrived(Arc<AtomicU64>);

impl Arrived {
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Receiver {
    /// Receives into `store`.
    #[must_use]
    pub fn new(store: Arc<Store>, limits: Limits) -> Self {
        Self { store, limits, slot: Arc::default(), arrived: Arc::default(), closed: Arc::default() }
    }

    /// How much of the stream `digest` is here already.
    pub async fn received(&self, upload: &Upload, digest: Digest) -> u64 {
        match timeout(TURN, self.slot.lock()).await {
            Ok(slot) => received(&slot, upload, digest),
            Err(_) => 0,
        }
    }

    /// How many bytes are here of a stream that is being received, or was cut and may go on.
    #[must_use]
    pub fn arrived(&self) -> Option<u64> {
        Some(self.arrived.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// Begins to receive the stream `digest`, or goes on with it at `offset`. Anything else that was begun is given up.
    ///
    /// # Errors
    /// See [`ReceiveError`].
    pub async fn begin(&self, upload: Upload, digest: Digest, offset: u64) -> Result<Session, ReceiveError> {
        let slot = timeout(TURN, Arc::clone(&self.slot).lock_owned()).await;
        let mut slot = slot.map_err(|_| ReceiveError::Busy)?;
        let received = received(&slot, &upload, digest);
        if offset == 0 {
            // What has arrived is counted in one place.
            *slot = None;
            *slot = Some(self.start(upload, digest).map_err(ReceiveError::Host)?);
        } else if offset != received {
            return Err(ReceiveError::Elsewhere(received));
        }
        Ok(Session { slot, limits: self.limits, closed: Arc::clone(&self.closed) })
    }

    /// Gives up what is being received, and receives nothing more.
    pub async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let Ok(mut slot) = timeout(TURN, self.slot.lock()).await else {
            tracing::warn!("an upload is still being received");
            return;
        };
        if let Some(Stream { parts, thread, .. }) = slot.take() {
            drop(parts);
            // A panic in it was told when it happened.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    fn start(&self, upload: Upload, digest: Digest) -> io::Result<Stream> {
        let (parts, arriving) = mpsc::channel(PARTS);
        let (tell, taken) = oneshot::channel();
        let unpacking = Unpack { store: Arc::clone(&self.store), limits: self.limits, digest };
        let expected = upload.clone();
        let thread = thread::Builder::new().name("receive".into()).spawn(move || {
            // Nobody waits for what was given up: then it is deleted here.
            let _ = tell.send(unpacking.all(Arriving::new(arriving), &expected));
        })?;
        let mut patience = JoinSet::new();
        patience.spawn(forget(Arc::clone(&self.slot), digest));
        let touched = Instant::now();
        let arrived = Arrived(Arc::clone(&self.arrived));
        Ok(Stream { digest, upload, arrived, touched, parts, taken, thread, _patience: patience })
    }
}

/// How much there is of that stream; nothing of one that was to be something else, by an app file that has changed.
fn received(slot: &Option<Stream>, upload: &Upload, digest: Digest) -> u64 {
    let same = slot.as_ref().filter(|stream| stream.digest == digest && stream.upload == *upload);
    same.map_or(0, |stream| stream.arrived.get())
}

/// Forgets the stream `digest` once nobody has gone on with it for long.
async fn forget(slot: Arc<Mutex<Option<Stream>>>, digest: Digest) {
    let mut at = Instant::now() + KEPT;
    loop {
        sleep_until(at).await;
        let mut slot = slot.lock().await;
        match slot.as_ref().filter(|stream| stream.digest == digest).map(|stream| stream.touched + KEPT) {
            Some(later) if later > Instant::now() => at = later,
            Some(_) => {
                *slot = None;
                return;
            }
            None => return,
        }
    }
}

/// The turn of one that sends. When it is dropped, another one may go on with the stream or begin a new one.
#[derive(Debug)]
pub struct Session {
    slot: OwnedMutexGuard<Option<Stream>>,
    limits: Limits,
    closed: Arc<AtomicBool>,
}

impl Session {
    /// Takes the next bytes, as soon as there is room for them.
    ///
    /// # Errors
    /// The upload was refused, or the host could not take it; then nothing of it is left.
    pub async fn push(&mut self, bytes: Bytes) -> Result<(), TakeError> {
        let more = bytes.len() as u64;
        self.send(Part::Bytes(bytes)).await?;
        if let Some(stream) = self.slot.as_mut() {
            let arrived = stream.arrived.0.fetch_add(more, Ordering::Relaxed) + more;
            stream.touched = Instant::now();
            let entries = u64::try_from(self.limits.entries).unwrap_or(u64::MAX);
            let most = self.limits.bytes.saturating_add(entries.saturating_mul(OVERHEAD));
            if arrived > most {
                self.slot.take();
                return self.limits.check_bytes(u64::MAX);
            }
        }
        Ok(())
    }

    /// The stream has come to its end: what was taken. Until the session is dropped nothing else is received.
    ///
    /// # Errors
    /// As `push`, and when the stream is not the one that was meant.
    pub async fn finish(&mut self) -> Result<Taken, TakeError> {
        self.send(Part::End).await?;
        self.result().await
    }

    async fn send(&mut self, part: Part) -> Result<(), TakeError> {
        if self.closed.load(Ordering::Relaxed) {
            self.slot.take();
            return Err(TakeError::refused("the app is not loaded any more"));
        }
        let Some(stream) = self.slot.as_ref() else { return Err(TakeError::Changed) };
        match timeout(DISK, stream.parts.send(part)).await {
            Ok(Ok(())) => Ok(()),
            // The thread has ended, and knows why.
            Ok(Err(_)) => self.result().await.and(Err(TakeError::Changed)),
            Err(_) => {
                self.slot.take();
                Err(TakeError::io("the disk does not take the upload", io::ErrorKind::TimedOut))
            }
        }
    }

    async fn result(&mut self) -> Result<Taken, TakeError> {
        let Some(mut stream) = self.slot.take() else { return Err(TakeError::Changed) };
        match timeout(END, &mut stream.taken).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                Err(TakeError::io("the upload could not be unpacked", io::Error::other("it broke off")))
            }
            Err(_) => Err(TakeError::io("the upload could not be unpacked", io::ErrorKind::TimedOut)),
        }
    }
}

/// The work of the thread.
struct Unpack {
    store: Arc<Store>,
    limits: Limits,
    digest: Digest,
}

impl Unpack {
    fn all(self, arriving: Arriving, upload: &Upload) -> Result<Taken, TakeError> {
        let hidden = self.store.hidden();
        let hidden = hidden.map_err(|error| TakeError::io("could not make a new release", error))?;
        let bin = upload.bin.in_release();
        let unpacked = Unpacking::new(hidden.path(), self.limits).all(arriving.clone(), &bin);
        if arriving.is_given_up() {
            return Err(TakeError::Changed);
        }
        let unpacked = unpacked?;
        let arrived = arriving.digest().map_err(|_| TakeError::Changed)?;
        if arrived != self.digest {
            let named = self.digest;
            return Err(TakeError::refused(format!(
                "what arrived is not what was sent: its digest is {arrived}, not {named}"
            )));
        }
        // What a stream has is told by its path in the release, wherever the release directory is.
        let within = Upload { dir: "".into(), bin: ReleaseBin::Inside(bin), ..upload.clone() };
        whole::check(hidden.path(), &within)?;
        signed::check(hidden.path(), &within.signed_by)?;
        let unpack::Unpacked { digest, files, bytes } = unpacked;
        Ok(Taken { digest, files, bytes, fingerprint: None, hidden })
    }
}
