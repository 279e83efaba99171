//! One inotify instance for the watches of all apps: the kernel gives a user no more than 128 unless it is told otherwise
//! (`fs.inotify.max_user_instances`), and other programs need some, too.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// How many events are read at most before others get their turn; more than the kernel keeps by default.
const EVENTS_AT_ONCE: usize = 20_000;

/// How many events are kept for a watcher that is just looking.
const KEPT: usize = 4096;

/// The pause after the kernel refused to tell.
const PAUSE: Duration = Duration::from_secs(1);

/// Changes of which names a folder has.
pub(super) const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

/// Changes of what is in its files as well.
pub(super) const CONTENT: WatchFlags =
    NAMES.union(WatchFlags::MODIFY).union(WatchFlags::CLOSE_WRITE).union(WatchFlags::ATTRIB);

/// After these, which folders there are may have changed.
const MOVES: ReadFlags = ReadFlags::CREATE.union(ReadFlags::MOVED_FROM).union(ReadFlags::MOVED_TO);

/// After these, a watched folder is gone, or we don't know what happened.
const LOST: ReadFlags = ReadFlags::DELETE_SELF
    .union(ReadFlags::MOVE_SELF)
    .union(ReadFlags::UNMOUNT)
    .union(ReadFlags::IGNORED)
    .union(ReadFlags::QUEUE_OVERFLOW);

/// What tells of changes in folders, to all who watch some.
#[derive(Debug, Default)]
pub struct Inotify(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// There while anybody watches.
    instance: Option<Instance>,
    watchers: HashMap<u64, State>,
    /// Who watches a folder.
    folders: HashMap<i32, BTreeSet<u64>>,
    /// Whose look is under way.
    looking: BTreeSet<u64>,
    last_id: u64,
}

#[derive(Debug)]
struct Instance {
    fd: Arc<AsyncFd<OwnedFd>>,
    reader: AbortHandle,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Which of a watched folder's names matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Interest {
    All,
    Names(BTreeSet<OsString>),
}

#[derive(Debug, Clone)]
struct Event {
    folder: i32,
    what: ReadFlags,
    name: Option<OsString>,
}

/// What one watcher watches, and what it was told.
#[derive(Debug, Default)]
struct State {
    folders: HashMap<i32, Interest>,
    /// What happened since its look began, wherever: it may be in folders that it is only about to watch.
    meanwhile: Vec<Event>,
    changed: bool,
    stale: Option<Instant>,
    /// Whether its last look ended at the limits: then the next change asks for another one.
    partial: bool,
    wake: Arc<Notify>,
}

impl State {
    fn lose(&mut self) {
        self.stale.get_or_insert_with(Instant::now);
        self.change();
    }

    fn change(&mut self) {
        self.changed = true;
        self.wake.notify_one();
    }

    fn tell(&mut self, event: &Event) {
        let Some(interest) = self.folders.get(&event.folder) else { return };
        if event.what.intersects(LOST) {
            return self.lose();
        }
        let (matters, moves) = match (interest, &event.name) {
            (Interest::Names(names), Some(name)) => (names.contains(name), names.contains(name)),
            (Interest::Names(_), None) => (false, false),
            (Interest::All, _) => (true, event.what.contains(ReadFlags::ISDIR)),
        };
        if (moves && event.what.intersects(MOVES)) || (matters && self.partial) {
            self.lose();
        } else if matters {
            self.change();
        }
    }
}

impl Inotify {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic within leaves at worst a folder watched that nobody asks about.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel's instance. Within a runtime.
    fn open(self: &Arc<Self>) -> io::Result<Arc<AsyncFd<OwnedFd>>> {
        let mut inner = self.inner();
        if let Some(instance) = &inner.instance {
            return Ok(Arc::clone(&instance.fd));
        }
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(none_left)?;
        #[allow(deprecated, reason = "its successor is unsafe; an OwnedFd keeps what that one asks for")]
        let fd = Arc::new(AsyncFd::with_interest(fd, tokio::io::Interest::READABLE)?);
        let reader = tokio::spawn(read_on(Arc::clone(&fd), Arc::downgrade(self))).abort_handle();
        inner.instance = Some(Instance { fd: Arc::clone(&fd), reader });
        Ok(fd)
    }
}

fn none_left(errno: Errno) -> io::Error {
    match errno {
        Errno::MFILE => io::Error::other("no inotify instance is left; raise fs.inotify.max_user_instances"),
        other => other.into(),
    }
}

/// Reads what the kernel tells as soon as it does.
async fn read_on(fd: Arc<AsyncFd<OwnedFd>>, inotify: Weak<Inotify>) {
    while let Ok(mut ready) = fd.readable().await {
        let Some(inotify) = inotify.upgrade() else { return };
        let read = inotify.inner().read(fd.get_ref());
        match read {
            Ok(true) => ready.clear_ready(),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "uploads can't be watched");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Inner {
    /// It is there for as long as its watcher is.
    fn state(&mut self, id: u64) -> &mut State {
        self.watchers.entry(id).or_default()
    }

    /// Reads what the kernel has told so far, and tells whom it concerns; false if there may be more.
    fn read(&mut self, fd: &OwnedFd) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut events = Reader::new(fd, &mut buffer);
        for _ in 0..EVENTS_AT_ONCE {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(true),
                Err(Errno::INTR) => continue,
                Err(errno) => {
                    self.watchers.values_mut().for_each(State::lose);
                    return Err(errno.into());
                }
            };
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
            self.pass_on(&Event { folder: event.wd(), what: event.events(), name });
        }
        Ok(false)
    }

    fn pass_on(&mut self, event: &Event) {
        if event.what.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.watchers.values_mut().for_each(State::lose);
        }
        for id in self.folders.get(&event.folder).into_iter().flatten() {
            if let Some(state) = self.watchers.get_mut(id) {
                state.tell(event);
            }
        }
        for id in &self.looking {
            if let Some(state) = self.watchers.get_mut(id).filter(|state| state.meanwhile.len() < KEPT) {
                state.meanwhile.push(event.clone());
            }
        }
    }

    /// Puts `folders` in the place of what `id` watched until now; true if some came to it.
    fn watch(&mut self, id: u64, folders: HashMap<i32, Interest>) -> bool {
        let state = self.state(id);
        let before = std::mem::replace(&mut state.folders, folders);
        let new: Vec<i32> = state.folders.keys().filter(|one| !before.contains_key(one)).copied().collect();
        let gone: Vec<i32> = before.into_keys().filter(|one| !state.folders.contains_key(one)).collect();
        for folder in &new {
            self.folders.entry(*folder).or_default().insert(id);
        }
        for folder in gone {
            self.forget(folder, id);
        }
        !new.is_empty()
    }

    fn forget(&mut self, folder: i32, id: u64) {
        let Some(watchers) = self.folders.get_mut(&folder) else { return };
        watchers.remove(&id);
        if watchers.is_empty() {
            self.folders.remove(&folder);
            self.unwatch(folder);
        }
    }

    fn unwatch(&self, folder: i32) {
        if let Some(instance) = &self.instance {
            // The kernel has dropped the watch of a folder that was deleted by itself.
            let _ = inotify::remove_watch(instance.fd.get_ref(), folder);
        }
    }
}

/// One that watches folders. They are watched no longer when it is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    inotify: Arc<Inotify>,
    id: u64,
    wake: Arc<Notify>,
}

impl Watcher {
    /// One that watches nothing yet, and should look for what there is.
    pub(super) fn new(inotify: Arc<Inotify>) -> Self {
        let wake = Arc::new(Notify::new());
        let state = State { stale: Some(Instant::now()), wake: Arc::clone(&wake), ..State::default() };
        let id = {
            let mut inner = inotify.inner();
            inner.last_id += 1;
            let id = inner.last_id;
            inner.watchers.insert(id, state);
            id
        };
        Self { inotify, id, wake }
    }

    /// Since when folders may exist that are not watched.
    pub(super) fn stale(&self) -> Option<Instant> {
        self.inotify.inner().state(self.id).stale
    }

    /// Waits for a change. Can be cancelled.
    pub(super) async fn changed(&self) {
        while !std::mem::take(&mut self.inotify.inner().state(self.id).changed) {
            self.wake.notified().await;
        }
    }

    /// Whether something changed since the last question, by all that the kernel has told so far.
    pub(super) fn drain(&self) -> bool {
        let mut inner = self.inotify.inner();
        if let Some(fd) = inner.instance.as_ref().map(|instance| Arc::clone(&instance.fd)) {
            // What can't be read has told that all of it may have changed.
            let _ = inner.read(fd.get_ref());
        }
        std::mem::take(&mut inner.state(self.id).changed)
    }

    /// A look for the folders that are to be watched begins.
    ///
    /// # Errors
    /// The host has no inotify instance left.
    pub(super) fn begin_look(&self) -> io::Result<Look> {
        let fd = self.inotify.open()?;
        let mut inner = self.inotify.inner();
        // What was before the look is seen by it.
        inner.read(fd.get_ref())?;
        inner.looking.insert(self.id);
        inner.state(self.id).stale = None;
        Ok(Look { fd, folders: HashMap::new() })
    }

    /// From now on it watches what the look found, which was all that there is, or not, or all that could be. True if folders
    /// came to it: changes in them may have been missed.
    pub(super) fn end_look(&self, look: Look, found_all: &io::Result<bool>) -> bool {
        let mut inner = self.inotify.inner();
        inner.looking.remove(&self.id);
        let more = inner.watch(self.id, look.folders);
        let state = inner.state(self.id);
        state.partial = matches!(found_all, Ok(false));
        if found_all.is_err() {
            state.stale = Some(Instant::now());
        }
        let meanwhile = std::mem::take(&mut state.meanwhile);
        if meanwhile.len() == KEPT {
            state.lose();
        }
        meanwhile.iter().for_each(|event| state.tell(event));
        more
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut inner = self.inotify.inner();
        inner.looking.remove(&self.id);
        inner.watch(self.id, HashMap::new());
        inner.watchers.remove(&self.id);
        if inner.watchers.is_empty() {
            inner.instance = None;
        }
    }
}

/// A look for what is to be watched: what it finds is watched from then on.
#[derive(Debug)]
pub(super) struct Look {
    fd: Arc<AsyncFd<OwnedFd>>,
    folders: HashMap<i32, Interest>,
}

impl Look {
    /// Watches one folder; false if there is none.
    ///
    /// # Errors
    /// The kernel can't watch it.
    pub(super) fn add(&mut self, folder: &Path, flags: WatchFlags, interest: Interest) -> io::Result<bool> {
        // The same folder may be watched for several reasons, so flags only ever come to it.
        let flags = flags | WatchFlags::ONLYDIR | WatchFlags::MASK_ADD;
        let wd = match inotify::add_watch(self.fd.get_ref(), folder, flags) {
            Ok(wd) => wd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => return Ok(false),
            Err(Errno::NOSPC) => {
                let message = format!(
                    "{} can't be watched: no inotify watch is left; raise fs.inotify.max_user_watches",
                    folder.display()
                );
                return Err(io::Error::other(message));
            }
            Err(errno) => return Err(errno.into()),
        };
        let known = self.folders.entry(wd).or_insert_with(|| interest.clone());
        match (known, interest) {
            (Interest::Names(names), Interest::Names(more)) => names.extend(more),
            (known, Interest::All) => *known = Interest::All,
            (Interest::All, Interest::Names(_)) => {}
        }
        Ok(true)
    }
}
