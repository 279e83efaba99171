//! Why a program could not be started, in words that help.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::io::Errno;

/// The reason, as a sentence without a full stop.
pub(super) fn explain(program: &Path, error: &io::Error) -> String {
    let name = program.display();
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => match interpreter(program) {
            Some(interpreter) => format!("{name} can't be run: its interpreter {interpreter} is missing"),
            None => format!("{name} does not exist"),
        },
        Some(Errno::ACCESS) => match fs::metadata(program) {
            Ok(meta) if meta.is_dir() => format!("{name} is a folder and no program"),
            Ok(meta) if meta.permissions().mode() & 0o111 == 0 => {
                format!("{name} is not executable: chmod +x it before it is uploaded")
            }
            _ => format!("{name} may not be run: {error}; is its file system mounted noexec?"),
        },
        Some(Errno::NOEXEC) => not_a_program(program),
        Some(Errno::TXTBSY) => format!("{name} is still open for writing"),
        Some(Errno::TOOBIG) => format!("{name}: its arguments and environment are too long"),
        _ => format!("{name} can't be run: {error}"),
    }
}

fn head(program: &Path) -> Vec<u8> {
    let mut head = Vec::new();
    if let Ok(file) = File::open(program) {
        // What can't be read leaves the head empty, and that is said below.
        let _ = file.take(4096).read_to_end(&mut head);
    }
    head
}

/// What is to run an existing program: the script's interpreter, or the dynamic loader.
fn interpreter(program: &Path) -> Option<String> {
    let head = head(program);
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next()?;
        let line = String::from_utf8_lossy(line);
        let words = line.trim_matches([' ', '\t']);
        // A carriage return is what is wrong then, so it has to be seen.
        return words.split([' ', '\t']).next().map(|word| format!("{:?}", word).replace('"', ""));
    }
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    // Every dynamic loader's path starts like this, and the path is near the start of the file.
    let at = head.windows(4).position(|window| window == b"/lib")?;
    let path = head[at..].split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(path).into_owned())
}

fn not_a_program(program: &Path) -> String {
    let name = program.display();
    let head = head(program);
    if head.is_empty() {
        return format!("{name} is empty, or can't be read");
    }
    if !head.starts_with(b"\x7fELF") {
        return format!("{name} is no program: neither ELF nor a script that starts with #!");
    }
    let little = head.get(5) == Some(&1);
    let machine = head.get(18..20).map_or(0, |bytes| match bytes {
        [a, b] if little => u16::from_le_bytes([*a, *b]),
        [a, b] => u16::from_be_bytes([*a, *b]),
        _ => 0,
    });
    match machine_name(machine) {
        Some(machine) if machine != std::env::consts::ARCH => {
            format!("{name} was built for {machine}, and this machine is {}", std::env::consts::ARCH)
        }
        _ => format!(
            "{name} is a damaged ELF file, or was built for another machine than {}",
            std::env::consts::ARCH
        ),
    }
}

fn machine_name(machine: u16) -> Option<&'static str> {
    Some(match machine {
        3 => "x86",
        8 => "mips",
        20 => "powerpc",
        21 => "powerpc64",
        22 => "s390x",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        258 => "loongarch64",
        _ => return None,
    })
}
