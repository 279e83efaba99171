//! What users ask of an app.

use std::time::SystemTime;

use tokio::sync::oneshot;

use super::task::Engine;
use super::tell::Waiter;
use super::{Wish, blocking, recipe};
use crate::model::colour::Colour;
use crate::model::deployment::{Ask, Event, Goal, Notice, Outcome, Phase, Upload, Wait};
use crate::routing::Route;
use crate::services::Services;
use crate::state::Freeze;

impl<R: Route, S: Services> Engine<R, S> {
    pub(super) async fn wish(
        &mut self,
        wish: Wish,
        who: String,
        wait: Wait,
        reply: oneshot::Sender<Outcome>,
    ) {
        let is_for_upload =
            matches!(wish, Wish::Switch { to: None, .. } | Wish::Deploy { release: None, .. });
        if self.storing.is_some() && wait > Wait::Moved && is_for_upload {
            // Something newer may have been uploaded since: that is known once this is stored.
            self.held.push((wish, who, wait, reply));
            return self.tell(Notice::Waiting("it is being stored".into())).await;
        }
        // What the kernel has told of uploads until now counts: `cp` and then `dorc switch` belong together.
        self.catch_up().await;
        if let (Wish::Deploy { release: None, .. }, Upload::Incoming(what)) =
            (&wish, self.deployment.upload())
        {
            let notice = Notice::Waiting(what.clone());
            self.held.push((wish, who, wait, reply));
            return self.tell(notice).await;
        }
        let (what, rollback) = match &wish {
            Wish::Switch { .. } => ("switch", false),
            Wish::Rollback { .. } => ("rollback", true),
            Wish::Deploy { prepare: true, .. } => ("prepare", false),
            Wish::Deploy { prepare: false, .. } => ("deploy", false),
        };
        self.last_ask += 1;
        let id = self.last_ask;
        self.waiters.insert(id, Waiter { who, what, reply: Some(reply) });
        if let (Some(freeze), false) = (&self.state.freeze, rollback) {
            let why = format!("{freeze}; when that is over: dorc thaw {}", self.app.name);
            return self.answer(id, Outcome::Busy(why)).await;
        }
        if let (Wish::Deploy { release: None, .. }, Upload::Refused(release, failure)) =
            (&wish, self.deployment.upload())
        {
            let (release, failure, active) = (*release, failure.clone(), self.deployment.active());
            let outcome = Outcome::NotHealthy { release, colour: None, failure, rollback: false, active };
            return self.answer(id, outcome).await;
        }
        match self.goal(&wish) {
            Ok(goal) => {
                self.put_label(wish, goal).await;
                self.step(Event::Asked(Ask { id, goal, wait, rollback })).await;
            }
            Err(why) => self.answer(id, Outcome::Refused(why)).await,
        }
    }

    /// Calls what is to be deployed as its user does.
    async fn put_label(&mut self, wish: Wish, goal: Goal) {
        let (Wish::Deploy { label: Some(label), .. }, Goal::Release(release) | Goal::Ready(release)) =
            (wish, goal)
        else {
            return;
        };
        self.state.catalogue.label(release, label);
        // A failure is loud already, and nothing depends on this write.
        let _ = self.persist().await;
    }

    /// What a wish comes to: names looked up, guards checked.
    fn goal(&self, wish: &Wish) -> Result<Goal, String> {
        if let Wish::Switch { if_active: Some(guard), .. } | Wish::Rollback { if_active: Some(guard), .. } =
            wish
        {
            self.check_guard(&self.named(guard)?, guard)?;
        }
        match wish {
            Wish::Switch { to, canary, .. } => match (to, canary) {
                (Some(_), Some(_)) => Err("a canary is what the other service holds: leave --to away".into()),
                (Some(to), None) => self.named(to),
                (None, Some(share)) => Ok(Goal::Canary(*share)),
                (None, None) => Ok(Goal::Other),
            },
            Wish::Deploy { release, prepare, .. } => {
                let release = match release {
                    None => self.state.catalogue.newest().map(|newest| newest.id).ok_or_else(|| {
                        format!("there is no release yet: dorc deploy {} PATH", self.app.name)
                    })?,
                    Some(name) => match self.named(name)? {
                        Goal::Release(release) => release,
                        _ => return Err(format!("a release is deployed, {name:?} is a colour")),
                    },
                };
                Ok(if *prepare { Goal::Ready(release) } else { Goal::Release(release) })
            }
            Wish::Rollback { to: Some(to), .. } => match self.named(to)? {
                goal @ Goal::Release(_) => Ok(goal),
                _ => Err(format!(
                    "rollback takes a release, {to:?} is a colour; a colour is for dorc switch --to"
                )),
            },
            Wish::Rollback { to: None, .. } => {
                if let Phase::Canary { active, .. } = self.deployment.phase() {
                    return Ok(Goal::Release(active.release));
                }
                if let Phase::Draining { old, was_active: true, bad: None, .. } | Phase::Baking { old, .. } =
                    self.deployment.phase()
                {
                    return Ok(Goal::Release(*old));
                }
                let active = self.deployment.active().map(|live| live.release);
                self.state.catalogue.last_good(active).map(|release| Goal::Release(release.id)).ok_or_else(
                    || "there is nothing to roll back to: no other release has been active yet".into(),
                )
            }
        }
    }

    /// From now on nothing new is taken into service, or it is again.
    pub(super) async fn freeze(&mut self, why: Option<String>, who: String) -> Result<String, String> {
        let before = self.state.freeze.take();
        let (what, result, message) = match (&why, &before) {
            (None, None) => return Ok("it was not frozen".into()),
            (None, Some(before)) => ("thaw", "done".into(), format!("thawed; it was {before}")),
            (Some(why), _) => ("freeze", why.clone(), "frozen: nothing new is taken into service".into()),
        };
        self.state.freeze = why.map(|why| Freeze { who: who.clone(), why, since: SystemTime::now() });
        if let Err(error) = self.persist().await {
            self.state.freeze = before;
            return Err(format!("it could not be written to disk: {error}"));
        }
        self.record(&who, what, None, None, Ok(&result)).await;
        self.step(Event::Policy(recipe::policy(&self.app, &self.state))).await;
        Ok(message)
    }

    fn named(&self, text: &str) -> Result<Goal, String> {
        if let Ok(colour) = text.parse() {
            return Ok(Goal::Colour(colour));
        }
        self.state.catalogue.find(text).map(|release| Goal::Release(release.id)).ok_or_else(|| {
            let app = &self.app.name;
            format!(
                "{text:?} is neither green nor blue nor a release of {app}; they are in: dorc releases {app}"
            )
        })
    }

    fn check_guard(&self, guard: &Goal, text: &str) -> Result<(), String> {
        let active = self.deployment.active();
        let holds = active.is_some_and(|live| match guard {
            Goal::Colour(colour) => live.colour == *colour,
            Goal::Release(release) => live.release == *release,
            Goal::Other | Goal::Canary(_) | Goal::Ready(_) => false,
        });
        if holds {
            return Ok(());
        }
        let is = active.map_or_else(
            || "nothing is active".to_owned(),
            |live| format!("{} {} is active", live.colour, live.release),
        );
        Err(format!("{is}, not {text}: nothing was changed"))
    }

    pub(super) async fn reload(&mut self, who: String, reply: oneshot::Sender<Result<String, String>>) {
        let Some(active) = self.deployment.active() else {
            let _ = reply.send(Err("there is no active service to reload".into()));
            return;
        };
        let Some(release) = self.release(active) else {
            let _ = reply.send(Err(format!("the release store does not have {}", active.release)));
            return;
        };
        self.record(&who, "reload", None, Some(active), Ok("asked")).await;
        let service = self.service(&release, active);
        let services = self.world.services.clone();
        self.errands.spawn(async move {
            let result = services.reload(&service).await.map_err(|error| error.to_string());
            // Whoever asked may have gone.
            let _ = reply.send(result.map(|()| format!("{} {} reloaded", active.colour, active.release)));
        });
    }

    /// Leaves nothing of the app behind; the releases stay unless they are to be purged.
    pub(super) async fn remove(&mut self, purge: bool, reply: oneshot::Sender<Result<(), String>>) {
        self.abort_job();
        let result = self.delete_all(purge).await;
        if let Err(why) = &result {
            tracing::error!(app = %self.app.name, why, "could not be removed");
        }
        let failed = result.is_err();
        let _ = reply.send(result);
        if !failed {
            let (ended, _) = oneshot::channel();
            self.ended = Some(ended);
        }
    }

    async fn delete_all(&mut self, purge: bool) -> Result<(), String> {
        if let Some((intake, _)) = self.intake.take() {
            intake.stop().await;
        }
        self.receiver.close().await;
        self.finish_storing().await;
        self.errands.shutdown().await;
        for colour in Colour::BOTH {
            let id = self.service_id(colour);
            self.world.services.remove(&id).await.map_err(|error| format!("{id}: {error}"))?;
        }
        let dir = self.state_dir.clone();
        blocking(move || {
            dir.delete()?;
            if purge && dir.path().exists() {
                std::fs::remove_dir_all(dir.path())?;
            }
            Ok(())
        })
        .await
        .map_err(|error| error.to_string())
    }
}
