//! What the digest of a release is of: the paths, kinds, executable bits and contents of its entries.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::model::release::Digest;

/// What one entry of a release is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Content {
    /// A folder.
    Folder,
    /// A regular file, by its bytes.
    File { executable: bool, digest: Digest },
    /// A symlink, by its target.
    Link(Digest),
}

/// The digest of a release in the making.
#[derive(Default)]
pub(super) struct TreeDigest(blake3::Hasher);

impl TreeDigest {
    /// Adds the next entry; they come sorted by the bytes of their paths.
    pub(super) fn add(&mut self, path: &Path, content: &Content) {
        let (letter, digest) = match content {
            Content::Folder => (b'd', Digest([0; 32])),
            Content::File { executable, digest } => (if *executable { b'x' } else { b'f' }, *digest),
            Content::Link(digest) => (b'l', *digest),
        };
        let path = path.as_os_str().as_bytes();
        self.0.update(&[letter]).update(&(path.len() as u64).to_le_bytes()).update(path);
        self.0.update(&digest.0);
    }

    pub(super) fn finish(&self) -> Digest {
        of(&self.0)
    }
}

/// What a hasher has come to.
pub(super) fn of(hasher: &blake3::Hasher) -> Digest {
    Digest(*hasher.finalize().as_bytes())
}
