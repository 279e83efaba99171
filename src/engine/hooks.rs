//! When the hooks of a release are run.

use std::time::Duration;

use super::perform::World;
use super::recipe;
use super::task::Engine;
use crate::model::app::{App, Service};
use crate::model::deployment::{Event, Live, Notice};
use crate::model::health::Failure;
use crate::model::hooks::{Hook, Hooks};
use crate::routing::Route;
use crate::services::Services;
use crate::state::{AppState, DORC};

/// A hook that is to be run.
pub(super) struct Run {
    hook: Hook,
    service: Service,
}

impl<R: Route, S: Services> World<R, S> {
    /// Runs a hook, where there is one.
    pub(super) async fn run_hook(&self, run: Option<Run>) -> Result<(), Failure> {
        let Some(Run { hook, service }) = run else { return Ok(()) };
        // Nobody may be watching.
        let _ = self.notices.send(Notice::Waiting(format!("the hook {hook} runs")));
        match self.services.run(hook, &service).await {
            Ok(finished) => match finished.failure {
                None => Ok(()),
                Some(exit) => {
                    let failure = Failure::because(format!("the hook {hook} failed: {exit}"));
                    Err(Failure { log: finished.lines, ..failure })
                }
            },
            Err(error) => Err(Failure::because(format!("the hook {hook} could not be run: {error}"))),
        }
    }
}

impl<R: Route, S: Services> Engine<R, S> {
    /// The hook of a release, for its service of that colour; `None`: it has none.
    pub(super) fn hook(&self, hook: Hook, live: Live, reason: Option<&str>) -> Option<Run> {
        let release = self.release(live)?;
        let words = release.recipe.hooks.commands.get(&hook)?;
        let dir = self.store.path(release.id);
        let start = recipe::fill(words, &release.recipe, live.colour, &dir);
        let mut service = self.service(&release, live);
        (service.start, service.start_timeout) = (start, release.recipe.hooks.deadline);
        (service.reload, service.stop, service.notify) = (None, None, false);
        let told = [("DORC_APP", self.app.name.as_str()), ("DORC_HOOK", hook.name())];
        let named = [("DORC_RELEASE", release.id.to_string()), ("DORC_COLOUR", live.colour.to_string())];
        service.env.extend(told.map(|(name, value)| (name.to_owned(), value.to_owned())));
        service.env.extend(named.map(|(name, value)| (name.to_owned(), value)));
        service.env.extend(reason.map(|reason| ("DORC_REASON".to_owned(), reason.to_owned())));
        Some(Run { hook, service })
    }

    /// The hook of a candidate. A release that was active before has had them, and coming back needs no preparation.
    pub(super) fn hook_of_candidate(&self, hook: Hook, live: Live) -> Option<Run> {
        let is_new = self.release(live).is_some_and(|release| release.served().is_none());
        if is_new { self.hook(hook, live, None) } else { None }
    }

    /// Runs the hooks of a notice, which nothing waits for.
    pub(super) async fn run_hooks_of(&mut self, notice: &Notice) {
        match notice {
            Notice::Moved { to, .. } => {
                self.run_aside(Hook::Switched, *to, None).await;
                if self.deployment.is_baking() {
                    self.run_aside(Hook::Bake, *to, None).await;
                }
            }
            Notice::Failed(live, failure)
            | Notice::Bad(live, failure)
            | Notice::KeepsEnding(live, failure) => {
                self.run_aside(Hook::Failed, *live, Some(&failure.reason)).await;
            }
            _ => {}
        }
    }

    async fn run_aside(&mut self, hook: Hook, live: Live, reason: Option<&str>) {
        let Some(run) = self.hook(hook, live, reason) else { return };
        let (world, app, events) = (self.world.clone(), self.app.name.clone(), self.events.0.clone());
        self.record(DORC, "hook", None, Some(live), Ok(&format!("{hook} begins"))).await;
        self.errands.spawn(async move {
            let Err(failure) = world.run_hook(Some(run)).await else { return };
            tracing::error!(%app, release = %live.release, reason = failure.reason, log = ?failure.log, "a hook failed");
            if hook == Hook::Bake {
                // The engine only goes away together with this.
                let _ = events.send(Event::Unhealthy(live, failure)).await;
            }
        });
    }
}

/// How long those hooks may take that a candidate waits for, whichever release it is.
pub(super) fn before_traffic(app: &App, state: &AppState) -> Duration {
    let of_releases = state.catalogue.releases.iter().map(|release| &release.recipe.hooks);
    of_releases.chain([&app.hooks]).map(Hooks::before_traffic).max().unwrap_or_default()
}
