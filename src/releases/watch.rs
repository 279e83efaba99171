//! Tells that something about an upload changed.
//!
//! Watched are every folder of the release directory, and, for what may not exist yet or be replaced as a whole,
//! the folder that it is or will be in. Only changes wake us, never reading: ours would wake us, too.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::inotify::WatchFlags;

use super::inotify::{CONTENT, Inotify, Interest, Look, NAMES, Watcher};
use super::upload::{Limits, Upload};
use crate::model::app::ReleaseBin;

/// How often a path that appears while it is being watched is tried again.
const TRIES: usize = 8;

/// A watch over one upload.
#[derive(Debug)]
pub(super) struct Watch {
    watcher: Arc<Watcher>,
    upload: Upload,
    limits: Limits,
}

impl Watch {
    /// A watch that sees nothing yet: `look_again` makes it.
    pub(super) fn new(inotify: Arc<Inotify>, upload: Upload, limits: Limits) -> Self {
        Self { watcher: Arc::new(Watcher::new(inotify)), upload, limits }
    }

    /// Since when folders may exist that are not watched.
    pub(super) fn stale(&self) -> Option<Instant> {
        self.watcher.stale()
    }

    /// Watches what is to be watched now. True if folders came to it: changes in them may have been missed.
    ///
    /// # Errors
    /// Something can't be watched; what could be, is.
    pub(super) async fn look_again(&self) -> io::Result<bool> {
        let (watcher, upload, limits) = (Arc::clone(&self.watcher), self.upload.clone(), self.limits);
        let look = move || {
            let mut walk = Walk { look: watcher.begin_look()?, limits, seen: 0 };
            let found_all = walk.all(&upload);
            let more = watcher.end_look(walk.look, &found_all);
            found_all.map(|_| more)
        };
        tokio::task::spawn_blocking(look).await.map_err(io::Error::other)?
    }

    /// Waits for a change. Can be cancelled.
    pub(super) async fn changed(&self) {
        self.watcher.changed().await;
    }

    /// Whether something changed, by all that the kernel has told so far.
    pub(super) fn drain(&self) -> bool {
        self.watcher.drain()
    }
}

/// One walk to what is to be watched. Blocks.
struct Walk {
    look: Look,
    limits: Limits,
    seen: usize,
}

impl Walk {
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
                if self.look.add(folder, flags, Interest::Names(BTreeSet::from([name])))? {
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
            if !self.look.add(&folder, flags, Interest::All)? {
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
}
