//! From what the intake saw, or a changed configuration, to a release that is offered to the model.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::task::{Engine, policy};
use super::tell::DORC;
use super::{blocking, recipe};
use crate::model::app::{App, Service};
use crate::model::deployment::{Event, Live, Phase, Standby, Upload};
use crate::model::health::Failure;
use crate::model::release::{Digest, Recipe, Release, ReleaseId, Verdict};
use crate::releases::intake::{Intake, Seen};
use crate::releases::store::{Store, Taken};
use crate::releases::upload;
use crate::routing::Route;
use crate::services::Services;
use crate::state;

/// How long the intake may take to say what it knows.
const CATCH_UP: Duration = Duration::from_secs(2);

/// What became of a taken upload.
pub(super) struct Stored {
    release: Result<Release, String>,
    fingerprint: Option<String>,
}

impl Stored {
    /// The task that stored it panicked.
    pub(super) fn broken_off(error: tokio::task::JoinError) -> Self {
        Self { release: Err(error.to_string()), fingerprint: None }
    }
}

impl<R: Route, S: Services> Engine<R, S> {
    /// Begins to watch the release directory.
    pub(super) async fn watch_uploads(&mut self) {
        let started = Intake::start(
            self.store.clone(),
            recipe::upload(&self.app),
            self.app.release.settle,
            upload::Limits::default(),
            self.state.fingerprint.clone(),
        );
        match started {
            Ok(intake) => self.intake = Some(intake),
            Err(error) => {
                tracing::error!(app = %self.app.name, %error, "uploads can't be watched");
                let failure = Failure::because(format!("uploads can't be watched: {error}"));
                self.step(Event::Upload(Upload::Refused(None, failure))).await;
            }
        }
    }

    /// Takes in all that the kernel has told of uploads until now.
    pub(super) async fn catch_up(&mut self) {
        let Some((intake, _)) = &self.intake else { return };
        if tokio::time::timeout(CATCH_UP, intake.sync()).await.is_err() {
            tracing::warn!(app = %self.app.name, "the intake does not answer");
        }
        while self.storing.is_none() {
            let Some(Ok(seen)) = self.intake.as_mut().map(|(_, seen)| seen.try_recv()) else { break };
            self.seen(seen).await;
        }
    }

    pub(super) async fn seen(&mut self, seen: Seen) {
        match seen {
            Seen::Incoming(what) => self.step(Event::Upload(Upload::Incoming(what))).await,
            Seen::Nothing => self.step(Event::Upload(Upload::Dealt)).await,
            Seen::Refused(refusal) => {
                let failure = Failure::because(refusal.to_string());
                tracing::warn!(app = %self.app.name, reason = failure.reason, "upload refused");
                self.record(DORC, "take", None, None, &failure.reason).await;
                self.step(Event::Upload(Upload::Refused(None, failure))).await;
            }
            Seen::Failed(why) => {
                tracing::error!(app = %self.app.name, why, "the upload could not be taken; it is tried again");
                self.step(Event::Upload(Upload::Refused(None, Failure::because(why)))).await;
            }
            Seen::Taken { taken, fingerprint } => self.store_taken(taken, fingerprint).await,
        }
    }

    /// Makes a release of a taken upload, unless it is one already.
    async fn store_taken(&mut self, taken: Taken, fingerprint: String) {
        let recipe = recipe::of(&self.app, self.ports);
        let config = match config_digest(&recipe).await {
            Ok(config) => config,
            Err(failure) => return self.step(Event::Upload(Upload::Refused(None, failure))).await,
        };
        if let Some(known) = self.state.catalogue.same(taken.digest, config).map(|release| release.id) {
            self.state.fingerprint = Some(fingerprint);
            self.state.catalogue.renew(known, SystemTime::now());
            return self.offer_known(known).await;
        }
        self.step(Event::Upload(Upload::Incoming("it is being stored".into()))).await;
        let id = self.state.catalogue.take_id(&whole_digest(taken.digest, config));
        let release = Release {
            id,
            artifact: taken.digest,
            config,
            recipe,
            taken: SystemTime::now(),
            files: taken.files,
            bytes: taken.bytes,
            verdict: Verdict::Untried,
        };
        let store = self.store.clone();
        self.storing = Some(tokio::spawn(async move {
            let published = blocking(move || store.publish(taken, id)).await;
            let release = published.map(|_| release).map_err(|error| error.to_string());
            Stored { release, fingerprint: Some(fingerprint) }
        }));
    }

    pub(super) async fn stored(&mut self, stored: Stored) {
        match stored.release {
            Ok(release) => {
                self.state.fingerprint = stored.fingerprint;
                let id = self.add(release, DORC).await;
                self.step(Event::Offered(id)).await;
            }
            Err(why) => {
                let failure = Failure::because(format!("the upload could not be stored: {why}"));
                self.step(Event::Upload(Upload::Refused(None, failure))).await;
            }
        }
    }

    /// Those wishes again that waited for an upload, once it has been dealt with.
    pub(super) async fn ask_held(&mut self) {
        if self.storing.is_some() || matches!(self.deployment.upload(), Upload::Incoming(_)) {
            return;
        }
        for (wish, who, wait, reply) in std::mem::take(&mut self.held) {
            // One that nobody waits for any more was not begun.
            if !reply.is_closed() {
                self.wish(wish, who, wait, reply).await;
            }
        }
    }

    async fn add(&mut self, release: Release, who: &str) -> ReleaseId {
        let id = release.id;
        tracing::info!(app = %self.app.name, release = %id, files = release.files, bytes = release.bytes, "taken");
        self.state.catalogue.add(release);
        let to = Live { colour: self.deployment.inactive_colour(), release: id };
        self.record(who, "take", None, Some(to), "done").await;
        id
    }

    /// Offers a release that the store has; one that failed before is not tried again by itself.
    async fn offer_known(&mut self, id: ReleaseId) {
        let failed = match self.state.catalogue.get(id).map(|release| &release.verdict) {
            Some(Verdict::Failed(failure)) => Some(failure.clone()),
            _ => None,
        };
        // A failure is loud already, and nothing depends on this write.
        let _ = self.persist().await;
        match failed {
            Some(failure) => {
                self.step(Event::Upload(Upload::Refused(Some(id), failure))).await;
            }
            None => self.step(Event::Offered(id)).await,
        }
    }

    /// Takes a changed configuration: what needs no restart at once, the rest as a new candidate.
    pub(super) async fn update(&mut self, app: App, who: &str) -> Result<String, String> {
        let ports = app.service.ports.unwrap_or(self.ports);
        let recipe = recipe::of(&app, ports);
        // Before anything is changed: a file that can't be read leaves all as it is.
        let config = config_digest(&recipe).await.map_err(|failure| failure.reason)?;
        let watch_again = self.intake.is_none()
            || (recipe::upload(&app), app.release.settle)
                != (recipe::upload(&self.app), self.app.release.settle);
        self.ports = ports;
        self.state.ports = Some(ports);
        self.step(Event::Policy(policy(&app, &self.state))).await;
        self.app = Arc::new(app);
        if watch_again {
            if let Some((intake, _)) = self.intake.take() {
                intake.stop().await;
            }
            self.state.fingerprint = None;
            self.watch_uploads().await;
        }
        self.offer_reconfigured(recipe, config, who).await
    }

    /// Offers the newest release's files with the configuration of now.
    async fn offer_reconfigured(
        &mut self,
        recipe: Recipe,
        config: Digest,
        who: &str,
    ) -> Result<String, String> {
        let Some(newest) = self.state.catalogue.newest().cloned() else {
            return Ok("taken; there is no release yet".into());
        };
        if let Some(same) = self.state.catalogue.same(newest.artifact, config).map(|release| release.id) {
            return Ok(self.try_again(same).await);
        }
        let id = self.state.catalogue.take_id(&whole_digest(newest.artifact, config));
        let store = self.store.clone();
        let of = newest.id;
        blocking(move || store.publish_copy_of(of, id)).await.map_err(|error| error.to_string())?;
        let colour = self.deployment.inactive_colour();
        let release =
            Release { id, config, recipe, taken: SystemTime::now(), verdict: Verdict::Untried, ..newest };
        let id = self.add(release, who).await;
        self.step(Event::Wanted(id)).await;
        Ok(format!("taken; {colour} comes up as {id} with it"))
    }

    /// The configuration of this release is the one of now: only if it failed is there something to do.
    async fn try_again(&mut self, id: ReleaseId) -> String {
        let failed = match self.deployment.phase() {
            Phase::Vacant { failed } => failed.is_some(),
            Phase::Steady { standby: Standby::Failed(release, _), .. } => *release == id,
            _ => false,
        };
        let active = self.deployment.active().is_some_and(|live| live.release == id);
        if failed && !active {
            self.step(Event::Wanted(id)).await;
            return format!("taken; {id} is tried again");
        }
        // A failure is loud already, and nothing depends on this write.
        let _ = self.persist().await;
        if !active && !self.deployment.held().contains(&id) {
            self.step(Event::Wanted(id)).await;
            return format!("taken; {id}, which has this configuration, comes up");
        }
        "taken; nothing in it needs a restart".into()
    }
}

/// The digest of a recipe and of the environment file that it names.
pub(super) async fn config_digest(recipe: &Recipe) -> Result<Digest, Failure> {
    let env_file = match recipe.service.env_file.clone() {
        Some(path) => blocking({
            let path = path.clone();
            move || std::fs::read(path)
        })
        .await
        .map_err(|error| Failure::because(format!("[service] env_file: {}: {error}", path.display())))?,
        None => Vec::new(),
    };
    Ok(state::recipe_digest(recipe, &env_file))
}

/// What names a release: its files and what it runs with.
fn whole_digest(artifact: Digest, config: Digest) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&artifact.0).update(&config.0);
    Digest(*hasher.finalize().as_bytes())
}

/// Copies the release to its working directory, where the app file names one.
pub(super) async fn fill_working_dir(store: Arc<Store>, service: &Service) -> Result<(), Failure> {
    if service.working_dir == service.dir {
        return Ok(());
    }
    let (release, dir) = (service.release, service.working_dir.clone());
    let shown = dir.display().to_string();
    let cancel = Cancel::default();
    let cancelled = cancel.0.clone();
    blocking(move || store.copy_to(release, &dir, &cancelled))
        .await
        .map_err(|error| Failure::because(format!("it could not be copied to {shown}: {error}")))
}

/// Keeps a copying from beginning once nobody waits for it any more.
#[derive(Default)]
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
