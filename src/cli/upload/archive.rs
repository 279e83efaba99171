//! What is uploaded as the stream that is sent: an archive as it is, anything else as one that we make, which is the same
//! whenever the content is.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tar::{Builder, EntryType, Header};

use crate::model::release::Digest;

/// How much is read and written at a time.
const CHUNK: usize = 256 << 10;

/// The names of files that are archives already.
const ARCHIVES: [&str; 5] = [".tar", ".tar.zst", ".tzst", ".tar.gz", ".tgz"];

/// What is uploaded.
pub(super) enum Source {
    /// An archive, as it is.
    Archive(PathBuf),
    /// These, sorted by path.
    Items(Vec<Item>),
}

/// A part of a release.
pub(super) struct Item {
    /// Where it is.
    from: PathBuf,
    /// Where it is in the release.
    to: PathBuf,
    kind: Kind,
}

enum Kind {
    Folder,
    File { size: u64, executable: bool },
    Link(PathBuf),
}

impl Source {
    /// What is at `path`; a file that is no archive is to be the release binary `bin`.
    pub(super) fn of(path: &Path, bin: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        // The path itself may be a symlink; within a folder they are kept as they are.
        let meta = fs::metadata(path).with_context(|| format!("{shown} can't be uploaded"))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if meta.is_dir() {
            return Ok(Self::Items(items(path)?));
        }
        if !meta.is_file() {
            bail!("{shown} can't be uploaded: it is neither a file nor a folder");
        }
        if ARCHIVES.iter().any(|ending| name.ends_with(ending)) {
            return Ok(Self::Archive(path.to_owned()));
        }
        let mut items = vec![Item { from: path.to_owned(), to: bin.to_owned(), kind: kind(path, &meta)? }];
        // A file that was signed has its signature beside it.
        let signature = path.with_added_extension("minisig");
        if let Ok(meta) = fs::metadata(&signature) {
            let to = bin.with_added_extension("minisig");
            items.push(Item { kind: kind(&signature, &meta)?, from: signature, to });
        }
        Ok(Self::Items(items))
    }

    /// The digest of the stream, and how many bytes it has.
    pub(super) fn measure(&self) -> io::Result<(Digest, u64)> {
        let mut measure = Measure { hasher: blake3::Hasher::new(), bytes: 0 };
        self.write(&mut measure)?;
        Ok((Digest(*measure.hasher.finalize().as_bytes()), measure.bytes))
    }

    /// Writes the stream.
    pub(super) fn write(&self, out: impl Write) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(CHUNK, out);
        match self {
            Self::Archive(path) => {
                io::copy(&mut File::open(path)?, &mut out)?;
            }
            Self::Items(items) => {
                let mut archive = Builder::new(&mut out);
                for item in items {
                    item.write(&mut archive).map_err(|error| named(&item.from, &error))?;
                }
                archive.finish()?;
            }
        }
        out.flush()
    }
}

impl Item {
    fn write(&self, archive: &mut Builder<impl Write>) -> io::Result<()> {
        let mut header = Header::new_gnu();
        // Times and owners stay 0: they are no part of a release.
        header.set_mode(0o755);
        header.set_size(0);
        match &self.kind {
            Kind::Folder => {
                header.set_entry_type(EntryType::Directory);
                archive.append_data(&mut header, &self.to, io::empty())
            }
            Kind::Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                archive.append_link(&mut header, &self.to, target)
            }
            Kind::File { size, executable } => {
                header.set_mode(if *executable { 0o755 } else { 0o644 });
                header.set_size(*size);
                let mut file = BufReader::with_capacity(CHUNK, File::open(&self.from)?).take(*size);
                archive.append_data(&mut header, &self.to, &mut file)?;
                if file.limit() > 0 || !is_at_end(file.into_inner())? {
                    return Err(io::Error::other("it changed while it was being uploaded"));
                }
                Ok(())
            }
        }
    }
}

fn is_at_end(mut file: impl Read) -> io::Result<bool> {
    Ok(file.read(&mut [0])? == 0)
}

/// All that is in a folder, sorted as the bytes of the paths are.
fn items(root: &Path) -> anyhow::Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        for entry in fs::read_dir(&path).with_context(|| format!("{} can't be read", path.display()))? {
            let entry = entry?;
            let (from, to) = (entry.path(), folder.join(entry.file_name()));
            let kind = kind(&from, &entry.metadata()?)?;
            if let Kind::Folder = kind {
                folders.push(to.clone());
            }
            items.push(Item { from, to, kind });
        }
    }
    items.sort_unstable_by(|a, b| a.to.as_os_str().as_bytes().cmp(b.to.as_os_str().as_bytes()));
    Ok(items)
}

fn kind(path: &Path, meta: &fs::Metadata) -> anyhow::Result<Kind> {
    Ok(if meta.is_dir() {
        Kind::Folder
    } else if meta.is_symlink() {
        Kind::Link(fs::read_link(path)?)
    } else if meta.is_file() {
        Kind::File { size: meta.len(), executable: meta.permissions().mode() & 0o111 != 0 }
    } else {
        bail!("{} is no file, folder or symlink, and a release has nothing else", path.display())
    })
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Hashes and counts.
struct Measure {
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
