//! What a store holds, and what is copied from it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use dorc::model::release::ReleaseId;
use dorc::releases::store::Store;
use dorc::releases::upload::{Limits, TakeError};

use super::{Place, mode, names};

#[test]
fn publishing_is_at_once_and_never_over_another_release() {
    let place = Place::new();
    let (id, dir) = place.publish(1);
    let again = place.take().unwrap();
    assert!(place.store.publish(again, id).is_err());
    assert_eq!(place.in_store(), [id.to_string()]);
    drop(place.take().unwrap());
    assert_eq!(place.in_store(), [id.to_string()]);

    let copy = ReleaseId { number: 2, ..id };
    let copied = place.store.publish_copy_of(id, copy).unwrap();
    assert_eq!(place.store.list().unwrap(), [id, copy]);
    assert_eq!(mode(&copied), 0o755);
    place.store.delete(id).unwrap();
    place.store.delete(id).unwrap();
    assert!(!dir.exists());
    assert_eq!(fs::read_to_string(copied.join("web")).unwrap(), "#!/bin/sh\n");
    assert_eq!(mode(&copied.join("web")), 0o755);
    assert!(place.store.publish_copy_of(id, ReleaseId { number: 3, ..id }).is_err());
    assert_eq!(place.store.list().unwrap(), [copy]);
}

#[test]
fn many_files_are_published_too() {
    let place = Place::new();
    for number in 0..200 {
        place.write(&format!("assets/{number}"), "x", 0o644);
    }
    let (_, dir) = place.publish(1);
    assert_eq!(names(&dir.join("assets")).len(), 200);
}

#[test]
fn debris_of_an_interruption_is_cleared() {
    let place = Place::new();
    let (id, _) = place.publish(1);
    let dir = place.root.path().join("state/apps/web/releases");
    fs::create_dir_all(dir.join(".taking-1-1/assets")).unwrap();
    fs::create_dir_all(dir.join(".deleted-1-1")).unwrap();
    Store::open(&dir).unwrap();
    assert_eq!(place.in_store(), [id.to_string()]);
}

#[test]
fn a_cancelled_taking_leaves_nothing() {
    let place = Place::new();
    let result = place.store.take(&place.upload, &Limits::default(), &AtomicBool::new(true));
    assert!(matches!(result, Err(TakeError::Changed)));
    assert_eq!(place.in_store(), Vec::<String>::new());
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let place = Place::new();
    let mount = place.root.path().join("small");
    fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&mount).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: a small file system can't be mounted here");
        return;
    }
    let store = Store::open(&mount.join("releases")).unwrap();
    File::create(place.at("big")).unwrap().write_all(&vec![1; 4 << 20]).unwrap();
    let result = store.take(&place.upload, &Limits::default(), &AtomicBool::new(false));
    let left = names(&mount.join("releases"));
    assert!(Command::new("umount").arg(&mount).status().unwrap().success());
    let error = result.unwrap_err().to_string();
    assert!(error.contains("no room") && error.contains("4,194,314 bytes"), "{error}");
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn a_working_dir_gets_the_release_and_keeps_its_own() {
    let place = Place::new();
    fs::copy("/bin/sleep", place.at("web")).unwrap();
    place.write("assets/a", "new", 0o644);
    symlink("assets/a", place.at("link")).unwrap();
    let (id, _) = place.publish(1);
    let dir = place.root.path().join("work");
    place.store.copy_to(id, &dir, &AtomicBool::new(false)).unwrap();
    fs::write(dir.join("user.db"), "data").unwrap();
    fs::write(dir.join("assets/a"), "old").unwrap();
    fs::write(dir.join(".web.dorc-new"), "debris").unwrap();
    let start = || Command::new(dir.join("web")).arg("60").spawn();
    let mut running = loop {
        match start() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
            other => break other.unwrap(),
        }
    };
    let copied = place.store.copy_to(id, &dir, &AtomicBool::new(false));
    let alive = running.try_wait().unwrap().is_none();
    running.kill().unwrap();
    running.wait().unwrap();
    copied.unwrap();
    assert!(alive);
    assert_eq!(names(&dir), ["assets", "link", "user.db", "web"]);
    assert_eq!(fs::read_to_string(dir.join("link")).unwrap(), "new");
    assert_eq!(mode(&dir.join("web")), 0o755);
}

#[test]
fn a_working_dirs_symlinks_are_not_written_through() {
    let place = Place::new();
    place.write("assets/a", "new", 0o644);
    let (id, _) = place.publish(1);
    let (dir, outside) = (place.root.path().join("work"), place.root.path().join("outside"));
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&outside).unwrap();
    symlink(&outside, dir.join("assets")).unwrap();
    let error = place.store.copy_to(id, &dir, &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(error.contains("work/assets"), "{error}");
    assert_eq!(names(&outside), Vec::<String>::new());
}
