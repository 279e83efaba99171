//! The intake: uploads as users make them, seen by real inotify.

mod neighbours;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dorc::model::app::ReleaseBin;
use dorc::model::release::ReleaseId;
use dorc::releases::inotify::Inotify;
use dorc::releases::intake::{Intake, Seen};
use dorc::releases::store::{Store, Taken};
use dorc::releases::upload::{Limits, Upload};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

const SETTLE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(20);

/// An upload directory, and the intake that watches it.
struct Place {
    root: TempDir,
    store: Arc<Store>,
    upload: Upload,
    intake: Intake,
    seen: Receiver<Seen>,
}

impl Place {
    /// With an empty upload directory, which was found to be so.
    async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("upload")).unwrap();
        let mut place = Self::of(root, "upload", ReleaseBin::Inside("web".into()), None);
        assert!(matches!(place.outcome().await, Seen::Nothing));
        place
    }

    fn of(root: TempDir, dir: &str, bin: ReleaseBin, known: Option<String>) -> Self {
        Self::watched_by(Arc::default(), root, dir, bin, known)
    }

    fn watched_by(
        inotify: Arc<Inotify>,
        root: TempDir,
        dir: &str,
        bin: ReleaseBin,
        known: Option<String>,
    ) -> Self {
        let upload = Upload { dir: root.path().join(dir), bin, is_started: true, signed_by: Vec::new() };
        let store = Arc::new(Store::open(&root.path().join("releases")).unwrap());
        let (intake, seen) =
            Intake::start(inotify, Arc::clone(&store), upload.clone(), SETTLE, Limits::default(), known);
        Self { root, store, upload, intake, seen }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.upload.dir.join(name)
    }

    async fn next(&mut self) -> Seen {
        timeout(PATIENCE, self.seen.recv()).await.expect("nothing was seen").expect("the intake ended")
    }

    /// What comes after all that is incoming.
    async fn outcome(&mut self) -> Seen {
        loop {
            match self.next().await {
                Seen::Incoming(_) => {}
                other => return other,
            }
        }
    }

    async fn incoming(&mut self, part: &str) {
        loop {
            match self.next().await {
                Seen::Incoming(why) if why.contains(part) => return,
                Seen::Incoming(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn taken(&mut self) -> Taken {
        match self.outcome().await {
            Seen::Taken(taken) => taken,
            other => panic!("{other:?}"),
        }
    }

    async fn refused(&mut self) -> String {
        match self.outcome().await {
            Seen::Refused(refusal) => refusal.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

fn script(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = File::create(path).unwrap();
    file.set_permissions(Permissions::from_mode(0o755)).unwrap();
    write!(file, "#!/bin/sh\n{content}").unwrap();
}

async fn run(program: &str, arguments: &[&Path]) {
    assert!(Command::new(program).args(arguments).status().await.unwrap().success(), "{program}");
}

#[tokio::test]
async fn a_big_file_is_taken_whole_from_cp_and_from_rsync() {
    let mut place = Place::new().await;
    let source = place.root.path().join("web");
    script(&source, &"#".repeat(32 << 20));
    let size = source.metadata().unwrap().len();
    run("cp", &[&source, &place.at("web")]).await;
    let first = place.taken().await;
    assert_eq!((first.files, first.bytes), (1, size));
    script(&source, &"+".repeat(32 << 20));
    run("rsync", &[Path::new("-ac"), &source, &place.at("web")]).await;
    let second = place.taken().await;
    assert_eq!((second.files, second.bytes), (1, size));
    assert_ne!(first.digest, second.digest);
}

#[tokio::test]
async fn a_writer_that_pauses_is_waited_for_until_it_closes() {
    let mut place = Place::new().await;
    script(&place.at("web"), "one");
    let mut writer = OpenOptions::new().append(true).open(place.at("web")).unwrap();
    place.incoming("web is still open for writing").await;
    for part in ["two", "three"] {
        tokio::time::sleep(SETTLE * 3).await;
        writer.write_all(part.as_bytes()).unwrap();
        place.intake.sync().await;
        while let Ok(seen) = place.seen.try_recv() {
            assert!(matches!(seen, Seen::Incoming(_)), "{seen:?}");
        }
    }
    drop(writer);
    assert_eq!(place.taken().await.bytes, "#!/bin/sh\nonetwothree".len() as u64);
}

#[tokio::test]
async fn a_folder_is_watched_however_deep_it_grows() {
    let mut place = Place::new().await;
    script(&place.at("web"), "");
    fs::create_dir_all(place.at("assets/a/b/c")).unwrap();
    fs::write(place.at("assets/a/b/c/d"), "1").unwrap();
    let first = place.taken().await;
    assert_eq!(first.files, 2);
    fs::write(place.at("assets/a/b/c/d"), "2").unwrap();
    let second = place.taken().await;
    assert_ne!(first.digest, second.digest);
    // A folder that is moved in with content, and one in it that is changed later.
    let outside = place.root.path().join("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    fs::rename(&outside, place.at("inside")).unwrap();
    assert_ne!(place.taken().await.digest, second.digest);
    fs::write(place.at("inside/deep/e"), "").unwrap();
    assert_eq!(place.taken().await.files, 3);
}

#[tokio::test]
async fn a_directory_may_come_late_and_be_replaced_as_a_whole() {
    let root = tempfile::tempdir().unwrap();
    let mut place = Place::of(root, "srv/upload/web", ReleaseBin::Inside("web".into()), None);
    assert!(matches!(place.outcome().await, Seen::Nothing));
    script(&place.at("web"), "1");
    let first = place.taken().await;
    let (new, old) = (place.root.path().join("new"), place.root.path().join("old"));
    script(&new.join("web"), "2");
    fs::rename(&place.upload.dir, &old).unwrap();
    fs::rename(&new, &place.upload.dir).unwrap();
    let second = place.taken().await;
    assert_ne!(first.digest, second.digest);
    // The old one is nobody's business any more; the new one is.
    script(&old.join("web"), "3");
    place.intake.sync().await;
    assert!(place.seen.try_recv().is_err());
    script(&place.at("web"), "4");
    let third = place.taken().await;
    assert!(third.digest != first.digest && third.digest != second.digest);
    fs::remove_dir_all(place.root.path().join("srv")).unwrap();
    assert!(matches!(place.outcome().await, Seen::Nothing));
    script(&place.at("web"), "4");
    assert_eq!(place.taken().await.digest, third.digest);
}

#[tokio::test]
async fn a_program_outside_is_watched_too() {
    let root = tempfile::tempdir().unwrap();
    let bin = root.path().join("build/server");
    let mut place = Place::of(root, "upload", ReleaseBin::Outside(bin.clone()), None);
    assert!(matches!(place.outcome().await, Seen::Nothing));
    script(&bin, "1");
    let first = place.taken().await;
    script(&bin, "2");
    assert_ne!(place.taken().await.digest, first.digest);
    fs::write(bin.with_extension("o"), "an object file").unwrap();
    place.intake.sync().await;
    assert!(place.seen.try_recv().is_err(), "what lies beside it does not matter");
}

#[tokio::test]
async fn a_program_that_is_cut_is_waited_for() {
    let mut place = Place::new().await;
    let program = fs::read("/bin/sh").unwrap();
    let (head, tail) = program.split_at(program.len() - 1234);
    fs::write(place.at("web"), head).unwrap();
    fs::set_permissions(place.at("web"), Permissions::from_mode(0o755)).unwrap();
    place.incoming("web is not whole yet: its ELF headers reach 1,234 bytes beyond its end").await;
    OpenOptions::new().append(true).open(place.at("web")).unwrap().write_all(tail).unwrap();
    assert_eq!(place.taken().await.bytes, program.len() as u64);
}

#[tokio::test]
async fn what_is_known_is_not_taken_again() {
    let mut place = Place::new().await;
    script(&place.at("web"), "1");
    let Seen::Taken(taken) = place.outcome().await else { panic!() };
    let fingerprint = taken.fingerprint.clone().unwrap();
    let Place { root, upload, intake, .. } = place;
    intake.stop().await;
    let mut place = Place::of(root, "upload", upload.bin, Some(fingerprint));
    assert!(matches!(place.next().await, Seen::Nothing));
    // Reading is no change, and one that is taken back leads to nothing.
    fs::read(place.at("web")).unwrap();
    place.intake.sync().await;
    assert!(place.seen.try_recv().is_err());
    fs::write(place.at("other"), "").unwrap();
    fs::remove_file(place.at("other")).unwrap();
    assert!(matches!(place.outcome().await, Seen::Nothing));
    // The same content once more is for its reader to compare.
    script(&place.at("web"), "1");
    assert_eq!(place.taken().await.digest, taken.digest);
}

#[tokio::test]
async fn after_sync_an_upload_is_told_of() {
    let mut place = Place::new().await;
    for round in 0..20 {
        script(&place.at("web"), &round.to_string());
        place.intake.sync().await;
        assert!(matches!(place.seen.try_recv(), Ok(Seen::Incoming(_))), "round {round}");
        place.taken().await;
        place.intake.sync().await;
        assert!(place.seen.try_recv().is_err(), "round {round}");
    }
}

#[tokio::test]
async fn a_refusal_holds_until_the_upload_is_mended() {
    let mut place = Place::new().await;
    fs::write(place.at("web"), "#!/bin/sh\n").unwrap();
    assert!(place.refused().await.contains("chmod +x"));
    fs::write(place.at("other"), "").unwrap();
    assert!(place.refused().await.contains("chmod +x"));
    run("chmod", &[Path::new("+x"), &place.at("web")]).await;
    assert_eq!(place.taken().await.files, 2);
    fs::remove_file(place.at("web")).unwrap();
    assert!(place.refused().await.contains("has no web"));
    fs::remove_file(place.at("other")).unwrap();
    assert!(matches!(place.outcome().await, Seen::Nothing));
}

#[tokio::test]
async fn a_hundred_thousand_files_are_refused_soon_and_mended_by_deleting() {
    let memory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let root = memory.unwrap();
    script(&root.path().join("upload/web"), "");
    for number in 0..100_000 {
        File::create(root.path().join(format!("upload/{number}"))).unwrap();
    }
    let before = std::time::Instant::now();
    let mut place = Place::of(root, "upload", ReleaseBin::Inside("web".into()), None);
    assert!(place.refused().await.contains("more than 20,000 files"));
    assert!(before.elapsed() < SETTLE + Duration::from_secs(2), "{:?}", before.elapsed());
    // More events than the kernel keeps: it says so, and that is a change like any other.
    for number in 0..100_000 {
        fs::remove_file(place.at(&number.to_string())).unwrap();
    }
    loop {
        match place.outcome().await {
            Seen::Taken(taken) => break assert_eq!(taken.files, 1),
            Seen::Refused(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn two_files_that_belong_together_are_never_mixed() {
    let mut place = Place::new().await;
    let dir = place.upload.dir.clone();
    let writer = std::thread::spawn(move || {
        for round in 0..12 {
            // Big enough that a round often comes while the one before is being taken.
            let content = round.to_string().repeat(2 << 20);
            let mut asset = File::create(dir.join("asset")).unwrap();
            asset.write_all(content.as_bytes()).unwrap();
            script(&dir.join("web"), &content);
            drop(asset);
            std::thread::sleep(SETTLE + Duration::from_millis(10 * round));
        }
    });
    let mut number = 0;
    loop {
        let last = writer.is_finished();
        let taken = place.taken().await;
        number += 1;
        let id = ReleaseId::new(number, &taken.digest);
        let dir = place.store.publish(taken, id).unwrap();
        let web = fs::read_to_string(dir.join("web")).unwrap();
        let asset = fs::read_to_string(dir.join("asset")).unwrap();
        assert_eq!(web.strip_prefix("#!/bin/sh\n"), Some(asset.as_str()));
        if last || asset.starts_with("11") && asset.len() == 4 << 20 {
            break;
        }
    }
    writer.join().unwrap();
}

#[tokio::test]
async fn it_stops_though_nobody_listens() {
    let mut place = Place::new().await;
    // More than the channel holds.
    for round in 0..20 {
        script(&place.at("web"), &round.to_string());
        place.intake.sync().await;
        if round % 2 == 0 {
            tokio::time::sleep(SETTLE / 4).await;
        }
    }
    assert!(matches!(place.next().await, Seen::Incoming(_)));
    timeout(PATIENCE, place.intake.stop()).await.unwrap();
    drop(place.seen);
    let left: Vec<_> = fs::read_dir(place.root.path().join("releases")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn at_rest_it_does_nothing_at_all() {
    let mut place = Place::new().await;
    script(&place.at("web"), "1");
    drop(place.taken().await);
    let busy = || tokio::runtime::Handle::current().metrics().worker_park_count(0);
    place.intake.sync().await;
    let before = busy();
    for _ in 0..20 {
        fs::read(place.at("web")).unwrap();
        fs::read_dir(&place.upload.dir).unwrap().for_each(drop);
        fs::write(place.root.path().join("beside"), "").unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // This sleep, in as many steps as the runtime's clock has wheels, and the file that was created beside: its name is
    // looked at, and that is all.
    assert!(busy() - before <= 8, "woken {} times", busy() - before);
    assert!(place.seen.try_recv().is_err());
}
