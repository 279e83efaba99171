//! The release store: what is taken, what is refused, and what is left on the disk.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dorc::model::app::ReleaseBin;
use dorc::model::release::ReleaseId;
use dorc::releases::store::{Store, Taken};
use dorc::releases::upload::{Limits, TakeError, Upload};
use tempfile::TempDir;

/// An upload directory and a store in a temporary folder.
struct Place {
    root: TempDir,
    upload: Upload,
    store: Store,
}

impl Place {
    /// One with an executable script `web`.
    fn new() -> Self {
        let place = Self::empty();
        place.write("web", "#!/bin/sh\n", 0o755);
        place
    }

    fn empty() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    fn within(root: TempDir) -> Self {
        let dir = root.path().join("upload");
        fs::create_dir(&dir).unwrap();
        let store = Store::open(&root.path().join("state/apps/web/releases")).unwrap();
        Self { upload: Upload { dir, bin: ReleaseBin::Inside("web".into()) }, store, root }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.upload.dir.join(name)
    }

    fn write(&self, name: &str, content: &str, mode: u32) {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs::write(self.at(name), content).unwrap();
        fs::set_permissions(self.at(name), Permissions::from_mode(mode)).unwrap();
    }

    fn take(&self) -> Result<Taken, TakeError> {
        // Another test that starts a process at that moment may lend it a file of ours until it is executed.
        for _ in 0..100 {
            match self.take_once() {
                Err(TakeError::BeingWritten(_)) => std::thread::sleep(Duration::from_millis(10)),
                other => return other,
            }
        }
        self.take_once()
    }

    fn take_once(&self) -> Result<Taken, TakeError> {
        self.store.take(&self.upload, &Limits::default(), &AtomicBool::new(false))
    }

    /// The reason of the refusal; fails if anything stays in the store.
    fn refused(&self) -> String {
        let reason = match self.take() {
            Err(TakeError::Refused(refusal)) => refusal.to_string(),
            other => panic!("not refused: {other:?}"),
        };
        assert_eq!(self.in_store(), Vec::<String>::new(), "debris after: {reason}");
        reason
    }

    /// Takes and publishes as number `number`.
    fn publish(&self, number: u32) -> (ReleaseId, PathBuf) {
        let taken = self.take().unwrap();
        let id = ReleaseId::new(number, &taken.digest);
        (id, self.store.publish(taken, id).unwrap())
    }

    fn in_store(&self) -> Vec<String> {
        names(&self.root.path().join("state/apps/web/releases"))
    }
}

fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_folder_is_taken_with_modes_rebuilt_and_published_whole() {
    let place = Place::new();
    place.write("assets/a.txt", "a", 0o600);
    place.write("bin/tool", "#!/bin/sh\n", 0o4711);
    fs::create_dir(place.at("empty")).unwrap();
    fs::hard_link(place.at("assets/a.txt"), place.at("again")).unwrap();
    symlink("../web", place.at("bin/web")).unwrap();
    let (id, dir) = place.publish(1);
    assert_eq!(place.in_store(), [id.to_string()]);
    assert_eq!(names(&dir), ["again", "assets", "bin", "empty", "web"]);
    for (path, expected) in [("", 0o755), ("assets", 0o755), ("assets/a.txt", 0o644), ("bin/tool", 0o755)] {
        assert_eq!(mode(&dir.join(path)), expected, "{path}");
    }
    assert_eq!(mode(dir.parent().unwrap()), 0o711);
    assert_eq!(fs::read_link(dir.join("bin/web")).unwrap(), Path::new("../web"));
    assert_eq!(fs::metadata(dir.join("again")).unwrap().nlink(), 1);
    assert_eq!(fs::metadata(dir.join("web")).unwrap().uid(), rustix::process::geteuid().as_raw());
}

#[test]
fn the_digest_is_of_the_content_and_nothing_else() {
    let place = Place::new();
    place.write("assets/a", "a", 0o644);
    let first = place.take().unwrap();
    // Rewritten, later, with another mode that means the same.
    place.write("assets/a", "a", 0o600);
    place.write("web", "#!/bin/sh\n", 0o711);
    let again = place.take().unwrap();
    assert_eq!(first.digest, again.digest);
    assert_ne!(first.fingerprint, again.fingerprint);
    assert_eq!((again.files, again.bytes), (2, 11));
    let mut digests = vec![first.digest];
    let mut differs = |what: &str| {
        let digest = place.take().unwrap().digest;
        assert!(!digests.contains(&digest), "{what}");
        digests.push(digest);
    };
    place.write("assets/a", "a", 0o755);
    differs("the executable bit");
    place.write("assets/a", "b", 0o755);
    differs("the content");
    fs::rename(place.at("assets/a"), place.at("assets/b")).unwrap();
    differs("the name");
    fs::create_dir(place.at("empty")).unwrap();
    differs("a folder");
    symlink("web", place.at("link")).unwrap();
    differs("a symlink");
}

#[test]
fn the_fingerprint_stays_while_nobody_touches_the_upload() {
    let place = Place::new();
    let first = place.take().unwrap().fingerprint;
    File::open(place.at("web")).and_then(std::io::read_to_string).unwrap();
    assert_eq!(place.take().unwrap().fingerprint, first);
}

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
    assert!(take(Limits { bytes: 14, ..limits }).contains("has 15 bytes"));
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
fn a_file_that_is_open_for_writing_is_waited_for() {
    let place = Place::new();
    let writer = File::create(place.at("assets")).unwrap();
    assert!(matches!(place.take_once(), Err(TakeError::BeingWritten(path)) if path == Path::new("assets")));
    drop(writer);
    place.take().unwrap();
}

#[test]
fn a_program_outside_comes_into_the_root_of_the_release() {
    let mut place = Place::empty();
    let bin = place.root.path().join("build/server");
    fs::create_dir(bin.parent().unwrap()).unwrap();
    place.upload.bin = ReleaseBin::Outside(bin.clone());
    assert!(matches!(place.take(), Err(TakeError::Nothing)));
    place.write("assets/a", "a", 0o644);
    assert!(place.refused().contains("there is no"));
    fs::copy("/bin/sh", &bin).unwrap();
    let (_, dir) = place.publish(1);
    assert_eq!(names(&dir), ["assets", "server"]);
    assert_eq!(fs::read(dir.join("server")).unwrap(), fs::read("/bin/sh").unwrap());
    place.write("server", "another", 0o755);
    assert!(match place.take() {
        Err(TakeError::Refused(refusal)) => refusal.to_string().contains("would both be server"),
        _ => false,
    });
    fs::remove_file(place.at("server")).unwrap();
    fs::rename(&bin, bin.with_extension("1")).unwrap();
    symlink("server.1", &bin).unwrap();
    assert!(matches!(place.take(), Err(TakeError::Refused(why)) if why.to_string().contains("is a symlink")));
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
fn a_release_dir_around_the_store_is_refused() {
    let mut place = Place::new();
    place.upload.dir = place.root.path().to_owned();
    assert!(place.refused().contains("where dorc keeps its releases"));
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

#[test]
fn a_working_dir_gets_the_release_and_keeps_its_own() {
    let place = Place::new();
    fs::copy("/bin/sleep", place.at("web")).unwrap();
    place.write("assets/a", "new", 0o644);
    symlink("assets/a", place.at("link")).unwrap();
    let (id, _) = place.publish(1);
    let dir = place.root.path().join("work");
    place.store.copy_to(id, &dir).unwrap();
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
    let copied = place.store.copy_to(id, &dir);
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
    let error = place.store.copy_to(id, &dir).unwrap_err().to_string();
    assert!(error.contains("work/assets"), "{error}");
    assert_eq!(names(&outside), Vec::<String>::new());
}
