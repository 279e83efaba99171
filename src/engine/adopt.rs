//! Releases that the state does not know, and services that run without it: after a loss of the state, or when an app
//! that was removed comes back.

use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use super::task::Engine;
use super::{blocking, offer, recipe};
use crate::model::app::ReleaseBin;
use crate::model::colour::{ByColour, Colour};
use crate::model::deployment::{Live, Saved};
use crate::model::release::{Digest, Release, ReleaseId, Verdict};
use crate::releases::upload::{Limits, Upload};
use crate::routing::Route;
use crate::services::Services;
use crate::state::Entry;

/// How much of the history is asked for what was active.
const HISTORY: usize = 1000;

impl<R: Route, S: Services> Engine<R, S> {
    /// Goes on from what runs where the state was lost: nothing that serves is stopped or started anew.
    pub(super) async fn adopt_what_runs(&mut self) {
        let known = &self.state.catalogue;
        if self.state.saved != Saved::default() || known.releases.iter().any(|one| one.served().is_some()) {
            return;
        }
        let Some(running) = self.all_that_runs().await else { return };
        let moves = self.moves().await;
        let Some(active) = self.was_active(running, &moves) else { return };
        for (when, live) in &moves {
            self.state.catalogue.judge(live.release, Verdict::Good(*when));
        }
        let standby = running[active.colour.other()].filter(|release| *release != active.release);
        tracing::warn!(
            app = %self.app.name, colour = %active.colour, release = %active.release,
            "the state does not say what is active; this is, by what runs and by the history"
        );
        self.state.saved = Saved {
            active: Some(active),
            standby: standby.map(|release| (release, None)),
            ..Saved::default()
        };
        self.begin_anew();
    }

    /// The releases that run; `None`: nobody could tell.
    async fn all_that_runs(&self) -> Option<ByColour<Option<ReleaseId>>> {
        let mut all = ByColour::default();
        for colour in Colour::BOTH {
            all[colour] = self.runs(colour).await.ok()?.flatten();
        }
        Some(all)
    }

    /// The moves of traffic that the history tells of, oldest first.
    async fn moves(&self) -> Vec<(SystemTime, Live)> {
        let history = self.state_dir.history();
        match blocking(move || history.read(HISTORY)).await {
            Ok(entries) => entries.iter().filter_map(moved).collect(),
            Err(error) => {
                tracing::error!(app = %self.app.name, %error, "the history can't be read");
                Vec::new()
            }
        }
    }

    /// Where traffic went last: as the route says that outlived the daemon, else the history, else what runs.
    fn was_active(&self, running: ByColour<Option<ReleaseId>>, moves: &[(SystemTime, Live)]) -> Option<Live> {
        let live = |colour: Colour| running[colour].map(|release| Live { colour, release });
        let runs = |last: &Live| running[last.colour] == Some(last.release);
        let last = moves.last().map(|(_, live)| *live);
        let pointed = self.world.route.pointing_at().and_then(|target| live(target.colour));
        let oldest = || Colour::BOTH.into_iter().filter_map(live).min_by_key(|live| live.release.number);
        let stored = |last: &Live| self.state.catalogue.get(last.release).is_some();
        pointed.or(last.filter(runs)).or_else(oldest).or(last.filter(stored))
    }

    /// Makes releases known that the store has and the state does not.
    pub(super) async fn adopt_releases(&mut self, unknown: Vec<ReleaseId>) {
        let Some(newest) = unknown.iter().map(|id| id.number).max() else { return };
        self.adopt_ports().await;
        let recipe = recipe::of(&self.app, self.ports);
        let config = offer::configuration(&recipe).await;
        let config = config.map_or(Digest([0; 32]), |configuration| configuration.digest);
        for id in unknown {
            let (store, bin) = (self.store.clone(), ReleaseBin::Inside(recipe.bin.clone()));
            let upload = Upload { dir: store.path(id), bin, ..recipe::upload(&self.app) };
            let looked = blocking(move || {
                let taken = store.take(&upload, &Limits::default(), &AtomicBool::new(false));
                taken.map(|taken| (taken.digest, taken.files, taken.bytes)).map_err(std::io::Error::other)
            });
            match looked.await {
                Ok((artifact, files, bytes)) => {
                    tracing::warn!(app = %self.app.name, release = %id, "is in the store and not in the state; it is known again");
                    self.state.catalogue.add(Release {
                        id,
                        artifact,
                        config,
                        recipe: recipe.clone(),
                        taken: SystemTime::now(),
                        files,
                        bytes,
                        label: None,
                        verdict: Verdict::Untried,
                    });
                }
                Err(error) => {
                    tracing::warn!(app = %self.app.name, release = %id, %error, "is in the store, but can't be used");
                }
            }
        }
        let last = &mut self.state.catalogue.last_number;
        *last = newest.max(*last);
    }

    /// What runs has its ports already, whatever would be chosen now.
    async fn adopt_ports(&mut self) {
        if self.app.service.ports.is_some() || !self.state.catalogue.releases.is_empty() {
            return;
        }
        for colour in Colour::BOTH {
            let listening = self.world.services.listening_ports(&self.service_id(colour)).await;
            let chosen = listening.iter().find(|port| recipe::PORTS.contains(port)).or(listening.first());
            if let Some(port) = chosen {
                self.ports[colour] = *port;
            }
        }
        self.state.ports = Some(self.ports);
    }
}

/// The move of traffic that an entry of the history tells of.
fn moved(entry: &Entry) -> Option<(SystemTime, Live)> {
    if entry.result != "done" || !matches!(entry.what.as_str(), "switch" | "rollback") {
        return None;
    }
    let (colour, release) = entry.to.as_deref()?.split_once(' ')?;
    let live = Live { colour: colour.parse().ok()?, release: release.parse().ok()? };
    Some((humantime::parse_rfc3339(&entry.when).ok()?, live))
}
