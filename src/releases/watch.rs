//! Tells that something about an upload changed.
//!
//! Watched are every folder of the release directory, and, for what may not exist yet or be replaced as a whole,
//! the folder that it is or will be in. Only changes wake us, never reading: ours would wake us, too.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use tokio::io::unix::AsyncFd;

use super::upload::{Limits, Upload};
use crate::model::app::ReleaseBin;

/// How many events are read at most before others get their turn; more than the kernel keeps by default.
const EVENTS_AT_ONCE: usize = 20_000;

/// How often a path that appears while it is being watched is tried again.
const TRIES: usize = 8;

/// Changes of which names a folder has.
const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

/// Changes of what is in its files as well.
const CONTENT: WatchFlags =
    NAMES.union(WatchFlags::MODIFY).union(WatchFlags::CLOSE_WRITE).union(WatchFlags::ATTRIB);

/// After these, which folders there are may have changed.
const MOVES: ReadFlags = ReadFlags::CREATE.union(ReadFlags::MOVED_FROM).union(ReadFlags::MOVED_TO);

/// After these, a watched folder is gone, or we don't know what happened.
const LOST: ReadFlags = ReadFlags::DELETE_SELF
    .union(ReadFlags::MOVE_SELF)
    .union(ReadFlags::UNMOUNT)
    .union(ReadFlags::QUEUE_OVERFLOW);

/// Which of a watched folder's names matter.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Interest {
    All,
    Names(BTreeSet<OsString>),
}

type Watched = HashMap<i32, Interest>;

/// A watch over one upload.
#[derive(Debug)]
pub struct Watch {
    inotify: Arc<AsyncFd<OwnedFd>>,
    upload: Upload,
    limits: Limits,
    watched: Watched,
    stale: Option<Instant>,
    /// Whether the last look ended at the limits: then the next change asks for another one.
    partial: bool,
}

impl Watch {
    /// A watch that sees nothing yet: `look_again` makes it. Within a runtime.
    ///
    /// # Errors
    /// The host has no inotify instance left.
    pub fn new(upload: Upload, limits: Limits) -> io::Result<Self> {
        let fd =
            inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|errno| match errno {
                Errno::MFILE => {
                    io::Error::other("no inotify instance is left; raise fs.inotify.max_user_instances")
                }
                other => other.into(),
            })?;
        #[allow(deprecated, reason = "its successor is unsafe; an OwnedFd keeps what that one asks for")]
        let inotify = Arc::new(AsyncFd::with_interest(fd, tokio::io::Interest::READABLE)?);
        let stale = Some(Instant::now());
        Ok(Self { inotify, upload, limits, watched: Watched::new(), stale, partial: false })
    }

    /// Since when folders may exist that are not watched.
    #[must_use]
    pub fn stale(&self) -> Option<Instant> {
        self.stale
    }

    /// Watches what is to be watched now. True if folders came to it: changes in them may have been missed.
    ///
    /// # Errors
    /// Something can't be watched; what could be, is.
    pub async fn look_again(&mut self) -> io::Result<bool> {
        let (inotify, upload, limits) = (Arc::clone(&self.inotify), self.upload.clone(), self.limits);
        let look = move || {
            let mut look = Look { inotify: inotify.get_ref(), limits, watched: Watched::new(), seen: 0 };
            (look.all(&upload), look.watched)
        };
        self.stale = None;
        let (result, watched) = tokio::task::spawn_blocking(look).await.map_err(io::Error::other)?;
        for gone in self.watched.keys().filter(|wd| !watched.contains_key(wd)) {
            // The kernel drops the watch of a folder that was deleted by itself.
            let _ = inotify::remove_watch(self.inotify.get_ref(), *gone);
        }
        let more = watched.keys().any(|wd| !self.watched.contains_key(wd));
        self.watched = watched;
        match result {
            Ok(all) => self.partial = !all,
            Err(error) => {
                self.stale = Some(Instant::now());
                return Err(error);
            }
        }
        Ok(more)
    }

    /// Waits for a change; whatever else the kernel has told is read as well. Can be cancelled.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let inotify = Arc::clone(&self.inotify);
            let mut ready = inotify.readable().await?;
            let (changed, all) = self.read()?;
            if all {
                ready.clear_ready();
            }
            if changed {
                return Ok(());
            }
        }
    }

    /// Reads what the kernel has told so far; true if something changed.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn drain(&mut self) -> io::Result<bool> {
        Ok(self.read()?.0)
    }

    /// Whether something changed, and whether all was read.
    fn read(&mut self) -> io::Result<(bool, bool)> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let inotify = Arc::clone(&self.inotify);
        let mut events = Reader::new(inotify.get_ref(), &mut buffer);
        let mut changed = false;
        for _ in 0..EVENTS_AT_ONCE {
            match events.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    changed |= self.matters(event.wd(), event.events(), name);
                }
                Err(Errno::AGAIN) => return Ok((changed, true)),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok((changed, false))
    }

    fn matters(&mut self, wd: i32, events: ReadFlags, name: Option<&OsStr>) -> bool {
        if events.intersects(LOST) {
            self.stale.get_or_insert_with(Instant::now);
            return true;
        }
        if events.contains(ReadFlags::IGNORED) {
            return false;
        }
        let of_folder = events.contains(ReadFlags::ISDIR);
        let (matters, moves) = match (self.watched.get(&wd), name) {
            (Some(Interest::Names(names)), Some(name)) => (names.contains(name), names.contains(name)),
            (Some(Interest::Names(_)), None) => (false, false),
            (Some(Interest::All) | None, _) => (true, of_folder),
        };
        if (moves && events.intersects(MOVES)) || (matters && self.partial) {
            self.stale.get_or_insert_with(Instant::now);
        }
        matters
    }
}

/// One look at what is to be watched. Blocks.
struct Look<'a> {
    inotify: &'a OwnedFd,
    limits: Limits,
    watched: Watched,
    seen: usize,
}

impl Look<'_> {
    /// Watches everything; false where that was more than the limits, and so not all.
    fn all(&mut self, upload: &Upload) -> io::Result<bool> {
        self.nearest(&upload.dir, NAMES)?;
        if let ReleaseBin::Outside(bin) = &upload.bin {
            self.nearest(bin, CONTENT)?;
        }
        self.tree(&upload.dir)
    }

    /// Watches the folder that `path` is or will be in, or the nearest one to it that exists.
    fn nearest(&mut self, path: &Path, flags: WatchFlags) -> io::Result<()> {
        for _ in 0..TRIES {
            let mut below = path;
            while let Some(folder) = below.parent() {
                let name = below.file_name().unwrap_or_default().to_owned();
                if self.add(folder, flags, Interest::Names(BTreeSet::from([name])))? {
                    break;
                }
                below = folder;
            }
            // It may have appeared after it was missed and before its parent was watched.
            if below == path || !below.exists() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Watches `dir` and every folder below it, each before its names are read, so that none is missed.
    fn tree(&mut self, dir: &Path) -> io::Result<bool> {
        let mut folders: Vec<(PathBuf, usize)> = vec![(dir.to_owned(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let flags = if depth == 0 { CONTENT } else { CONTENT | WatchFlags::DONT_FOLLOW };
            if !self.add(&folder, flags, Interest::All)? {
                continue;
            }
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                self.seen += 1;
                if self.seen > self.limits.entries {
                    return Ok(false);
                }
                if depth < self.limits.depth && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push((entry.path(), depth + 1));
                }
            }
        }
        Ok(true)
    }

    /// Watches one folder; false if there is none.
    fn add(&mut self, folder: &Path, flags: WatchFlags, interest: Interest) -> io::Result<bool> {
        // The same folder may be watched for two reasons, so flags only ever come to it.
        let flags = flags | WatchFlags::ONLYDIR | WatchFlags::MASK_ADD;
        let wd = match inotify::add_watch(self.inotify, folder, flags) {
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
        let known = self.watched.entry(wd).or_insert_with(|| interest.clone());
        match (known, interest) {
            (Interest::Names(names), Interest::Names(more)) => names.extend(more),
            (known, Interest::All) => *known = Interest::All,
            (Interest::All, Interest::Names(_)) => {}
        }
        Ok(true)
    }
}
