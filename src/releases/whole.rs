//! Whether a program is complete, and one that this host can run.

mod archive;
mod elf;
mod script;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::upload::{Refusal, TakeError, Upload};

/// How much of a file's beginning tells what it is; the kernel reads as much of a script.
const HEAD: usize = 256;

/// How a ZIP archive begins, and so a JAR.
const ARCHIVE: &[u8] = b"PK\x03\x04";

/// What is wrong with a program; both sentences go on from its name.
#[derive(Debug, PartialEq, Eq)]
enum Flaw {
    /// Some of it seems to be missing still.
    NotYet(String),
    /// It will never run here as it is.
    Never(String),
}

/// Checks the binary of the copied upload in `copy`.
///
/// # Errors
/// `NotWhole` while it is not complete, `Refused` if it can't be run here.
pub(super) fn check(copy: &Path, upload: &Upload) -> Result<(), TakeError> {
    let name = upload.bin.in_release();
    let shown = upload.shown(&name);
    // The symlinks of the copy don't lead out of it, so neither does this one.
    let Ok(file) = File::open(copy.join(&name)) else {
        return Err(TakeError::refused(format!("{shown} is a symlink to nothing in the upload")));
    };
    let failed = |error: io::Error| TakeError::io(format!("could not read the copy of {shown}"), error);
    let meta = file.metadata().map_err(failed)?;
    if meta.is_dir() {
        return Err(TakeError::refused(format!("{shown} is a folder, not a program")));
    }
    let kind = Kind::of(&file).map_err(failed)?;
    let flaw = if upload.is_started {
        flaw(&kind, &file, meta.len())
    } else {
        flaw_of_what_is_read(&kind, &file, meta.len())
    };
    match flaw.map_err(failed)? {
        Some(Flaw::NotYet(why)) => Err(TakeError::NotWhole(format!("{} {why}", name.display()))),
        Some(Flaw::Never(why)) => Err(TakeError::Refused(Refusal(format!("{shown} {why}")))),
        None if upload.is_started && meta.mode() & 0o111 == 0 => {
            Err(TakeError::refused(format!("{shown} is not executable; try: chmod +x {shown}")))
        }
        None => Ok(()),
    }
}

/// What a file is, by its beginning.
enum Kind {
    /// Too little of it is there to say.
    Begun(&'static str),
    Elf,
    /// What follows `#!`.
    Script(Vec<u8>),
    /// Neither; its beginning.
    Other(Vec<u8>),
}

impl Kind {
    fn of(file: &File) -> io::Result<Self> {
        let mut head = vec![0; HEAD];
        let mut have = 0;
        while have < HEAD {
            match file.read_at(&mut head[have..], have as u64)? {
                0 => break,
                more => have += more,
            }
        }
        head.truncate(have);
        Ok(match head.strip_prefix(b"#!") {
            _ if head.is_empty() => Self::Begun("it is empty"),
            _ if head.starts_with(elf::MAGIC) => Self::Elf,
            _ if elf::MAGIC.starts_with(&head) || head == b"#" => Self::Begun("it has only its first bytes"),
            Some(line) => Self::Script(line.to_vec()),
            None => Self::Other(head),
        })
    }
}

fn begun(so_far: &str) -> Flaw {
    Flaw::NotYet(format!("is not whole yet: {so_far}"))
}

fn flaw(kind: &Kind, file: &File, size: u64) -> io::Result<Option<Flaw>> {
    Ok(match kind {
        Kind::Begun(so_far) => Some(begun(so_far)),
        Kind::Elf => return elf::flaw(size, &|offset, buffer| file.read_exact_at(buffer, offset)),
        Kind::Script(line) => script::flaw(line),
        Kind::Other(head) => Some(Flaw::Never(foreign(head).into())),
    })
}

/// The same for a file that another program reads, as `java -jar {bin}` does: whatever that can make of it is right.
fn flaw_of_what_is_read(kind: &Kind, file: &File, size: u64) -> io::Result<Option<Flaw>> {
    match kind {
        Kind::Begun(so_far) => Ok(Some(begun(so_far))),
        Kind::Elf => flaw(kind, file, size),
        Kind::Other(head) if head.starts_with(ARCHIVE) => archive::flaw(file, size),
        Kind::Script(_) | Kind::Other(_) => Ok(None),
    }
}

/// What a file is that is neither an ELF program nor a script.
fn foreign(head: &[u8]) -> &'static str {
    match head {
        _ if head.starts_with(ARCHIVE) => {
            "is a JAR or ZIP archive, not a program; name what starts it in the app file: \
             start = \"/usr/bin/java -jar {bin}\""
        }
        [b'M', b'Z', ..] => "is a program for Windows, not for Linux",
        [0xcf, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => {
            "is a program for macOS, not for Linux"
        }
        _ => {
            "is neither an ELF program nor a script that starts with #!; if another program is to read it, name that \
             in the app file: start = \"/usr/bin/python3 {bin}\""
        }
    }
}

/// Whether there is a program at `path` of this host.
fn runs_here(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn of(content: &[u8]) -> Option<Flaw> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        flaw(&Kind::of(&file).unwrap(), &file, content.len() as u64).unwrap()
    }

    #[test]
    fn what_is_no_program_is_told_apart() {
        assert!(matches!(of(b""), Some(Flaw::NotYet(_))));
        assert!(matches!(of(b"\x7fEL"), Some(Flaw::NotYet(_))));
        assert!(matches!(of(b"#"), Some(Flaw::NotYet(_))));
        assert!(matches!(of(b"hello\n"), Some(Flaw::Never(why)) if why.contains("neither")));
        assert!(matches!(of(b"PK\x03\x04"), Some(Flaw::Never(why)) if why.contains("JAR")));
        assert_eq!(of(b"#!/bin/sh\n"), None);
    }

    #[test]
    fn what_another_program_reads_is_free_but_whole() {
        let read = |content: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(content).unwrap();
            flaw_of_what_is_read(&Kind::of(&file).unwrap(), &file, content.len() as u64).unwrap()
        };
        assert_eq!(read(b"print('hello')\n"), None);
        assert_eq!(read(b"#!/opt/not/here\n"), None);
        assert!(matches!(read(b""), Some(Flaw::NotYet(_))));
        let mut jar = [ARCHIVE, &[0; 100], b"PK\x05\x06", &[0; 18]].concat();
        assert_eq!(read(&jar), None);
        jar.pop();
        assert!(matches!(read(&jar), Some(Flaw::NotYet(why)) if why.contains("archive")));
    }

    #[test]
    fn the_test_itself_is_whole_until_it_is_cut() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(of(&program), None);
        for keep in [5, 64, 4096, program.len() / 2, program.len() - 1] {
            assert!(matches!(of(&program[..keep]), Some(Flaw::NotYet(_))), "{keep}");
        }
    }
}
