//! Whether a ZIP archive, and so a JAR, has its end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Flaw;

/// How the record at the end of an archive begins, and how long it is without its comment.
const END: &[u8] = b"PK\x05\x06";
const END_LENGTH: usize = 22;

/// The record is followed by a comment, whose length is its last field.
const LONGEST: u64 = END_LENGTH as u64 + u16::MAX as u64;

/// Finds what is wrong with an archive of `size` bytes.
pub(super) fn flaw(file: &File, size: u64) -> io::Result<Option<Flaw>> {
    let from = size.saturating_sub(LONGEST);
    let mut tail = vec![0; usize::try_from(size - from).unwrap_or_default()];
    file.read_exact_at(&mut tail, from)?;
    let is_end = |record: &[u8]| {
        let comment = usize::from(u16::from_le_bytes([record[20], record[21]]));
        record.starts_with(END) && record.len() == END_LENGTH + comment
    };
    let has_end = (0..tail.len().saturating_sub(END_LENGTH - 1)).any(|at| is_end(&tail[at..]));
    Ok((!has_end).then(|| Flaw::NotYet("is not whole yet: the end of the archive is missing".into())))
}
