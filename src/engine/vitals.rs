//! The health of the active service: in its bake closely, later from time to time. While there is a canary, the canary's.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::perform::{Question, probe_once};
use super::task::Engine;
use crate::model::app::Check;
use crate::model::deployment::{Event, Live};
use crate::model::health::{Failure, Probe};
use crate::routing::Route;
use crate::services::Services;

/// How long a service that bakes is left alone between two probes, at most: what fails is to be seen soon.
const BAKING: Duration = Duration::from_millis(200);

/// How long one that has proved itself is.
const PROVED: Duration = Duration::from_secs(10);

/// A service that failed to answer well is asked once more after this long, before it is called unhealthy.
const ONCE_MORE: Duration = Duration::from_millis(50);

/// What watches over a service.
pub(super) struct Watch {
    of: Live,
    closely: bool,
    last: watch::Receiver<Option<Probe>>,
    task: AbortHandle,
}

impl Watch {
    /// What that service answered last, if it is the one that is watched.
    pub(super) fn last(&self, of: Option<Live>) -> Option<Probe> {
        if of == Some(self.of) { self.last.borrow().clone() } else { None }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<R: Route, S: Services> Engine<R, S> {
    /// Watches over what is active now, or the canary, as closely as it is to be.
    ///
    /// One that has proved itself is asked only where the app says how: that its process ends is told by its supervisor,
    /// and whoever has nothing more to say than that the port answers is not woken for it.
    pub(super) fn keep_watch(&mut self) {
        let wanted = self.deployment.watched().filter(|(live, closely)| {
            let check = self.state.catalogue.get(live.release).map(|release| &release.recipe.check);
            check.is_some_and(|check| *closely || !matches!(check, Check::Port { .. }))
        });
        if self.watch.as_ref().map(|watch| (watch.of, watch.closely)) == wanted {
            return;
        }
        self.watch = wanted.and_then(|(live, closely)| self.watch_over(live, closely));
    }

    fn watch_over(&mut self, of: Live, closely: bool) -> Option<Watch> {
        let question = self.question(&self.release(of)?, of.colour);
        let pause = match (&question.check, closely) {
            (_, false) => PROVED,
            // A program is more than a question.
            (Check::Command(_), true) => question.health.interval,
            (_, true) => question.health.interval.min(BAKING),
        };
        let (tell, last) = watch::channel(None);
        let task = self.errands.spawn(look_after(of, question, pause, self.events.0.clone(), tell));
        Some(Watch { of, closely, last, task })
    }
}

/// Asks again and again, and tells of each change.
async fn look_after(
    of: Live,
    question: Question,
    pause: Duration,
    events: mpsc::Sender<Event>,
    tell: watch::Sender<Option<Probe>>,
) {
    let mut was_healthy = true;
    loop {
        sleep(pause).await;
        let asked = Instant::now();
        let mut probe = probe_once(&question, Duration::MAX).await;
        // One that did not answer in time had its second chance.
        if was_healthy && !probe.healthy && asked.elapsed() < question.health.timeout {
            sleep(ONCE_MORE).await;
            probe = probe_once(&question, Duration::MAX).await;
        }
        tell.send_replace(Some(probe.clone()));
        if probe.healthy == was_healthy {
            continue;
        }
        was_healthy = probe.healthy;
        let event = if probe.healthy {
            Event::Healthy(of, probe.answer)
        } else {
            let failure = Failure::because("it is not healthy any more");
            Event::Unhealthy(of, Failure { last_probe: Some(probe.answer), ..failure })
        };
        // The engine only goes away together with this.
        let _ = events.send(event).await;
    }
}
