//! Whether a program is complete, and one that this host can run.

mod elf;
mod script;

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::upload::{Refusal, TakeError, Upload};

/// How much of a file's beginning tells what it is; the kernel reads as much of a script.
const HEAD: usize = 256;

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
    let failed = |error| TakeError::io(format!("could not read the copy of {shown}"), error);
    let meta = file.metadata().map_err(failed)?;
    if meta.is_dir() {
        return Err(TakeError::refused(format!("{shown} is a folder, not a program")));
    }
    match flaw(&file, meta.len()).map_err(failed)? {
        Some(Flaw::NotYet(why)) => Err(TakeError::NotWhole(format!("{} {why}", name.display()))),
        Some(Flaw::Never(why)) => Err(TakeError::Refused(Refusal(format!("{shown} {why}")))),
        None if meta.mode() & 0o111 == 0 => {
            Err(TakeError::refused(format!("{shown} is not executable; try: chmod +x {shown}")))
        }
        None => Ok(()),
    }
}

fn flaw(file: &File, size: u64) -> std::io::Result<Option<Flaw>> {
    let mut head = [0; HEAD];
    let mut have = 0;
    while have < HEAD {
        match file.read_at(&mut head[have..], have as u64)? {
            0 => break,
            more => have += more,
        }
    }
    let head = &head[..have];
    if head.is_empty() {
        return Ok(Some(Flaw::NotYet("is not whole yet: it is empty".into())));
    }
    if head.starts_with(elf::MAGIC) {
        return elf::flaw(size, &|offset, buffer| file.read_exact_at(buffer, offset));
    }
    if elf::MAGIC.starts_with(head) || head == b"#" {
        return Ok(Some(Flaw::NotYet("is not whole yet: it has only its first bytes".into())));
    }
    Ok(match head.strip_prefix(b"#!") {
        Some(line) => script::flaw(line),
        None => Some(Flaw::Never(foreign(head).into())),
    })
}

/// What a file is that is neither an ELF program nor a script.
fn foreign(head: &[u8]) -> &'static str {
    match head {
        [b'P', b'K', 3, 4, ..] => {
            "is a JAR or ZIP archive, not a program; let the release binary be a script that starts it"
        }
        [b'M', b'Z', ..] => "is a program for Windows, not for Linux",
        [0xcf, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => {
            "is a program for macOS, not for Linux"
        }
        _ => "is neither an ELF program nor a script that starts with #!",
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
        flaw(&file, content.len() as u64).unwrap()
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
    fn the_test_itself_is_whole_until_it_is_cut() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(of(&program), None);
        for keep in [5, 64, 4096, program.len() / 2, program.len() - 1] {
            assert!(matches!(of(&program[..keep]), Some(Flaw::NotYet(_))), "{keep}");
        }
    }
}
