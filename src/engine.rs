//! One task an app: an event goes into the model, and the commands that come out act on the world.
//!
//! The task never waits for the world: what takes time is a job of its own that reports back with an event.
//! One such job is under way at a time; a newer command ends it.

mod adopt;
mod hooks;
mod offer;
mod pause;
mod perform;
pub mod receive;
mod recipe;
mod recover;
mod requests;
mod task;
mod tell;
mod view;
mod vitals;

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::model::app::{App, AppName};
use crate::model::colour::ByColour;
use crate::model::deployment::{Deployment, Live, Notice, Outcome, Wait};
use crate::model::health::Probe;
use crate::model::release::{Catalogue, Label};
use crate::model::share::Share;
use crate::releases::inotify::Inotify;
use crate::releases::receive::Receiver;
use crate::releases::store::Store;
use crate::releases::upload::{Limits, Upload};
use crate::routing::Route;
use crate::services::{Running, Services};
use crate::state::{AppState, Entry, Freeze, StateDir};

pub use pause::LONGEST_PAUSE;

/// How many requests may wait for an engine, and how many notices for a slow watcher.
const QUEUE: usize = 64;

/// What an engine is made from.
pub struct Parts<R, S> {
    /// The app's configuration.
    pub app: App,
    /// Its route, already open.
    pub route: R,
    /// What runs its services.
    pub services: Arc<S>,
    /// Where its state is.
    pub state_dir: StateDir,
    /// The state as it was read.
    pub state: AppState,
    /// Ports that other apps' services have, running or not.
    pub taken_ports: HashSet<u16>,
    /// What tells of changes in its release directory.
    pub inotify: Arc<Inotify>,
    /// Who is told of each entry of the history.
    pub told: Told,
}

/// Is told of each entry of an app's history; must not wait for anything.
pub type Told = Arc<dyn Fn(&AppName, &Entry) + Send + Sync>;

/// A user's wish, as it was written.
#[derive(Debug, Clone)]
pub enum Wish {
    /// Another service is to be active.
    Switch {
        /// A colour or a release; `None`: the other colour.
        to: Option<String>,
        /// What has to be active for anything to happen.
        if_active: Option<String>,
        /// Only a share of the clients; `Some(None)`: by the configured steps.
        canary: Option<Option<Share>>,
    },
    /// An earlier release is to be active again.
    Rollback {
        /// Which; `None`: the last good one.
        to: Option<String>,
        /// As for a switch.
        if_active: Option<String>,
    },
    /// A release of the store is to become active, or to be made ready for it.
    Deploy {
        /// Which; `None`: the newest, that which is just being uploaded included.
        release: Option<String>,
        /// Only ready.
        prepare: bool,
        /// What to call it from now on.
        label: Option<Label>,
    },
}

/// What one app is like at a moment.
#[derive(Debug, Clone)]
pub struct View {
    /// Its configuration.
    pub app: Arc<App>,
    /// Where its deployment stands.
    pub deployment: Deployment,
    /// Its releases.
    pub catalogue: Catalogue,
    /// What runs as its services.
    pub running: ByColour<Option<Running>>,
    /// How many bytes are here of an upload that comes by a command.
    pub receiving: Option<u64>,
    /// The services' ports.
    pub ports: ByColour<u16>,
    /// The connections that its services have through the route.
    pub connections: ByColour<usize>,
    /// The last time that each of them ended by itself, and how.
    pub last_exits: ByColour<Option<(SystemTime, String)>>,
    /// What the active service answered when it was last asked whether it is healthy.
    pub health: Option<Probe>,
    /// Why nothing new is taken into service.
    pub freeze: Option<Freeze>,
    /// Who lets new connections wait, and how much longer.
    pub pause: Option<(String, Duration)>,
}

/// What an engine knows of its app without asking the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Where the traffic goes.
    pub active: Option<Live>,
    /// The services' ports.
    pub ports: ByColour<u16>,
}

enum Message {
    Wish { wish: Wish, who: String, wait: Wait, reply: oneshot::Sender<Outcome> },
    Freeze { why: Option<String>, who: String, reply: oneshot::Sender<Result<String, String>> },
    Pause { time: Option<Duration>, who: String, reply: oneshot::Sender<Result<String, String>> },
    Reload { who: String, reply: oneshot::Sender<Result<String, String>> },
    View(oneshot::Sender<View>),
    Expected(oneshot::Sender<Upload>),
    Received(Box<receive::Received>),
    Update { app: Box<App>, who: String, reply: oneshot::Sender<Result<String, String>> },
    Remove { purge: bool, reply: oneshot::Sender<Result<(), String>> },
    End(oneshot::Sender<()>),
}

/// The way to an app's engine.
#[derive(Debug, Clone)]
pub struct Handle {
    name: AppName,
    messages: mpsc::Sender<Message>,
    notices: broadcast::Sender<Notice>,
    summary: watch::Receiver<Summary>,
    receiver: Arc<Receiver>,
}

/// The engine has ended, so the app is not loaded any more.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not loaded any more")]
pub struct Ended(AppName);

impl Handle {
    /// Starts the engine of an app.
    ///
    /// # Errors
    /// The release store can't be opened.
    pub async fn start<R: Route, S: Services>(parts: Parts<R, S>) -> io::Result<Self> {
        let releases = parts.state_dir.path().join("releases");
        let store = blocking(move || Store::open(&releases)).await?;
        let (messages, inbox) = mpsc::channel(QUEUE);
        let (notices, _) = broadcast::channel(QUEUE);
        let name = parts.app.name.clone();
        let store = Arc::new(store);
        let receiver = Arc::new(Receiver::new(store.clone(), Limits::default()));
        let (engine, summary) = task::Engine::new(parts, store, receiver.clone(), notices.clone());
        tokio::spawn(engine.run(inbox));
        Ok(Self { name, messages, notices, summary, receiver })
    }

    /// The app's name.
    #[must_use]
    pub const fn name(&self) -> &AppName {
        &self.name
    }

    /// What happens from now on.
    #[must_use]
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// What is known at once, and whether it has changed.
    #[must_use]
    pub fn summary(&self) -> watch::Receiver<Summary> {
        self.summary.clone()
    }

    /// Asks for something; the answer comes when it is done or can't be done.
    ///
    /// # Errors
    /// The app is not loaded any more.
    pub async fn wish(
        &self,
        wish: Wish,
        who: String,
        wait: Wait,
    ) -> Result<oneshot::Receiver<Outcome>, Ended> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Wish { wish, who, wait, reply }).await?;
        Ok(answer)
    }

    /// Reloads the active service; what was done, or why not.
    ///
    /// # Errors
    /// The app is not loaded any more.
    pub async fn reload(&self, who: String) -> Result<Result<String, String>, Ended> {
        self.ask(|reply| Message::Reload { who, reply }).await
    }

    /// From now on nothing new is taken into service, for the reason `why`; `None`: it is again. What that led to.
    ///
    /// # Errors
    /// The app is not loaded any more.
    pub async fn freeze(&self, why: Option<String>, who: String) -> Result<Result<String, String>, Ended> {
        self.ask(|reply| Message::Freeze { why, who, reply }).await
    }

    /// From now on new connections wait, for `time` at most; `None`: they don't any more. What that led to.
    ///
    /// # Errors
    /// The app is not loaded any more.
    pub async fn pause(&self, time: Option<Duration>, who: String) -> Result<Result<String, String>, Ended> {
        self.ask(|reply| Message::Pause { time, who, reply }).await
    }

    /// What the app is like now.
    ///
    /// # Errors
    /// The app is not loaded any more.
    pub async fn view(&self) -> Result<View, Ended> {
        self.ask(Message::View).await
    }

    /// Takes a changed configuration; what that leads to, or why it can't be taken.
    ///
    /// # Errors
    /// The app is not loaded any more.
    pub async fn update(&self, app: App, who: String) -> Result<Result<String, String>, Ended> {
        self.ask(|reply| Message::Update { app: Box::new(app), who, reply }).await
    }

    /// Stops and deletes the services and the state, with `purge` the releases too, and ends the engine.
    ///
    /// # Errors
    /// The app is not loaded any more.
    pub async fn remove(&self, purge: bool) -> Result<Result<(), String>, Ended> {
        self.ask(|reply| Message::Remove { purge, reply }).await
    }

    /// Ends the engine; the services go on.
    pub async fn end(&self) {
        // That it has ended already is what was wanted.
        let _ = self.ask(Message::End).await;
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        self.send(message(reply)).await?;
        answer.await.map_err(|_| Ended(self.name.clone()))
    }

    async fn send(&self, message: Message) -> Result<(), Ended> {
        self.messages.send(message).await.map_err(|_| Ended(self.name.clone()))
    }
}

/// The time as the runtime has it, which tests may pause.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Runs file work on a thread where it may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error)),
    }
}

/// The folder of an app's state below `state_dir`.
#[must_use]
pub fn app_dir(state_dir: &std::path::Path, app: &AppName) -> PathBuf {
    state_dir.join("apps").join(app.as_str())
}
