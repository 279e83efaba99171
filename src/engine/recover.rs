//! What an engine does first: it finds what runs, and goes on from there.

use std::time::Duration;

use super::task::Engine;
use super::{blocking, recipe};
use crate::model::colour::Colour;
use crate::model::deployment::{Event, Live, Phase, Standby};
use crate::model::health::Exit;
use crate::model::release::ReleaseId;
use crate::routing::{Canary, Route};
use crate::services::{ServiceError, Services};

/// How soon the start of the active service is tried again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl<R: Route, S: Services> Engine<R, S> {
    /// Makes the world agree with what was saved: the active service first, and never a stop of it.
    pub(super) async fn recover(&mut self) {
        self.agree_with_store().await;
        self.adopt_what_runs().await;
        self.settle_half_done_switch();
        let wanted = self.state.saved.wanted;
        if let Some(active) = self.deployment.active() {
            // First: those who wait until the route points somewhere go to their side at once.
            self.recover_canary().await;
            self.recover_active(active).await;
            self.recover_inactive(active.colour.other(), wanted).await;
            // It may have been lost.
            self.recover_canary().await;
        } else {
            self.stop_leftover(Colour::Blue).await;
            if matches!(self.deployment.phase(), Phase::Vacant { standby: Standby::Warm(_) }) {
                self.recover_inactive(Colour::Green, wanted).await;
            }
        }
        if let Some(wanted) = wanted.filter(|wanted| self.state.catalogue.get(*wanted).is_some()) {
            self.step(Event::Wanted(wanted)).await;
        }
        // A failure is loud already, and nothing depends on this write.
        let _ = self.persist().await;
    }

    /// A route that outlived the daemon tells whether a switch that was decided had happened.
    fn settle_half_done_switch(&mut self) {
        let (Some(target), Some(active)) = (self.world.route.pointing_at(), self.state.saved.active) else {
            return;
        };
        if let (true, Some((other, None))) = (target.colour != active.colour, &self.state.saved.standby) {
            let other = Live { colour: target.colour, release: *other };
            tracing::warn!(app = %self.app.name, colour = %other.colour, "a switch was decided but not carried out");
            self.state.saved.active = Some(other);
            self.state.saved.standby = Some((active.release, None));
            self.state.saved.baking = false;
            self.state.saved.canary = None;
            self.begin_anew();
        }
    }

    /// Forgets releases whose files are gone, and makes those known that only the store has.
    async fn agree_with_store(&mut self) {
        let store = self.store.clone();
        let secrets = self.state_dir.secrets();
        let listed = blocking(move || {
            let there = store.list()?;
            secrets.retain(&there)?;
            Ok(there)
        });
        let there = match listed.await {
            Ok(there) => there,
            Err(error) => {
                tracing::error!(app = %self.app.name, %error, "the release store can't be read");
                return;
            }
        };
        let catalogue = &mut self.state.catalogue;
        catalogue.releases.retain(|release| there.contains(&release.id));
        let unknown: Vec<ReleaseId> =
            there.into_iter().filter(|id| self.state.catalogue.get(*id).is_none()).collect();
        self.adopt_releases(unknown).await;
    }

    /// The active service goes on as it is; only one that is not there at all is started.
    async fn recover_active(&mut self, active: Live) {
        let release = self.release(active);
        let recipe = release.as_ref().map(|release| &release.recipe);
        let of_now = recipe::of(&self.app, self.ports);
        let target = recipe::target(recipe.unwrap_or(&of_now), active.colour);
        if let Err(why) = self.world.point_at(target).await {
            tracing::error!(app = %self.app.name, why, "the route could not be pointed at the active service");
        }
        // Without an answer it is left alone: it may well be running.
        if !matches!(self.runs(active.colour).await, Ok(running) if running != Some(Some(active.release))) {
            return;
        }
        let Some(release) = release else {
            tracing::error!(app = %self.app.name, release = %active.release, "the active release is not in the store");
            return;
        };
        tracing::warn!(app = %self.app.name, colour = %active.colour, "the active service does not run; it is started");
        let service = self.service(&release, active);
        let (services, events) = (self.world.services.clone(), self.events.0.clone());
        // Connections are held meanwhile; the engine takes commands.
        let starter = self.errands.spawn(async move {
            let mut pause = FIRST_PAUSE;
            while let Err(error) = services.start(&service).await {
                let exit = match error {
                    ServiceError::Failed(exit) => exit,
                    other => Exit { how: other.to_string(), after: None },
                };
                // The engine tells of it, and only goes away together with this.
                let _ = events.send(Event::Exited(service.id.colour, exit)).await;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
        self.starter = Some((active.colour, starter));
    }

    /// A warm service that runs stays warm; one that is gone comes up again, unless something newer is wanted.
    async fn recover_inactive(&mut self, colour: Colour, wanted: Option<ReleaseId>) {
        let standby = match self.deployment.phase() {
            Phase::Vacant { standby } | Phase::Steady { standby, .. } => standby.clone(),
            Phase::Canary { canary: old, .. } | Phase::Baking { old, .. } => Standby::Warm(*old),
            _ => return,
        };
        let Ok(runs) = self.runs(colour).await else { return };
        match (standby, runs) {
            (Standby::Warm(release), Some(Some(running))) if release == running => {}
            (Standby::Warm(release), _) => {
                self.step(Event::StandbyLost).await;
                // Where nothing is active it would get the traffic by itself, which nobody wanted.
                let is_beside = self.deployment.active().is_some();
                if is_beside && wanted.is_none() && self.state.catalogue.get(release).is_some() {
                    self.step(Event::Wanted(release)).await;
                }
            }
            (Standby::Empty | Standby::Failed(..), Some(_)) if wanted.is_none() => {
                self.stop_leftover(colour).await;
            }
            _ => {}
        }
    }

    /// A canary goes on as it was; what the route has of one that is over ends.
    async fn recover_canary(&mut self) {
        let canary = self.deployment.canary().and_then(|(live, plan)| {
            let recipe = self.release(live)?.recipe;
            Some(Canary { target: recipe::target(&recipe, live.colour), share: plan.share })
        });
        if let Err(why) = self.world.split(canary).await {
            tracing::error!(app = %self.app.name, why, "the clients could not be split as they were");
        }
    }

    /// What runs as the service of that colour: nothing, something unknown, or a release.
    pub(super) async fn runs(&self, colour: Colour) -> Result<Option<Option<ReleaseId>>, ServiceError> {
        let running = self.world.services.running(&self.service_id(colour)).await;
        if let Err(error) = &running {
            tracing::error!(app = %self.app.name, %colour, %error, "can't be asked about");
        }
        Ok(running?.map(|running| running.release))
    }

    async fn stop_leftover(&self, colour: Colour) {
        let id = self.service_id(colour);
        if let Err(error) = self.world.services.stop(&id).await {
            tracing::warn!(service = %id, %error, "what a crash left could not be stopped");
        }
    }
}
