//! Whether an ELF program is complete and for this host.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Flaw, runs_here};
use crate::releases::upload::thousands;

/// What every ELF file starts with.
pub(super) const MAGIC: &[u8] = b"\x7fELF";

/// Fills the buffer from that offset of the file, or fails.
type ReadAt<'a> = &'a dyn Fn(u64, &mut [u8]) -> io::Result<()>;

const EXECUTABLE: u16 = 2;
const SHARED_OR_PIE: u16 = 3;
const INTERPRETER: u32 = 3;
const WITHOUT_CONTENT: u32 = 8;

/// The machines that a 64-bit Linux may be, by their number, their Rust name and their byte order.
const MACHINES: [(u16, &str); 6] = [
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
    (21, "powerpc64"),
    (22, "s390x"),
    (258, "loongarch64"),
];

/// Finds what is wrong with an ELF file of `size` bytes.
pub(super) fn flaw(size: u64, read_at: ReadAt<'_>) -> io::Result<Option<Flaw>> {
    if size < 64 {
        return Ok(Some(missing(64 - size)));
    }
    let mut header = [0; 64];
    read_at(0, &mut header)?;
    if let Some(why) = foreign(&header) {
        return Ok(Some(Flaw::Never(why)));
    }
    let elf = Elf { header, size, read_at };
    let programs = elf.table(elf.long(32), elf.short(54), elf.short(56), 56)?;
    let sections = elf.table(elf.long(40), elf.short(58), elf.short(60), 64)?;
    let (programs, sections) = match (programs, sections) {
        (Ok(programs), Ok(sections)) => (programs, sections),
        (Err(flaw), Ok(_)) | (Ok(_), Err(flaw)) => return Ok(Some(flaw)),
        // The section headers come last in a file.
        (Err(_), Err(flaw)) => return Ok(Some(flaw)),
    };
    let segments = programs.iter().map(|p| u64_at(p, 8).saturating_add(u64_at(p, 32)));
    let contents = sections.iter().filter(|s| u32_at(s, 4) != WITHOUT_CONTENT);
    let contents = contents.map(|s| u64_at(s, 24).saturating_add(u64_at(s, 32)));
    let reach = segments.chain(contents).max().unwrap_or(0);
    if reach > size {
        return Ok(Some(missing(reach - size)));
    }
    match programs.iter().find(|program| u32_at(program, 0) == INTERPRETER) {
        Some(program) => elf.interpreter(program),
        None => Ok(None),
    }
}

fn missing(bytes: u64) -> Flaw {
    let bytes = thousands(bytes);
    Flaw::NotYet(format!("is not whole yet: its ELF headers reach {bytes} bytes beyond its end"))
}

/// Why a program with this header can't be one of this host.
fn foreign(header: &[u8; 64]) -> Option<String> {
    let host = std::env::consts::ARCH;
    let order = if header[5] == 2 { u16::from_be_bytes } else { u16::from_le_bytes };
    let machine = order([header[18], header[19]]);
    let name = MACHINES.iter().find(|(number, _)| *number == machine).map(|(_, name)| *name);
    let bits = if header[4] == 2 { 64 } else { 32 };
    let name = match (name, machine, bits) {
        (Some(name), _, 64) => name.to_owned(),
        (_, 3, _) => "32-bit x86".to_owned(),
        (_, 40, _) => "32-bit ARM".to_owned(),
        (name, ..) => format!("a {bits}-bit {}", name.unwrap_or("machine that dorc does not know")),
    };
    if name != host {
        return Some(format!("is for {name}, this host is {host}"));
    }
    match order([header[16], header[17]]) {
        EXECUTABLE | SHARED_OR_PIE => None,
        _ => Some("is an ELF file, but not a program (an object file or a core dump)".into()),
    }
}

/// An ELF file of this host's own machine, so in its own byte order, and of 64 bits.
struct Elf<'a> {
    header: [u8; 64],
    size: u64,
    read_at: ReadAt<'a>,
}

impl Elf<'_> {
    fn short(&self, at: usize) -> u16 {
        u16::from_ne_bytes([self.header[at], self.header[at + 1]])
    }

    fn long(&self, at: usize) -> u64 {
        u64_at(&self.header, at)
    }

    /// The rows of a table of headers, each of which has `expected` bytes. That is checked, because the number of
    /// rows and their width together could ask for gigabytes.
    fn table(&self, at: u64, width: u16, rows: u16, expected: u16) -> io::Result<Result<Vec<Vec<u8>>, Flaw>> {
        if at == 0 || rows == 0 {
            return Ok(Ok(Vec::new()));
        }
        if width != expected {
            return Ok(Err(Flaw::Never("is a broken ELF file: its headers have an unknown width".into())));
        }
        let length = usize::from(width) * usize::from(rows);
        let end = at.saturating_add(length as u64);
        if end > self.size {
            return Ok(Err(missing(end - self.size)));
        }
        let mut table = vec![0; length];
        (self.read_at)(at, &mut table)?;
        Ok(Ok(table.chunks(usize::from(width)).map(<[u8]>::to_vec).collect()))
    }

    fn interpreter(&self, program: &[u8]) -> io::Result<Option<Flaw>> {
        let length = usize::try_from(u64_at(program, 32)).unwrap_or(usize::MAX).min(4096);
        let mut path = vec![0; length];
        (self.read_at)(u64_at(program, 8), &mut path)?;
        let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
        let path = Path::new(OsStr::from_bytes(path));
        Ok((!runs_here(path)).then(|| {
            let path = path.to_string_lossy();
            Flaw::Never(format!(
                "needs the loader {path:?}, which this host does not have (was it built for another system?)"
            ))
        }))
    }
}

fn u32_at(row: &[u8], at: usize) -> u32 {
    row.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn u64_at(row: &[u8], at: usize) -> u64 {
    row.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program of this host without any table.
    fn header() -> Vec<u8> {
        let machine = MACHINES.iter().find(|(_, name)| *name == std::env::consts::ARCH).unwrap().0;
        let order = if cfg!(target_endian = "big") { 2 } else { 1 };
        let mut header = vec![0; 64];
        header[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, order]);
        header[16..18].copy_from_slice(&2_u16.to_ne_bytes());
        header[18..20].copy_from_slice(&machine.to_ne_bytes());
        header
    }

    fn of(file: &[u8]) -> Option<Flaw> {
        flaw(file.len() as u64, &|at, buffer| {
            let at = usize::try_from(at).unwrap();
            buffer.copy_from_slice(&file[at..at + buffer.len()]);
            Ok(())
        })
        .unwrap()
    }

    #[test]
    fn headers_reach_no_further_than_the_end() {
        let mut file = header();
        assert_eq!(of(&file), None);
        file[40..48].copy_from_slice(&1234_u64.to_ne_bytes());
        file[58..60].copy_from_slice(&64_u16.to_ne_bytes());
        file[60..62].copy_from_slice(&1_u16.to_ne_bytes());
        assert_eq!(of(&file), Some(missing(1234)));
        file[40..48].copy_from_slice(&u64::MAX.to_ne_bytes());
        assert!(matches!(of(&file), Some(Flaw::NotYet(_))));
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_headers_say_is_an_answer(
            at in 16_usize..120, bytes in proptest::array::uniform8(0_u8..), rows in 0_u16..4
        ) {
            let mut file = header();
            file.resize(64 + 4 * 64, 1);
            for table in [32, 40] {
                file[table..table + 8].copy_from_slice(&64_u64.to_ne_bytes());
            }
            for (at, value) in [(54, 56), (56, rows), (58, 64), (60, rows)] {
                file[at..at + 2].copy_from_slice(&value.to_ne_bytes());
            }
            file[at..at + 8].copy_from_slice(&bytes);
            of(&file);
        }
    }

    #[test]
    fn other_machines_and_object_files_are_refused() {
        let mut file = header();
        file[18..20].copy_from_slice(&8_u16.to_ne_bytes());
        assert!(matches!(of(&file), Some(Flaw::Never(why)) if why.contains("this host is")));
        let mut file = header();
        file[16..18].copy_from_slice(&1_u16.to_ne_bytes());
        assert!(matches!(of(&file), Some(Flaw::Never(why)) if why.contains("object file")));
    }

    #[test]
    fn the_loader_must_be_there() {
        let mut file = header();
        file[32..40].copy_from_slice(&64_u64.to_ne_bytes());
        file[54..56].copy_from_slice(&56_u16.to_ne_bytes());
        file[56..58].copy_from_slice(&1_u16.to_ne_bytes());
        let mut program = vec![0; 56];
        program[..4].copy_from_slice(&3_u32.to_ne_bytes());
        program[8..16].copy_from_slice(&120_u64.to_ne_bytes());
        program[32..40].copy_from_slice(&8_u64.to_ne_bytes());
        file.extend(program);
        assert_eq!(of(&file), Some(missing(8)));
        file.extend(b"/bin/no\0");
        assert!(matches!(of(&file), Some(Flaw::Never(why)) if why.contains("\"/bin/no\"")));
        file.truncate(120);
        file.extend(b"/bin/sh\0");
        assert_eq!(of(&file), None);
    }
}
