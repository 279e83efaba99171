//! From the entries of an archive to the files of a release: each entry is checked, then made anew by us. Nothing is
//! written anywhere but below a folder that is ours alone, and never through a symlink.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::{SyncSender, sync_channel};

use tar::{Archive, Entry, EntryType};

use super::stream::{Arriving, Metered, decompressed};
use crate::model::release::Digest;
use crate::releases::copy::{cannot_write, check_link, make_file, make_folder, make_link, mode};
use crate::releases::digest::{self, Content, TreeDigest};
use crate::releases::listing::check_name;
use crate::releases::upload::{Limits, TakeError, show};

/// What the headers of one entry may have at most, long names and extended attributes included, in bytes.
const HEADERS: u64 = 128 << 10;

/// How much of a file is copied at a time.
const CHUNK: usize = 256 << 10;

/// From this length on a file is written to the disk while it comes, each time that so much more is there, in bytes.
const LONG: u64 = 32 << 20;

/// What was unpacked.
pub(super) struct Unpacked {
    pub(super) digest: Digest,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// An unpacking that is under way.
pub(super) struct Unpacking<'a> {
    to: &'a Path,
    limits: Limits,
    /// What was made so far, sorted as the digest wants it.
    made: BTreeMap<OsString, Content>,
    /// The headers that were read.
    entries: usize,
    bytes: u64,
    buffer: Vec<u8>,
}

impl<'a> Unpacking<'a> {
    /// Unpacks into the empty folder `to`.
    pub(super) fn new(to: &'a Path, limits: Limits) -> Self {
        Self { to, limits, made: BTreeMap::new(), entries: 0, bytes: 0, buffer: vec![0; CHUNK] }
    }

    /// Unpacks all that arrives; the release binary must be in it.
    pub(super) fn all(mut self, arriving: Arriving, bin: &Path) -> Result<Unpacked, TakeError> {
        let (metered, allowed) = Metered::new(decompressed(arriving).map_err(not_whole)?);
        let mut archive = Archive::new(metered);
        let mut entries = archive.entries().map_err(not_whole)?;
        loop {
            allowed.set(Some(HEADERS));
            let entry = match entries.next() {
                None => break,
                Some(entry) => entry.map_err(|error| misread(&allowed, error))?,
            };
            allowed.set(Some(entry.size().saturating_add(HEADERS)));
            self.entry(entry)?;
        }
        match self.made.get(bin.as_os_str()) {
            Some(Content::File { .. } | Content::Link(_)) => {}
            Some(Content::Folder) => return Err(refused(bin, "is a folder, not a program")),
            None => {
                let bin = bin.display();
                return Err(TakeError::refused(format!(
                    "the upload has no {bin}, which is the release binary"
                )));
            }
        }
        let mut tree = TreeDigest::default();
        self.made.iter().for_each(|(path, content)| tree.add(Path::new(path), content));
        let files = self.made.values().filter(|content| matches!(content, Content::File { .. })).count();
        Ok(Unpacked { digest: tree.finish(), files: files as u64, bytes: self.bytes })
    }

    fn entry(&mut self, mut entry: Entry<'_, impl Read>) -> Result<(), TakeError> {
        self.limits.check_entries(self.entries, "the upload")?;
        self.entries += 1;
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = path_of(&entry.path_bytes())?;
        if path.as_os_str().is_empty() {
            return if kind == EntryType::Directory { Ok(()) } else { Err(refused(&path, "has no name")) };
        }
        if kind == EntryType::Directory {
            return self.folder_and_above(&path);
        }
        self.folder_and_above(path.parent().unwrap_or(Path::new("")))?;
        self.check_new(&path)?;
        let content = match kind {
            EntryType::Regular | EntryType::Continuous => self.file(&mut entry, &path)?,
            EntryType::Symlink => {
                let to = entry.link_name_bytes().unwrap_or_default();
                check_link(&path, &to, &show(&path))?;
                let made = make_link(&to, &self.to.join(&path));
                Content::Link(made.map_err(|error| self.failed(error))?)
            }
            other => return Err(refused(&path, foreign(other))),
        };
        self.made.insert(path.into(), content);
        Ok(())
    }

    /// Makes a folder and those that it is in, where they are not there yet.
    fn folder_and_above(&mut self, folder: &Path) -> Result<(), TakeError> {
        self.limits.check_depth(folder, &show(folder))?;
        let mut path = PathBuf::new();
        for name in folder {
            path.push(name);
            if matches!(self.made.get(path.as_os_str()), Some(Content::Folder)) {
                continue;
            }
            self.check_new(&path)?;
            make_folder(&self.to.join(&path)).map_err(|error| self.failed(error))?;
            self.made.insert(path.clone().into(), Content::Folder);
        }
        Ok(())
    }

    /// Refuses a path that something else was made at, and so whatever would go through a symlink.
    fn check_new(&self, path: &Path) -> Result<(), TakeError> {
        if self.made.contains_key(path.as_os_str()) {
            return Err(refused(path, "is in the archive twice"));
        }
        self.limits.check_entries(self.made.len(), "the upload")
    }

    fn file(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path) -> Result<Content, TakeError> {
        if is_sparse(entry) {
            return Err(refused(path, foreign(EntryType::GNUSparse)));
        }
        let size = entry.size();
        self.bytes = self.bytes.saturating_add(size);
        self.limits.check_bytes(self.bytes)?;
        let executable = entry.header().mode().map_err(not_whole)? & 0o111 != 0;
        let file = make_file(&self.to.join(path)).map_err(|error| self.failed(error))?;
        let digest = self.content(entry, &file, size)?;
        file.set_permissions(mode(executable)).map_err(|error| self.failed(error))?;
        Ok(Content::File { executable, digest })
    }

    /// Copies and hashes in one pass. The disk begins with what is there of a long file while the rest still comes, so that
    /// little is left to be waited for in the end.
    fn content(&mut self, from: &mut impl Read, to: &File, size: u64) -> Result<Digest, TakeError> {
        let (more, wanted) = sync_channel(1);
        if size < LONG {
            return self.copy(from, to, size, &more);
        }
        std::thread::scope(|scope| {
            let writing = scope.spawn(move || wanted.iter().try_for_each(|()| to.sync_data()));
            let copied = self.copy(from, to, size, &more);
            drop(more);
            let written = writing.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
            // What the disk said once it does not say again.
            written.map_err(|error| self.failed(error)).and(copied)
        })
    }

    /// The same; says each time that there is `more` for the disk.
    fn copy(
        &mut self,
        from: &mut impl Read,
        mut to: &File,
        size: u64,
        more: &SyncSender<()>,
    ) -> Result<Digest, TakeError> {
        let mut hash = blake3::Hasher::new();
        let mut left = size;
        while left > 0 {
            let have = from.read(&mut self.buffer).map_err(not_whole)?;
            if have == 0 {
                return Err(not_whole(io::ErrorKind::UnexpectedEof.into()));
            }
            let read = &self.buffer[..have];
            hash.update(read);
            to.write_all(read).map_err(|error| self.failed(error))?;
            let before = left;
            left = left.saturating_sub(have as u64);
            if before / LONG > left / LONG {
                // One that is busy still takes this along.
                let _ = more.try_send(());
            }
        }
        Ok(digest::of(&hash))
    }

    fn failed(&self, error: io::Error) -> TakeError {
        cannot_write("the upload", self.bytes, error)
    }
}

/// The path of an entry in the release; empty for the release itself.
fn path_of(bytes: &[u8]) -> Result<PathBuf, TakeError> {
    let written = Path::new(OsStr::from_bytes(bytes));
    let mut path = PathBuf::new();
    for component in written.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(name) => {
                path.push(name);
                check_name(name, &show(&path))?;
            }
            Component::ParentDir => return Err(refused(written, "has '..' in it")),
            Component::RootDir | Component::Prefix(_) => {
                return Err(refused(written, "is an absolute path; make the archive from within the folder"));
            }
        }
    }
    Ok(path)
}

/// Whether an entry's bytes are not simply those of the file, as GNU tar writes files with holes.
fn is_sparse(entry: &mut Entry<'_, impl Read>) -> bool {
    let Ok(Some(extensions)) = entry.pax_extensions() else { return false };
    extensions.flatten().any(|extension| extension.key_bytes().starts_with(b"GNU.sparse"))
}

/// What is said of an entry that no release has.
fn foreign(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Link => "is a hard link; make the archive with tar --hard-dereference",
        EntryType::GNUSparse => "is a sparse file; make the archive without --sparse",
        EntryType::Fifo => "is a FIFO; a release has only files, folders and symlinks within it",
        EntryType::Char | EntryType::Block => {
            "is a device; a release has only files, folders and symlinks within it"
        }
        _ => "is of an unknown kind; a release has only files, folders and symlinks within it",
    }
}

fn refused(path: &Path, why: &str) -> TakeError {
    TakeError::refused(format!("{} {why}", show(path)))
}

fn misread(allowed: &Rc<Cell<Option<u64>>>, error: io::Error) -> TakeError {
    match allowed.get() {
        None => TakeError::refused("the headers of an entry are too long"),
        Some(_) => not_whole(error),
    }
}

fn not_whole(error: io::Error) -> TakeError {
    TakeError::refused(format!("it is not a whole tar archive: {error}"))
}
