//! While an app is paused its new connections wait.

use std::time::{Duration, Instant};

use super::now;
use super::task::Engine;
use crate::routing::Route;
use crate::services::Services;
use crate::state::DORC;

/// The longest that new connections may be held.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);

/// A pause that is under way.
#[derive(Debug, Clone)]
pub struct Pause {
    /// Who ordered it.
    pub who: String,
    /// When it ends by itself.
    pub until: Instant,
}

impl<R: Route, S: Services> Engine<R, S> {
    /// From now on new connections wait, for this long at most; what a pause that is under way had left is forgotten.
    pub(super) async fn pause(&mut self, time: Duration, who: String) -> Result<String, String> {
        if self.deployment.active().is_none() {
            return Err("nothing is active, so there is nothing to pause".into());
        }
        let time = time.min(LONGEST_PAUSE);
        self.world.route.hold(Some(time)).await.map_err(|error| format!("it can't be paused: {error}"))?;
        let shown = humantime::format_duration(time);
        self.record(&who, "pause", None, None, Ok(&shown.to_string())).await;
        self.pause = Some(Pause { who, until: now() + time });
        Ok(format!("paused for at most {shown}: new connections wait, those that are open go on"))
    }

    /// New connections go to the service again, and so do those that waited.
    pub(super) async fn resume(&mut self, who: &str) -> Result<String, String> {
        let Some(pause) = self.pause.take() else { return Ok("it was not paused".into()) };
        if let Err(error) = self.world.route.hold(None).await {
            self.pause = Some(pause);
            return Err(format!("it can't be resumed: {error}"));
        }
        self.record(who, "resume", None, None, Ok("done")).await;
        Ok("resumed".into())
    }

    /// The time of a pause is over.
    pub(super) async fn pause_over(&mut self) {
        if let Err(error) = self.resume(DORC).await {
            tracing::error!(app = %self.app.name, error, "the planes let go of those who waited too long");
            self.pause = None;
        }
    }
}
