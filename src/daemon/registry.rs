//! The loaded apps: made to agree with their files when told so.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::files::{read_state, refuse_errors};
use super::loaded::Loaded;
use super::planes::{self, Planes};
use super::{Places, descriptors, logs, teller};
use crate::accounts;
use crate::config::{self, EventsConfig};
use crate::control::metrics::Counts;
use crate::control::{Apps, LogQuery, api};
use crate::engine::{self, Handle, Told};
use crate::model::app::{App, AppName};
use crate::releases::inotify::Inotify;
use crate::routing::kernel::KernelRoute;
use crate::services::Services;
use crate::state::History;

/// How often an address that is not there is tried again.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// The loaded apps.
pub struct Registry<S> {
    places: Places,
    planes: Planes,
    services: Arc<S>,
    apps: Mutex<BTreeMap<AppName, Loaded>>,
    broken: Mutex<BTreeMap<String, String>>,
    /// Apps whose addresses are not there yet, as those of an interface that comes up late.
    missing: Mutex<BTreeSet<AppName>>,
    adopted: Mutex<Vec<TcpListener>>,
    /// Held by whoever loads, updates or removes, so that two can't take the same address.
    turn: tokio::sync::Mutex<()>,
    changes: watch::Sender<()>,
    counts: Arc<Counts>,
    inotify: Arc<Inotify>,
    told: Told,
}

impl<S: Services> Registry<S> {
    pub(super) fn new(
        places: Places,
        planes: Planes,
        services: Arc<S>,
        adopted: Vec<TcpListener>,
        events: Option<EventsConfig>,
    ) -> Self {
        let counts = Arc::default();
        Self {
            places,
            planes,
            services,
            apps: Mutex::default(),
            broken: Mutex::default(),
            missing: Mutex::default(),
            adopted: Mutex::new(adopted),
            turn: tokio::sync::Mutex::default(),
            changes: watch::Sender::new(()),
            told: teller::told(Arc::clone(&counts), events),
            counts,
            inotify: Arc::default(),
        }
    }

    /// Where the files are.
    pub const fn places(&self) -> &Places {
        &self.places
    }

    /// Ready when what is loaded, or what an app does, changed after this call.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + use<S> {
        let mut changes = self.changes();
        async move {
            // The sender lives as long as the daemon.
            let _ = changes.changed().await;
        }
    }

    fn apps(&self) -> MutexGuard<'_, BTreeMap<AppName, Loaded>> {
        // Each change is a single insert or remove, so the map is sound even after a panic.
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_broken(&self, app: &str, problem: Option<String>) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) if broken.get(app) == Some(&problem) => {}
            Some(problem) => {
                tracing::error!(app, problem, "the app could not be loaded");
                broken.insert(app.to_owned(), problem);
            }
            None => {
                broken.remove(app);
            }
        }
    }

    /// Loads all app files; a bad one spoils only its own app.
    pub(super) async fn load_all(&self) {
        for path in self.places.app_files() {
            let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            let name = match AppName::new(&stem) {
                Ok(name) => name,
                Err(why) => {
                    self.note_broken(&stem, Some(why));
                    continue;
                }
            };
            if let Err(problem) = self.load_at_start(&name).await {
                self.note_broken(&stem, Some(problem));
            }
        }
        for leftover in self.adopted.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Ok(address) = leftover.local_addr() {
                descriptors::forget(address);
            }
        }
        // They look at the same time for what runs.
        join_all(self.handles().iter().map(Handle::view)).await;
        let files = self.places.app_files();
        let names = files.iter().filter_map(|file| AppName::new(&file.file_stem()?.to_string_lossy()).ok());
        let takes_tcp =
            |name: &AppName| self.apps().get(name).is_some_and(|loaded| !loaded.route.has_shortcut());
        let steered: Vec<AppName> = names.filter(|name| !takes_tcp(name)).collect();
        self.planes.clean_up(&steered);
        self.admit_deployers().await;
    }

    /// Loads an app with its file, or with the last one that was right if it no longer is.
    async fn load_at_start(&self, name: &AppName) -> Result<(), String> {
        let file = self.places.app_file(name);
        let app = match self.places.read(&file).await {
            Ok(app) => app,
            Err(problems) => {
                let good = self.places.last_good_file(name);
                let app = self.places.read(&good).await.map_err(|_| problems.clone())?;
                self.note_broken(
                    name.as_str(),
                    Some(format!("{problems}\nUntil it is mended the configuration before it is used.")),
                );
                App { name: name.clone(), ..app }
            }
        };
        self.check_conflicts(&app)?;
        let route = self.open(&app).map_err(|error| {
            if error.kind() != io::ErrorKind::AddrNotAvailable {
                return error.to_string();
            }
            self.missing().insert(name.clone());
            format!("{error}; it is tried again until it is there")
        })?;
        if let Err(reason) = self.planes.choose(&app, &route).await {
            tracing::warn!(app = %name, reason, "it has the tcp plane");
        }
        self.start(app, route).await.map(drop)
    }

    /// Lets the deployers of the loaded apps connect, and nobody who was one.
    async fn admit_deployers(&self) {
        let names: BTreeSet<String> =
            self.apps().values().flat_map(|loaded| loaded.app.deployers.clone()).collect();
        let find = move || names.iter().filter_map(|name| accounts::user_id(name)).collect();
        match tokio::task::spawn_blocking(find).await {
            Ok(users) => self.places.admit(&users),
            Err(error) => tracing::error!(%error, "deployers can't be looked up"),
        }
    }

    fn missing(&self) -> MutexGuard<'_, BTreeSet<AppName>> {
        // Each change is a single insert or remove, so the set is sound even after a panic.
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads apps whose addresses were not there yet, once they are. Never ready.
    pub(super) async fn load_missing(&self) {
        loop {
            let changed = self.changed();
            if self.missing().is_empty() {
                changed.await;
                continue;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            let _turn = self.turn.lock().await;
            let names = std::mem::take(&mut *self.missing());
            for name in names {
                if self.handle(&name).is_some() || !self.places.app_file(&name).exists() {
                    self.note_broken(name.as_str(), None);
                } else if let Err(problem) = self.load_at_start(&name).await {
                    self.note_broken(name.as_str(), Some(problem));
                } else {
                    tracing::info!(app = %name, "its address is there now");
                    self.note_broken(name.as_str(), None);
                }
            }
        }
    }

    fn check_conflicts(&self, app: &App) -> Result<(), String> {
        let others: Vec<App> = self
            .apps()
            .values()
            .filter(|loaded| loaded.app.name != app.name)
            .map(Loaded::with_ports)
            .collect();
        refuse_errors(config::conflicts(app, &others))
    }

    async fn check_host(&self, app: &App) -> Result<(), String> {
        let held: Vec<SocketAddr> =
            self.apps().values().flat_map(|loaded| loaded.app.listen.clone()).collect();
        let app = app.clone();
        let problems = tokio::task::spawn_blocking(move || {
            config::host_problems(&app, &config::Host { held: &held, ..config::Host::default() })
        })
        .await
        .map_err(|error| error.to_string())?;
        refuse_errors(problems)
    }

    fn open(&self, app: &App) -> io::Result<KernelRoute> {
        let adopted = descriptors::matching(
            &mut self.adopted.lock().unwrap_or_else(PoisonError::into_inner),
            &app.listen,
        );
        self.planes.open(app, &self.services, adopted)
    }

    /// Starts the engine, which then finds out by itself what runs.
    async fn start(&self, app: App, route: KernelRoute) -> Result<Handle, String> {
        let name = app.name.clone();
        let state_dir = self.places.state_dir(&name);
        let state = read_state(&state_dir).await?;
        descriptors::keep_all(&route);
        let taken_ports =
            self.apps().values().map(Loaded::ports).flat_map(|ports| [ports.blue, ports.green]).collect();
        let parts = engine::Parts {
            app: app.clone(),
            route: route.clone(),
            services: self.services.clone(),
            state_dir,
            state,
            taken_ports,
            inotify: self.inotify.clone(),
            told: self.told.clone(),
        };
        let handle = match Handle::start(parts).await {
            Ok(handle) => handle,
            Err(error) => {
                route.close_down();
                return Err(format!("the release store: {error}"));
            }
        };
        self.places.keep_good_copy(&name).await;
        let loaded = Loaded::new(app, handle.clone(), route, self.changes.clone());
        self.apps().insert(name, loaded);
        self.changes.send_replace(());
        Ok(handle)
    }

    async fn take_changed(&self, app: App, who: &str) -> Result<String, String> {
        let name = app.name.clone();
        let Some((route, handle, before)) = self
            .apps()
            .get(&name)
            .map(|loaded| (loaded.route.clone(), loaded.handle.clone(), loaded.app.clone()))
        else {
            return Err(format!("it is not loaded; first: dorc load {name}"));
        };
        let change = async {
            route.listen(&app.listen).map_err(|error| error.to_string())?;
            self.planes.insist(&app, &route).await?;
            handle.update(app.clone(), who.to_owned()).await.map_err(|ended| ended.to_string())?
        };
        let message = match change.await {
            Ok(message) => message,
            Err(why) => {
                if let Err(error) = route.listen(&before.listen) {
                    tracing::error!(app = %name, %error, "can't listen as before");
                }
                if let Err(error) = self.planes.choose(&before, &route).await {
                    tracing::debug!(app = %name, error, "it stays on the tcp plane");
                }
                return Err(why);
            }
        };
        let before = before.listen;
        for address in before.iter().filter(|address| !app.listen.contains(address)) {
            descriptors::forget(*address);
        }
        for (address, socket) in route.tcp().listeners() {
            if !before.contains(&address) {
                descriptors::keep(address, &socket);
            }
        }
        route.tcp().set_hold(app.switch.hold);
        if let Some(loaded) = self.apps().get_mut(&name) {
            loaded.app = app;
        }
        self.places.keep_good_copy(&name).await;
        self.changes.send_replace(());
        Ok(message)
    }

    /// Ends everything in this process: connections get so long to finish; services go on.
    pub(super) async fn end(&self, finish: Duration) {
        let loaded: Vec<(Handle, KernelRoute)> = std::mem::take(&mut *self.apps())
            .into_values()
            .map(|loaded| (loaded.handle, loaded.route))
            .collect();
        let mut ends = JoinSet::new();
        for (handle, route) in loaded {
            ends.spawn(async move {
                handle.end().await;
                let cut = route.tcp().finish(finish).await;
                if cut > 0 {
                    tracing::warn!(app = %handle.name(), cut, "connections were closed before they were done");
                }
            });
        }
        while ends.join_next().await.is_some() {}
    }
}

impl<S: Services> Apps for Registry<S> {
    fn handle(&self, app: &AppName) -> Option<Handle> {
        self.apps().get(app).map(|loaded| loaded.handle.clone())
    }

    fn handles(&self) -> Vec<Handle> {
        self.apps().values().map(|loaded| loaded.handle.clone()).collect()
    }

    fn deployers(&self, app: &AppName) -> Vec<String> {
        self.apps().get(app).map(|loaded| loaded.app.deployers.clone()).unwrap_or_default()
    }

    fn broken(&self) -> Vec<(String, String)> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.iter().map(|(app, problem)| (app.clone(), problem.clone())).collect()
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }

    fn logs(&self, app: &AppName, query: &LogQuery) -> std::process::Command {
        logs::command(&self.places, app, query)
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    async fn load(&self, name: &AppName, who: &str) -> Result<String, String> {
        let _turn = self.turn.lock().await;
        let app = self.places.read(&self.places.app_file(name)).await?;
        self.check_conflicts(&app)?;
        self.check_host(&app).await?;
        let result = if self.handle(name).is_some() {
            self.take_changed(app, who).await
        } else {
            let route = self.open(&app).map_err(|error| error.to_string())?;
            if let Err(reason) = self.planes.insist(&app, &route).await {
                route.close_down();
                return Err(reason);
            }
            let handle = self.start(app, route).await?;
            handle.view().await.map(|_| "loaded".into()).map_err(|ended| ended.to_string())
        };
        if result.is_ok() {
            self.note_broken(name.as_str(), None);
            self.admit_deployers().await;
        }
        result
    }

    async fn update(&self, name: &AppName, who: &str) -> Result<String, String> {
        if self.handle(name).is_none() {
            return Err(format!("it is not loaded; first: dorc load {name}"));
        }
        self.load(name, who).await
    }

    async fn remove(&self, name: &AppName, purge: bool, who: &str) -> Result<String, String> {
        let _turn = self.turn.lock().await;
        let Some((route, handle)) =
            self.apps().get(name).map(|loaded| (loaded.route.clone(), loaded.handle.clone()))
        else {
            return Err("it is not loaded; dorc status lists the apps that are".into());
        };
        handle.remove(purge).await.map_err(|ended| ended.to_string())??;
        for address in route.tcp().addresses() {
            descriptors::forget(address);
        }
        route.close_down();
        self.apps().remove(name);
        self.note_broken(name.as_str(), None);
        self.admit_deployers().await;
        tracing::info!(app = %name, who, purge, "removed");
        self.changes.send_replace(());
        self.places.put_away(name, purge).map_err(|error| {
            format!("removed, but its app file is still there and would be loaded again: {error}")
        })
    }

    async fn plane(&self, app: &AppName) -> api::Plane {
        let loaded = self.apps().get(app).map(|loaded| (loaded.route.clone(), loaded.app.plane));
        let Some((route, plane)) = loaded else { return api::Plane::default() };
        planes::status(&route, plane).await
    }

    async fn kernel_plane(&self) -> Result<(), String> {
        self.planes.try_kernel().await
    }

    fn history(&self, app: &AppName) -> History {
        self.places.state_dir(app).history()
    }
}
