//! The release store: what is taken, what is refused, and what is left on the disk.

mod published;
mod refused;
mod signed;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

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
        let bin = ReleaseBin::Inside("web".into());
        let upload = Upload { dir, bin, is_started: true, signed_by: Vec::new() };
        Self { upload, store, root }
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
