//! Who is told of what: those who wait, those who watch, the log and the history.

use std::collections::HashMap;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use super::blocking;
use super::perform::LAST_LINES;
use super::task::Engine;
use crate::model::deployment::{AskId, Event, Live, Notice, Outcome, Phase, Way};
use crate::model::health::Failure;
use crate::model::release::{Release, ReleaseId, Verdict};
use crate::routing::Route;
use crate::services::Services;
use crate::state::{DORC, Entry};

/// Ends that follow each other sooner than this are one crash loop, and one line of the history.
const CRASH_LOOP: Duration = Duration::from_secs(60);

/// Someone who waits for an answer.
pub(super) struct Waiter {
    pub(super) who: String,
    pub(super) what: &'static str,
    /// Where the answer goes; `None`: whoever asked went away.
    pub(super) reply: Option<oneshot::Sender<Outcome>>,
}

/// The next of those who wait that went away.
pub(super) async fn next_gone(waiters: &mut HashMap<AskId, Waiter>) -> AskId {
    std::future::poll_fn(|context| {
        let mut waiting = waiters.iter_mut();
        let gone = waiting.find_map(|(id, waiter)| {
            let reply = waiter.reply.as_mut()?;
            reply.poll_closed(context).is_ready().then_some(*id)
        });
        gone.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

impl<R: Route, S: Services> Engine<R, S> {
    pub(super) async fn tell(&mut self, notice: Notice) {
        let app = &self.app.name;
        match &notice {
            Notice::Moved { from, to } => {
                tracing::info!(%app, to = %to.release, colour = %to.colour, "traffic moved");
                let (who, what) = self.mover.clone();
                self.record(&who, what, *from, Some(*to), Ok("done")).await;
            }
            Notice::Failed(live, failure) => {
                tracing::warn!(%app, release = %live.release, colour = %live.colour, reason = failure.reason, "not ready");
                self.record(DORC, "try", None, Some(*live), Err(&failure.reason)).await;
            }
            Notice::Exited(live, exit) => self.tell_exit(*live, &exit.to_string()).await,
            Notice::Canary { canary, share, active, by } => {
                tracing::info!(%app, release = %canary.release, colour = %canary.colour, %share, "canary");
                let share = share.to_string();
                self.record(&self.who(*by), "canary", Some(*active), Some(*canary), Ok(&share)).await;
            }
            Notice::CanaryEnded { canary, active, bad, by } => {
                match bad {
                    Some(Failure { reason, .. }) => {
                        tracing::error!(%app, release = %canary.release, colour = %canary.colour, reason, "the canary is bad, it gets no clients any more");
                    }
                    None => {
                        tracing::info!(%app, release = %canary.release, colour = %canary.colour, "the canary was ended");
                    }
                }
                let result = bad.as_ref().map_or(Ok("ended"), |failure| Err(failure.reason.as_str()));
                self.record(&self.who(*by), "canary", Some(*canary), Some(*active), result).await;
            }
            Notice::Bad(live, failure) => {
                tracing::error!(%app, release = %live.release, colour = %live.colour, reason = failure.reason, "bad, it is rolled back");
                self.record(DORC, "bake", None, Some(*live), Err(&failure.reason)).await;
            }
            Notice::KeepsEnding(live, failure) => {
                tracing::error!(%app, release = %live.release, colour = %live.colour, reason = failure.reason, "bad, traffic goes to the other service");
                self.record(DORC, "failover", None, Some(*live), Err(&failure.reason)).await;
            }
            Notice::Unhealthy(live, failure) => {
                tracing::error!(%app, release = %live.release, colour = %live.colour, reason = failure.reason, "not healthy any more");
                self.record(DORC, "health", None, Some(*live), Err(&failure.reason)).await;
            }
            Notice::Healthy(live, answer) => {
                tracing::info!(%app, release = %live.release, colour = %live.colour, answer, "healthy again");
                self.record(DORC, "health", None, Some(*live), Ok("healthy again")).await;
            }
            Notice::Ready(live, _) => self.pardon(live.release),
            _ => {}
        }
        self.run_hooks_of(&notice).await;
        // Nobody may be watching.
        let _ = self.world.notices.send(notice);
    }

    /// Of a service that ends again and again the history has the beginning.
    async fn tell_exit(&mut self, live: Live, exit: &str) {
        let (app, is_active) = (&self.app.name, self.deployment.active() == Some(live));
        tracing::error!(%app, colour = %live.colour, release = %live.release, is_active, exit, "the service ended by itself; it is started again");
        let now = SystemTime::now();
        let before = self.last_exits[live.colour].replace((now, exit.to_owned()));
        let since = before.and_then(|(before, _)| now.duration_since(before).ok());
        if since.is_none_or(|since| since > CRASH_LOOP) {
            self.record(DORC, "exit", None, Some(live), Err(exit)).await;
        }
    }

    /// A release that was called bad and got ready when it was tried again is not bad any more.
    fn pardon(&mut self, release: ReleaseId) {
        let release = self.state.catalogue.get(release);
        if let Some(Release { id, verdict: Verdict::Failed(_), .. }) = release {
            let id = *id;
            self.state.catalogue.judge(id, Verdict::Untried);
        }
    }

    /// Who asked for it: a user, or nobody but dorc itself.
    fn who(&self, ask: Option<AskId>) -> String {
        let waiter = ask.and_then(|ask| self.waiters.get(&ask));
        waiter.map_or_else(|| DORC.to_owned(), |waiter| waiter.who.clone())
    }

    /// Who wants the switch that is under way, and as what.
    pub(super) fn find_mover(&self) -> (String, &'static str) {
        let asks = match self.deployment.phase() {
            Phase::Switching { asks, .. } => asks.as_slice(),
            _ => &[],
        };
        let fallen = matches!(self.deployment.phase(), Phase::Switching { way: Way::Fallen { .. }, .. });
        if fallen {
            return (DORC.to_owned(), "rollback");
        }
        asks.iter()
            .find_map(|ask| self.waiters.get(&ask.id))
            .map_or_else(|| (DORC.to_owned(), "switch"), |waiter| (waiter.who.clone(), waiter.what))
    }

    pub(super) async fn record(
        &self,
        who: &str,
        what: &str,
        from: Option<Live>,
        to: Option<Live>,
        result: Result<&str, &str>,
    ) {
        let name = |live: Live| format!("{} {}", live.colour, live.release);
        let release = to.and_then(|live| self.state.catalogue.get(live.release));
        let entry = Entry {
            when: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            who: who.to_owned(),
            what: what.to_owned(),
            from: from.map(name),
            to: to.map(name),
            label: release.and_then(|release| release.label.as_ref()).map(ToString::to_string),
            result: result.unwrap_or_else(|why| why).to_owned(),
            failed: result.is_err(),
        };
        (self.told)(&self.app.name, &entry);
        let history = self.state_dir.history();
        if let Err(error) = blocking(move || history.append(&entry)).await {
            tracing::error!(app = %self.app.name, %error, "the history could not be written");
        }
    }

    pub(super) async fn answer(&mut self, ask: AskId, outcome: Outcome) {
        let Some(waiter) = self.waiters.remove(&ask) else { return };
        let refused = match &outcome {
            Outcome::Done { .. } | Outcome::Ready(_) | Outcome::Canary { .. } => None,
            // It has its own lines.
            Outcome::RolledBack { .. } => None,
            Outcome::NotRolledBack { why, .. } => Some(format!("it could not be rolled back: {why}")),
            Outcome::Refused(why) | Outcome::Superseded(why) | Outcome::Busy(why) => Some(why.clone()),
            Outcome::NotHealthy { failure, .. } => Some(failure.reason.clone()),
        };
        if let Some(why) = refused {
            self.record(&waiter.who, waiter.what, self.deployment.active(), None, Err(&why)).await;
        }
        if let Some(reply) = waiter.reply {
            self.reply(reply, outcome);
        }
    }

    /// What a service wrote before it failed with traffic on it is added on the way, unless a hook has told more.
    fn reply(&mut self, reply: oneshot::Sender<Outcome>, mut outcome: Outcome) {
        let failed = match &outcome {
            Outcome::RolledBack { failed, failure, .. } | Outcome::NotRolledBack { failed, failure, .. }
                if failure.log.is_empty() =>
            {
                failed
            }
            _ => {
                // Whoever asked may have gone in this moment; so below.
                let _ = reply.send(outcome);
                return;
            }
        };
        let (services, id) = (self.world.services.clone(), self.service_id(failed.colour));
        self.errands.spawn(async move {
            let lines = services.last_lines(&id, LAST_LINES).await;
            if let Outcome::RolledBack { failure, .. } | Outcome::NotRolledBack { failure, .. } = &mut outcome
            {
                failure.log = lines;
            }
            let _ = reply.send(outcome);
        });
    }

    /// Whoever asked went away; what has begun goes on.
    pub(super) async fn gone(&mut self, ask: AskId) {
        if let Some(waiter) = self.waiters.get_mut(&ask) {
            waiter.reply = None;
        }
        self.step(Event::Gone(ask)).await;
    }
}
