//! What is refused, and that a less trusted user gets nothing from outside into a release.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dorc::model::release::ReleaseId;
use dorc::releases::upload::{Limits, TakeError};

use super::Place;

#[test]
fn symlinks_that_lead_out_are_refused() {
    for (target, why) in [
        ("/etc/passwd", "is absolute"),
        ("../secret", "leads out"),
        ("assets/../../secret", "'..' in its middle"),
    ] {
        let place = Place::new();
        symlink(target, place.at("link")).unwrap();
        let reason = place.refused();
        assert!(reason.contains(why) && reason.contains("upload/link"), "{reason}");
    }
}

#[test]
fn the_binary_may_be_a_symlink_within_but_not_to_nothing() {
    let place = Place::empty();
    place.write("web-1.2", "#!/bin/sh\n", 0o755);
    symlink("web-1.2", place.at("web")).unwrap();
    place.take().unwrap();
    fs::remove_file(place.at("web-1.2")).unwrap();
    assert!(place.refused().contains("symlink to nothing"));
}

#[test]
fn a_release_dir_is_not_followed_through_a_users_symlink() {
    let place = Place::new();
    let real = place.root.path().join("real");
    fs::rename(&place.upload.dir, &real).unwrap();
    symlink(&real, &place.upload.dir).unwrap();
    place.take().unwrap();
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a symlink to another user");
        return;
    }
    std::os::unix::fs::lchown(&place.upload.dir, Some(12345), None).unwrap();
    let error = place.take().unwrap_err().to_string();
    assert!(error.contains("symlink of an ordinary user"), "{error}");
}

#[test]
fn special_files_and_names_are_refused() {
    let run = |program: &str, arguments: &[&str]| {
        assert!(Command::new(program).args(arguments).status().unwrap().success());
    };
    let place = Place::new();
    run("mkfifo", &[place.at("pipe").to_str().unwrap()]);
    assert!(place.refused().contains("pipe is a FIFO"));
    fs::remove_file(place.at("pipe")).unwrap();

    let socket = std::os::unix::net::UnixListener::bind(place.at("socket")).unwrap();
    assert!(place.refused().contains("is a socket"));
    drop(socket);
    fs::remove_file(place.at("socket")).unwrap();

    place.write("a\nb", "", 0o644);
    assert!(place.refused().contains("control characters"));
    fs::remove_file(place.at("a\nb")).unwrap();

    let bytes: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff");
    File::create(place.upload.dir.join(bytes)).unwrap();
    assert!(place.refused().contains("UTF-8"));
    fs::remove_file(place.upload.dir.join(bytes)).unwrap();

    if rustix::process::geteuid().is_root() {
        run("mknod", &[place.at("null").to_str().unwrap(), "c", "1", "3"]);
        assert!(place.refused().contains("is a device"));
    } else {
        eprintln!("skipped: devices need root");
    }
}

#[test]
fn what_is_no_release_is_told() {
    let place = Place::empty();
    assert!(matches!(place.take(), Err(TakeError::Nothing)));
    fs::remove_dir(&place.upload.dir).unwrap();
    assert!(matches!(place.take(), Err(TakeError::Nothing)));
    place.write("other", "", 0o644);
    assert!(place.refused().contains("has no web"));
    place.write("web", "#!/bin/sh\n", 0o644);
    assert!(place.refused().contains("try: chmod +x"));
    place.write("web", "#!/no/such/interpreter\n", 0o755);
    assert!(place.refused().contains("needs /no/such/interpreter"));
    place.write("web", "hello", 0o755);
    assert!(place.refused().contains("neither an ELF program nor a script"));
    place.write("web", "", 0o755);
    assert!(matches!(place.take(), Err(TakeError::NotWhole(_))));
    fs::remove_file(place.at("web")).unwrap();
    fs::create_dir(place.at("web")).unwrap();
    assert!(place.refused().contains("is a folder"));
}

#[test]
fn limits_hold() {
    let place = Place::new();
    place.write("a/b/c", "12345", 0o644);
    let take = |limits| match place.store.take(&place.upload, &limits, &AtomicBool::new(false)) {
        Err(TakeError::Refused(refusal)) => refusal.to_string(),
        other => panic!("{other:?}"),
    };
    let limits = Limits::default();
    assert!(take(Limits { bytes: 14, ..limits }).contains("more than 14 bytes"));
    assert!(take(Limits { depth: 1, ..limits }).contains("deeper than 1"));
    assert!(take(Limits { entries: 3, ..limits }).contains("more than 3 files"));
    place.take().unwrap();
}

#[test]
fn a_hundred_thousand_files_are_refused_at_once() {
    // In memory, if there is such a place.
    let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let place = Place::within(root.unwrap());
    for number in 0..100_000 {
        File::create(place.at(&number.to_string())).unwrap();
    }
    let before = Instant::now();
    assert!(place.refused().contains("more than 20,000 files"));
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
}

#[test]
fn a_symlink_swapped_in_never_gives_content_from_outside() {
    let place = Place::new();
    let secret = place.root.path().join("secret");
    fs::write(&secret, "SECRET").unwrap();
    fs::create_dir(place.root.path().join("private")).unwrap();
    fs::write(place.root.path().join("private/data"), "SECRET").unwrap();
    place.write("folder/data", "public", 0o644);
    place.write("data", "public", 0o644);
    let stop = AtomicBool::new(false);
    let mut taken = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (file, folder) = (place.at("data"), place.at("folder"));
            let (kept_file, kept_folder) = (place.root.path().join("f"), place.root.path().join("d"));
            while !stop.load(Ordering::Relaxed) {
                fs::rename(&file, &kept_file).unwrap();
                symlink(&secret, &file).unwrap();
                fs::rename(&folder, &kept_folder).unwrap();
                symlink(place.root.path().join("private"), &folder).unwrap();
                fs::remove_file(&file).unwrap();
                fs::rename(&kept_file, &file).unwrap();
                fs::remove_file(&folder).unwrap();
                fs::rename(&kept_folder, &folder).unwrap();
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        for number in 1..=400 {
            if let Ok(content) = place.take_once() {
                let id = ReleaseId::new(number, &content.digest);
                let dir = place.store.publish(content, id).unwrap();
                for path in ["data", "folder/data"] {
                    let found = fs::symlink_metadata(dir.join(path)).map(|meta| meta.is_file());
                    if found.is_ok() {
                        assert_eq!(fs::read(dir.join(path)).unwrap(), b"public");
                    }
                }
                place.store.delete(id).unwrap();
                taken += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!((1..400).contains(&taken), "{taken} of 400 were taken, so nothing was raced");
    assert_eq!(place.in_store(), Vec::<String>::new());
}

#[test]
fn a_release_dir_around_the_store_is_refused() {
    let mut place = Place::new();
    place.upload.dir = place.root.path().to_owned();
    assert!(place.refused().contains("where dorc keeps its releases"));
}

#[test]
fn another_file_system_within_is_refused() {
    let place = Place::new();
    let mount = place.at("mounted");
    fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&mount).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: nothing can be mounted here");
        return;
    }
    let result = place.take();
    assert!(Command::new("umount").arg(&mount).status().unwrap().success());
    assert!(
        matches!(result, Err(TakeError::Refused(why)) if why.to_string().contains("another file system"))
    );
}
