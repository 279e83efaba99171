//! Archives that are made to do harm, or that no release can be made of.

use std::process::Command;

use dorc::releases::upload::{Limits, TakeError};
use tar::{Builder, EntryType, Header};

use super::{Place, gzip, zstd};

/// An archive of a program and of what `add` adds to it.
fn with(add: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    entry(&mut archive, "web", EntryType::Regular, "", b"#!/bin/sh\n");
    add(&mut archive);
    archive.into_inner().unwrap()
}

/// Adds an entry byte for byte as it is said, which the library itself would refuse to do.
fn entry(archive: &mut Builder<Vec<u8>>, path: &str, kind: EntryType, to: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    let fields = header.as_gnu_mut().unwrap();
    fields.name[..path.len()].copy_from_slice(path.as_bytes());
    fields.linkname[..to.len()].copy_from_slice(to.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o6755);
    header.set_size(content.len() as u64);
    header.set_cksum();
    archive.append(&header, content).unwrap();
}

fn one(path: &str, kind: EntryType, to: &str) -> Vec<u8> {
    with(|archive| entry(archive, path, kind, to, b""))
}

#[tokio::test]
async fn what_a_release_may_not_have_is_refused() {
    use EntryType as Type;
    let twice = |kind, to| {
        with(|archive| {
            entry(archive, "link", kind, to, b"");
            entry(archive, "link/passwd", Type::Regular, "", b"mine");
        })
    };
    let place = Place::new();
    for (stream, why) in [
        (one("/etc/cron.d/job", Type::Regular, ""), "absolute path"),
        (one("a/../../job", Type::Regular, ""), "'..'"),
        (one("..", Type::Directory, ""), "'..'"),
        (one("link", Type::Symlink, "/etc/passwd"), "is absolute"),
        (one("link", Type::Symlink, "../secret"), "leads out"),
        (one("link", Type::Symlink, "a/../../secret"), "'..' in its middle"),
        (one("link", Type::Link, "web"), "hard link"),
        (one("null", Type::Char, ""), "is a device"),
        (one("disk", Type::Block, ""), "is a device"),
        (one("pipe", Type::Fifo, ""), "is a FIFO"),
        (one("what", Type::new(b'Q'), ""), "unknown kind"),
        (one("a\nb", Type::Regular, ""), "control characters"),
        (one("web", Type::Regular, ""), "twice"),
        (one("web", Type::Directory, ""), "twice"),
        (one("web/below", Type::Regular, ""), "twice"),
        (one("./", Type::Regular, ""), "no name"),
        (twice(Type::Symlink, "."), "link is in the archive twice"),
        (twice(Type::Symlink, "/etc"), "is absolute"),
        (b"\x7fELF is no archive".repeat(100), "not a whole tar archive"),
        (Vec::new(), "has no web"),
        (gzip(b""), "has no web"),
        (b"\x28\xb5\x2f\xfd and nonsense".to_vec(), "not a whole tar archive"),
    ] {
        let reason = place.refused(&stream).await;
        assert!(reason.contains(why), "{why}: {reason}");
    }
}

#[tokio::test]
async fn files_with_holes_are_not_misread() {
    let place = Place::new();
    let made = "cd $1; printf '#!/bin/sh\n' >web; chmod 755 web; truncate -s 1M holes; echo end >>holes";
    let dir = &place.upload.dir;
    assert!(Command::new("sh").args(["-ec", made, "sh"]).arg(dir).status().unwrap().success());
    for format in ["--format=gnu", "--format=pax"] {
        let reason = place.refused(&place.tar(&["--sparse", format, "."])).await;
        assert!(reason.contains("is a sparse file"), "{format}: {reason}");
    }
    place.receive(&place.tar(&["."])).await.unwrap();
}

#[tokio::test]
async fn the_program_is_checked_as_that_of_a_directory() {
    let place = Place::new();
    let program = |content: &[u8], mode| {
        let mut archive = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, "web", content).unwrap();
        archive.into_inner().unwrap()
    };
    assert!(place.refused(&program(b"hello\n", 0o755)).await.contains("neither an ELF program"));
    assert!(place.refused(&program(b"#!/bin/sh\n", 0o644)).await.contains("web is not executable"));
    let elf = std::fs::read("/bin/sh").unwrap();
    let error = place.receive(&program(&elf[..elf.len() / 2], 0o755)).await.unwrap_err().to_string();
    assert!(error.contains("not whole"), "{error}");
    place.receive(&program(&elf, 0o755)).await.unwrap();
}

#[tokio::test]
async fn limits_hold_for_what_it_decompresses_to() {
    let limits = Limits { entries: 20, depth: 3, bytes: 1 << 20 };
    let place = Place::with(limits);
    let zeros = vec![0; 64 << 20];
    let many = with(|archive| {
        for number in 0..20 {
            entry(archive, &format!("a{number}"), EntryType::Regular, "", b"");
        }
    });
    let again = with(|archive| {
        for _ in 0..30 {
            entry(archive, "folder", EntryType::Directory, "", b"");
        }
    });
    let bomb = with(|archive| entry(archive, "bomb", EntryType::Regular, "", &zeros));
    let name = with(|archive| entry(archive, "././@LongLink", EntryType::GNULongName, "", &zeros));
    let pax = with(|archive| entry(archive, "x", EntryType::XHeader, "", &zeros));
    let global = with(|archive| entry(archive, "g", EntryType::XGlobalHeader, "", &zeros));
    for (stream, why) in [
        (many, "more than 20 files"),
        (again, "more than 20 files"),
        (one("a/b/c/d/e", EntryType::Regular, ""), "deeper than 3 folders"),
        (gzip(&bomb), "more than 1,048,576 bytes"),
        (zstd(&bomb), "more than 1,048,576 bytes"),
        (gzip(&name), "headers of an entry are too long"),
        (zstd(&pax), "headers of an entry are too long"),
        (gzip(&global), "too long"),
    ] {
        let reason = place.refused(&stream).await;
        assert!(reason.contains(why), "{why}: {reason}");
    }
    // A name that is longer than a header has room for is none of these.
    let long = with(|archive| {
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("{}/name", "folder".repeat(30)), &b""[..]).unwrap();
    });
    assert_eq!(place.receive(&long).await.unwrap().files, 2);
}

#[tokio::test]
async fn whatever_is_spoilt_is_taken_or_refused_and_nothing_else() {
    let place = Place::new();
    let content: Vec<u8> = (0..4000_u32).flat_map(|number| (number * number / 7).to_le_bytes()).collect();
    let plain = with(|archive| {
        entry(archive, "a/data", EntryType::Regular, "", &content);
        entry(archive, "a/link", EntryType::Symlink, "../web", b"");
    });
    let mut random = 0x9e37_79b9_u32;
    let mut next = |below: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize % below
    };
    let mut taken = 0;
    for whole in [plain.clone(), gzip(&plain), zstd(&plain)] {
        for _ in 0..300 {
            let mut stream = whole.clone();
            for _ in 0..=next(3) {
                let at = next(stream.len());
                stream[at] = next(256) as u8;
            }
            match place.receive(&stream).await {
                Ok(_) => taken += 1,
                Err(TakeError::Refused(_) | TakeError::NotWhole(_)) => {}
                Err(other) => panic!("{other}: {stream:?}"),
            }
        }
    }
    assert!((1..900).contains(&taken), "{taken}");
    place.until_empty().await;
}
