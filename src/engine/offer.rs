//! From an upload, or a changed configuration, to a release that is offered to the model.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::receive::{Then, Waiting};
use super::task::Engine;
use super::{blocking, recipe};
use crate::model::app::{App, Service, ServiceConfig};
use crate::model::deployment::{Event, Live, Phase, Standby, Upload};
use crate::model::health::Failure;
use crate::model::release::{Digest, Label, Recipe, Release, ReleaseId, Verdict};
use crate::releases::intake::{Intake, Seen};
use crate::releases::store::{Store, Taken};
use crate::releases::upload;
use crate::routing::Route;
use crate::services::Services;
use crate::state::{self, Content, DORC};

/// How large the credentials of a service may be together, in bytes: more systemd does not take.
const MOST_CREDENTIALS: usize = 1 << 20;

/// How long the intake may take to say what it knows.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Which way an upload came.
pub(super) enum Origin {
    /// Through the release directory, whose fingerprint that is.
    Directory(Option<String>),
    /// By a command that waits for what becomes of it.
    Command(Waiting),
}

impl Origin {
    fn who(&self) -> &str {
        match self {
            Self::Directory(_) => DORC,
            Self::Command(waiting) => &waiting.who,
        }
    }

    /// What was known of uploads before, where nothing is to come up yet.
    fn not_yet(&self) -> Option<Upload> {
        match self {
            Self::Command(waiting) if waiting.then == Then::IsAskedFor => Some(waiting.before.clone()),
            _ => None,
        }
    }

    fn label(&self) -> Option<Label> {
        match self {
            Self::Directory(_) => None,
            Self::Command(waiting) => waiting.label.clone(),
        }
    }
}

/// What became of a taken upload.
pub(super) type Stored = (Result<Release, String>, Origin);

impl<R: Route, S: Services> Engine<R, S> {
    /// Begins to watch the release directory.
    pub(super) fn watch_uploads(&mut self) {
        self.intake = Some(Intake::start(
            self.inotify.clone(),
            self.store.clone(),
            recipe::upload(&self.app),
            self.app.release.settle,
            upload::Limits::default(),
            self.state.fingerprint.clone(),
        ));
        self.first_look = true;
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
        let first = self.first_look;
        self.first_look &= matches!(seen, Seen::Incoming(_) | Seen::Failed(_));
        match seen {
            Seen::Incoming(what) => self.step(Event::Upload(Upload::Incoming(what))).await,
            Seen::Nothing => self.step(Event::Upload(Upload::Dealt)).await,
            Seen::Refused(refusal) => {
                let failure = Failure::because(refusal.to_string());
                tracing::warn!(app = %self.app.name, reason = failure.reason, "upload refused");
                self.record(DORC, "take", None, None, Err(&failure.reason)).await;
                self.step(Event::Upload(Upload::Refused(None, failure))).await;
            }
            Seen::Failed(why) => {
                tracing::error!(app = %self.app.name, why, "the upload could not be taken; it is tried again");
                self.step(Event::Upload(Upload::Refused(None, Failure::because(why)))).await;
            }
            Seen::Taken(taken) if first && self.is_passed(&taken) => {
                self.state.fingerprint = taken.fingerprint.clone();
                // A failure is loud already, and only costs another look at the next start.
                let _ = self.persist().await;
                discard(taken);
                self.step(Event::Upload(Upload::Dealt)).await;
            }
            Seen::Taken(taken) => {
                let origin = Origin::Directory(taken.fingerprint.clone());
                self.store_taken(taken, origin).await;
            }
        }
    }

    /// Whether this is what the release directory held all along, and something newer came by a command since.
    fn is_passed(&self, taken: &Taken) -> bool {
        let newest = self.state.catalogue.newest();
        self.state.in_directory == Some(taken.digest)
            && newest.is_some_and(|newest| newest.artifact != taken.digest)
    }

    /// Makes a release of a taken upload, unless it is one already.
    pub(super) async fn store_taken(&mut self, taken: Taken, origin: Origin) {
        let recipe = recipe::of(&self.app, self.ports);
        let Configuration { digest: config, secrets: content } = match configuration(&recipe).await {
            Ok(configuration) => configuration,
            Err(failure) => {
                discard(taken);
                return self.not_stored(failure, origin).await;
            }
        };
        if let Some(known) = self.state.catalogue.same(taken.digest, config).map(|release| release.id) {
            self.state.catalogue.renew(known, SystemTime::now());
            if let Some(label) = origin.label() {
                self.state.catalogue.label(known, label);
            }
            self.remember(taken.digest, &origin);
            discard(taken);
            match origin.not_yet() {
                // A failure is loud already, and nothing depends on this write.
                Some(_) => drop(self.persist().await),
                None => self.offer_known(known).await,
            }
            return self.tell_uploaded(known, origin);
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
            label: origin.label(),
            verdict: Verdict::Untried,
        };
        let (store, secrets) = (self.store.clone(), self.state_dir.secrets());
        self.storing = Some(tokio::spawn(async move {
            let published = blocking(move || {
                secrets.keep(id, &content)?;
                store.publish(taken, id)
            })
            .await;
            (published.map(|_| release).map_err(|error| error.to_string()), origin)
        }));
    }

    pub(super) async fn stored(&mut self, (release, origin): Stored) {
        match release {
            Ok(release) => {
                self.remember(release.artifact, &origin);
                let id = self.add(release, origin.who()).await;
                let event = match origin.not_yet() {
                    Some(before) => Event::Upload(before),
                    None => Event::Offered(id),
                };
                self.step(event).await;
                self.tell_uploaded(id, origin);
            }
            Err(why) => {
                let failure = Failure::because(format!("the upload could not be stored: {why}"));
                self.not_stored(failure, origin).await;
            }
        }
    }

    /// What the release directory holds is not taken again as long as nobody touches it. What came by a command says
    /// nothing of it: what it holds stays dealt with, and does not come back as something newer.
    fn remember(&mut self, artifact: Digest, origin: &Origin) {
        if let Origin::Directory(fingerprint) = origin {
            self.state.fingerprint.clone_from(fingerprint);
            self.state.in_directory = Some(artifact);
        }
    }

    /// Whoever waits is told why; for others nothing has changed, unless it lies in the release directory.
    async fn not_stored(&mut self, failure: Failure, origin: Origin) {
        let upload = match origin {
            Origin::Directory(_) => Upload::Refused(None, failure),
            Origin::Command(waiting) => waiting.refuse(failure.reason),
        };
        self.step(Event::Upload(upload)).await;
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
        self.record(who, "take", None, Some(to), Ok("done")).await;
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
        let configuration = configuration(&recipe).await.map_err(|failure| failure.reason)?;
        let watch_again = self.intake.is_none()
            || (recipe::upload(&app), app.release.settle)
                != (recipe::upload(&self.app), self.app.release.settle);
        self.ports = ports;
        self.state.ports = Some(ports);
        self.step(Event::Policy(recipe::policy(&app, &self.state))).await;
        self.app = Arc::new(app);
        self.sum_up();
        if watch_again {
            if let Some((intake, _)) = self.intake.take() {
                intake.stop().await;
            }
            self.state.fingerprint = None;
            self.watch_uploads();
        }
        self.offer_reconfigured(recipe, configuration, who).await
    }

    /// Offers the newest release's files with the configuration of now.
    async fn offer_reconfigured(
        &mut self,
        recipe: Recipe,
        configuration: Configuration,
        who: &str,
    ) -> Result<String, String> {
        let Configuration { digest: config, secrets: content } = configuration;
        let Some(newest) = self.state.catalogue.newest().cloned() else {
            return Ok("taken; there is no release yet".into());
        };
        if let Some(same) = self.state.catalogue.same(newest.artifact, config).map(|release| release.id) {
            return Ok(self.try_again(same).await);
        }
        let id = self.state.catalogue.take_id(&whole_digest(newest.artifact, config));
        let store = self.store.clone();
        let (of, secrets) = (newest.id, self.state_dir.secrets());
        let published = blocking(move || {
            secrets.keep(id, &content)?;
            store.publish_copy_of(of, id)
        });
        published.await.map_err(|error| error.to_string())?;
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
            Phase::Vacant { standby } => matches!(standby, Standby::Failed(..)),
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

/// Deletes a copy that nobody needs, where that may take its time.
pub(super) fn discard(taken: Taken) {
    // Nobody depends on its end.
    drop(tokio::task::spawn_blocking(move || drop(taken)));
}

/// What a release runs with, as it is now.
pub(super) struct Configuration {
    pub(super) digest: Digest,
    pub(super) secrets: Content,
}

/// Reads what belongs to a recipe. Each file is read once: its digest and what is kept of it are of the same bytes.
pub(super) async fn configuration(recipe: &Recipe) -> Result<Configuration, Failure> {
    let service = recipe.service.clone();
    // Nothing goes wrong there that is not a failure of a file.
    let read = blocking(move || Ok(read_secrets(&service)))
        .await
        .map_err(|error| Failure::because(error.to_string()));
    let secrets = read??;
    Ok(Configuration { digest: state::recipe_digest(recipe, &secrets), secrets })
}

fn read_secrets(service: &ServiceConfig) -> Result<Content, Failure> {
    let read = |key: &str, path: &Path| {
        std::fs::read(path)
            .map_err(|error| Failure::because(format!("[service] {key}: {}: {error}", path.display())))
    };
    let env_file = service.env_file.as_deref().map(|path| read("env_file", path)).transpose()?;
    let mut credentials = BTreeMap::new();
    for (name, credential) in &service.credentials {
        credentials.insert(name.clone(), read(&format!("credentials.{name}"), &credential.path)?);
    }
    if credentials.values().map(Vec::len).sum::<usize>() > MOST_CREDENTIALS {
        return Err(Failure::because("[service] credentials: they have more than 1 MiB together"));
    }
    Ok(Content { env_file, credentials })
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
