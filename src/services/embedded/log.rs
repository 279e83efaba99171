//! The log of one service: a file that is rotated once, so that it stays bounded.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A log file grows to this size, then it becomes the previous one, and the one before that goes.
const MAX_SIZE: u64 = 8 << 20;

/// How much of the end of a log is read to find its last lines.
const MAX_TAIL: u64 = 256 << 10;

/// The writer of a log.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    max: u64,
}

impl Log {
    /// Opens the log to write at its end.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = append_to(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, max: MAX_SIZE })
    }

    /// Adds what a service wrote.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let added = bytes.len() as u64;
        if self.size > 0 && self.size + added > self.max {
            fs::rename(&self.path, previous(&self.path))?;
            self.file = append_to(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(bytes)?;
        self.size += added;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Where the log before the current one is.
fn previous(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// Removes a log and the one before it.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    for path in [path, &previous(path)] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// A place in a log: where a service's output begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    // An inode number alone comes again after two rotations.
    file: (u64, Option<SystemTime>),
    offset: u64,
}

impl Mark {
    /// The end of the log as it is now; creates the log where there is none.
    pub(super) fn at_end(path: &Path) -> io::Result<Self> {
        let file = append_to(path)?;
        Ok(Self { file: identity(&file)?, offset: file.metadata()?.len() })
    }
}

fn identity(file: &File) -> io::Result<(u64, Option<SystemTime>)> {
    let meta = file.metadata()?;
    Ok((meta.ino(), meta.created().ok()))
}

/// The last lines that were written after `mark`, oldest first.
pub(super) fn last_lines(path: &Path, mark: Mark, count: usize) -> io::Result<Vec<String>> {
    let mut text = Vec::new();
    let mut current = File::open(path)?;
    if identity(&current)? == mark.file {
        read_tail(&mut current, mark.offset, &mut text)?;
    } else {
        if let Ok(mut old) = File::open(previous(path)) {
            let from = if identity(&old)? == mark.file { mark.offset } else { 0 };
            read_tail(&mut old, from, &mut text)?;
        }
        read_tail(&mut current, 0, &mut text)?;
    }
    let text = String::from_utf8_lossy(&text);
    let mut lines = VecDeque::new();
    for line in text.lines() {
        lines.push_back(line.to_owned());
        if lines.len() > count {
            lines.pop_front();
        }
    }
    Ok(lines.into())
}

fn read_tail(file: &mut File, from: u64, into: &mut Vec<u8>) -> io::Result<()> {
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(size.saturating_sub(MAX_TAIL))))?;
    file.take(MAX_TAIL).read_to_end(into)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_stays_bounded_and_loses_no_line_at_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("green.log");
        let mut log = Log::open(&path).unwrap();
        log.max = 100;
        log.write(b"before\n").unwrap();
        let mark = Mark::at_end(&path).unwrap();
        for n in 0..9 {
            log.write(format!("line {n} ....\n").as_bytes()).unwrap();
        }
        let lines = last_lines(&path, mark, 20).unwrap();
        assert_eq!(lines.len(), 9, "{lines:?}");
        assert_eq!(lines[0], "line 0 ....");
        assert_eq!(last_lines(&path, mark, 2).unwrap(), ["line 7 ....", "line 8 ...."]);
        for _ in 0..100 {
            log.write(b"0123456789\n").unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() <= 100);
        assert!(fs::metadata(previous(&path)).unwrap().len() <= 100);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
