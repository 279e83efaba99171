//! The engine of an app, with stand-ins for its two seams and a real release directory, store and state.
//! Time is paused: what takes minutes takes milliseconds.

mod bake;
mod canary;
mod deploy;
mod drain;
mod freeze;
mod hooks;
mod pause;
mod recover;
mod upload;
mod view;

use std::fs::{self, Permissions};
use std::future::Future;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use dorc::config;
use dorc::engine::{Handle, Parts, View, Wish};
use dorc::model::app::{App, AppName, Check, Promote, ReleaseBin, ServiceId};
use dorc::model::colour::Colour;
use dorc::model::deployment::{Outcome, Phase, Standby, Wait};
use dorc::model::release::ReleaseId;
use dorc::state::{AppState, StateDir};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::fakes::{FakeRoute, FakeServices};

/// An app with its engine, in a world that outlives the engine.
struct Bed {
    handle: Handle,
    app: App,
    services: Arc<FakeServices>,
    route: FakeRoute,
    root: TempDir,
    /// Those of this one only, so that tests side by side don't meet.
    ports: Range<u16>,
}

impl Bed {
    async fn new() -> Self {
        Self::with(|_| ()).await
    }

    async fn with(change: impl FnOnce(&mut App)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let upload = root.path().join("upload");
        fs::create_dir(&upload).unwrap();
        let mut app = config::new_app(
            AppName::new("web").unwrap(),
            vec!["127.0.0.1:80".parse().unwrap()],
            upload,
            ReleaseBin::Inside("web".into()),
        );
        app.health.check = Check::Port { up_for: Duration::ZERO };
        // The ports are real: on a busy machine the paused clock runs ahead of an answer.
        app.health.timeout = Duration::from_secs(600);
        change(&mut app);
        let (services, route) = (Arc::default(), FakeRoute::default());
        static BEDS: AtomicU16 = AtomicU16::new(0);
        let first = 20_000 + BEDS.fetch_add(1, Ordering::Relaxed) % 200 * 50;
        let ports = first..first + 50;
        let handle = start(&app, &services, &route, &root, ports.clone()).await;
        Self { handle, app, services, route, root, ports }
    }

    /// One whose first release, `1`, is active in green.
    async fn live() -> Self {
        let bed = Self::new().await;
        bed.upload("1", "");
        bed.steady_on(Colour::Green, 1).await;
        bed
    }

    /// One that has `2` ready in blue as well.
    async fn ready() -> Self {
        let bed = Self::live().await;
        bed.upload("2", "");
        bed.warm(2).await;
        bed
    }

    fn dir(&self) -> PathBuf {
        state_dir(&self.root).path().to_owned()
    }

    fn id(&self, colour: Colour) -> ServiceId {
        ServiceId { app: self.app.name.clone(), colour }
    }

    fn upload(&self, version: &str, behaviour: &str) {
        let write = |name: &str, text: &str| fs::write(self.app.release_dir.join(name), text).unwrap();
        write("version", version);
        write("behaviour", behaviour);
        write("web", "#!/bin/sh\n");
        let program = self.app.release_dir.join("web");
        fs::set_permissions(program, Permissions::from_mode(0o755)).unwrap();
    }

    async fn view(&self) -> View {
        self.handle.view().await.unwrap()
    }

    /// Waits until it is so.
    async fn until(&self, what: &str, is_so: impl Fn(&View) -> bool) -> View {
        let end = Instant::now() + Duration::from_secs(600);
        loop {
            let view = self.view().await;
            if is_so(&view) {
                return view;
            }
            assert!(Instant::now() < end, "waited in vain: {what}\n{:#?}", view.deployment);
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn steady_on(&self, colour: Colour, number: u32) -> View {
        self.until(&format!("steady on {colour} r{number}"), |view| {
            matches!(view.deployment.phase(), Phase::Steady { .. }) && is_active(view, colour, number)
        })
        .await
    }

    async fn warm(&self, number: u32) -> View {
        self.until(&format!("r{number} is ready"), |view| {
            matches!(view.deployment.phase(), Phase::Steady { standby: Standby::Warm(release), .. }
                if release.number == number)
        })
        .await
    }

    async fn ask(&self, wish: Wish, wait: Wait) -> oneshot::Receiver<Outcome> {
        self.handle.wish(wish, "ann".into(), wait).await.unwrap()
    }

    async fn switch(&self) -> Outcome {
        within(self.ask(switch_to(None), Wait::Drained).await).await.unwrap()
    }

    async fn switch_to(&self, to: &str) -> Outcome {
        within(self.ask(switch_to(Some(to)), Wait::Drained).await).await.unwrap()
    }

    async fn deploy(&self, release: &str) -> Outcome {
        within(self.ask(deploy(release, false), Wait::Baked).await).await.unwrap()
    }

    async fn rollback(&self) -> Outcome {
        within(self.ask(Wish::Rollback { to: None, if_active: None }, Wait::Drained).await).await.unwrap()
    }

    /// Another engine takes over, from what is on the disk and what runs.
    async fn restart(&mut self) {
        within(self.handle.end()).await;
        self.handle = start(&self.app, &self.services, &self.route, &self.root, self.ports.clone()).await;
    }

    fn starts(&self) -> Vec<String> {
        self.services.calls().into_iter().filter(|call| call.starts_with("start")).collect()
    }
}

fn state_dir(root: &TempDir) -> StateDir {
    StateDir::new(root.path().join("apps/web"))
}

async fn start(
    app: &App,
    services: &Arc<FakeServices>,
    route: &FakeRoute,
    root: &TempDir,
    ports: Range<u16>,
) -> Handle {
    let state_dir = state_dir(root);
    let state = state_dir.read().map_or_else(|_| AppState::default(), |(state, _)| state);
    let parts = Parts {
        app: app.clone(),
        route: route.clone(),
        services: Arc::clone(services),
        state_dir,
        state,
        taken_ports: (20_000..30_000).filter(|port| !ports.contains(port)).collect(),
        inotify: Arc::default(),
        told: Arc::new(|_, _| {}),
    };
    Handle::start(parts).await.unwrap()
}

fn deploy(release: &str, prepare: bool) -> Wish {
    Wish::Deploy { release: Some(release.into()), prepare, label: None }
}

fn switch_to(to: Option<&str>) -> Wish {
    Wish::Switch { to: to.map(str::to_owned), if_active: None, canary: None }
}

fn is_active(view: &View, colour: Colour, number: u32) -> bool {
    view.deployment.active().is_some_and(|live| live.colour == colour && live.release.number == number)
}

/// The release that is active by this answer.
fn done(outcome: &Outcome) -> (Colour, ReleaseId) {
    match outcome {
        Outcome::Done { active, .. } => (active.colour, active.release),
        other => panic!("not done: {other:?}"),
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(900), future).await.expect("it should come to an end")
}

fn auto(app: &mut App) {
    app.switch.promote = Promote::Auto;
}
