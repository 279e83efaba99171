//! Uploads of several apps: one inotify instance watches them all, and no app notices the others.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use dorc::model::app::ReleaseBin;
use dorc::releases::inotify::Inotify;
use dorc::releases::intake::{Intake, Seen};
use dorc::releases::store::Store;
use dorc::releases::upload::{Limits, Upload};
use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::{PATIENCE, SETTLE, script};

/// The upload directory of one of several apps.
struct Neighbour {
    upload: Upload,
    intake: Intake,
    seen: Receiver<Seen>,
}

impl Neighbour {
    /// Watches `dir`, where there is nothing to take.
    async fn new(inotify: &Arc<Inotify>, root: &Path, name: &str, dir: &Path) -> Self {
        let mut new = Self::at(inotify, root, name, dir);
        assert!(matches!(new.next().await, Seen::Nothing));
        new
    }

    fn at(inotify: &Arc<Inotify>, root: &Path, name: &str, dir: &Path) -> Self {
        let bin = ReleaseBin::Inside("web".into());
        let upload = Upload { dir: dir.to_owned(), bin, is_started: true, signed_by: Vec::new() };
        let store = Arc::new(Store::open(&root.join("stores").join(name)).unwrap());
        let (intake, seen) =
            Intake::start(Arc::clone(inotify), store, upload.clone(), SETTLE, Limits::default(), None);
        Self { upload, intake, seen }
    }

    async fn next(&mut self) -> Seen {
        timeout(PATIENCE, self.seen.recv()).await.expect("nothing was seen").expect("the intake ended")
    }

    /// What comes after all that is incoming, of which there is something.
    async fn outcome(&mut self) -> Seen {
        assert!(matches!(self.next().await, Seen::Incoming(_)));
        loop {
            match self.next().await {
                Seen::Incoming(_) => {}
                other => return other,
            }
        }
    }

    async fn refuses(&mut self) {
        let outcome = self.outcome().await;
        assert!(matches!(outcome, Seen::Refused(_)), "{outcome:?}");
    }

    async fn takes_what_is_uploaded(&mut self) {
        script(&self.upload.dir.join("web"), "one");
        let outcome = self.outcome().await;
        assert!(matches!(outcome, Seen::Taken(_)), "{outcome:?}");
    }

    /// Nothing was told, by all that the kernel has said.
    async fn noticed_nothing(&mut self) {
        self.intake.sync().await;
        let seen = self.seen.try_recv();
        assert!(seen.is_err(), "{}: {seen:?}", self.upload.dir.display());
    }
}

fn root() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn there_may_be_more_apps_than_inotify_instances() {
    let (root, inotify) = (root(), Arc::default());
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").unwrap();
    let count = limit.trim().parse::<usize>().unwrap().min(300) + 1;
    let mut all = Vec::new();
    for number in 0..count {
        let name = number.to_string();
        let dir = root.path().join("uploads").join(&name);
        fs::create_dir_all(&dir).unwrap();
        all.push(Neighbour::new(&inotify, root.path(), &name, &dir).await);
    }
    all[count / 2].takes_what_is_uploaded().await;
    for (number, one) in all.iter_mut().enumerate() {
        one.noticed_nothing().await;
        if number % 50 == 0 && number != count / 2 {
            one.takes_what_is_uploaded().await;
        }
    }
}

#[tokio::test]
async fn one_that_leaves_blinds_nobody() {
    let (root, inotify) = (root(), Arc::default());
    let (shared, own) = (root.path().join("shared"), root.path().join("own"));
    fs::create_dir_all(shared.join("below")).unwrap();
    fs::create_dir_all(&own).unwrap();
    let leaving = Neighbour::new(&inotify, root.path(), "leaving", &shared.join("below")).await;
    let beside = Neighbour::new(&inotify, root.path(), "beside", &own).await;
    let mut staying = Neighbour::new(&inotify, root.path(), "staying", &shared.join("below")).await;

    leaving.intake.stop().await;
    beside.intake.stop().await;

    // The folder is made anew: that its parent is watched must have stayed, too.
    fs::remove_dir(shared.join("below")).unwrap();
    fs::create_dir(shared.join("below")).unwrap();
    staying.takes_what_is_uploaded().await;
}

#[tokio::test]
async fn a_folder_in_the_folder_of_another_app_is_seen_by_both() {
    let (root, inotify) = (root(), Arc::default());
    let outer_dir = root.path().join("outer");
    fs::create_dir_all(outer_dir.join("inner")).unwrap();
    // It has a folder, and no program yet.
    let mut outer = Neighbour::at(&inotify, root.path(), "outer", &outer_dir);
    outer.refuses().await;
    let mut inner = Neighbour::new(&inotify, root.path(), "inner", &outer_dir.join("inner")).await;
    inner.takes_what_is_uploaded().await;
    outer.refuses().await;
    outer.takes_what_is_uploaded().await;
    inner.noticed_nothing().await;
}

#[tokio::test]
async fn after_the_last_one_left_another_may_come() {
    let (root, inotify) = (root(), Arc::default());
    fs::create_dir_all(root.path().join("upload")).unwrap();
    for name in ["first", "second"] {
        let dir = root.path().join("upload");
        let mut one = Neighbour::new(&inotify, root.path(), name, &dir).await;
        one.takes_what_is_uploaded().await;
        one.intake.stop().await;
        fs::remove_file(dir.join("web")).unwrap();
    }
}
