//! The jobs: what one command of the model does to the world.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast;
use tokio::time::{sleep, timeout};

use super::now;
use crate::health;
use crate::model::app::{Check, HealthConfig, Service, ServiceId};
use crate::model::colour::Colour;
use crate::model::deployment::{Notice, Tally};
use crate::model::health::{Exit, Failure, Gate, Probe};
use crate::model::proxy_protocol::ProxyProtocol;
use crate::routing::{Canary, Route, Target, Which};
use crate::services::{ServiceError, Services};

/// How many of a failed service's last lines an answer carries.
pub(super) const LAST_LINES: usize = 10;

/// A connection on which nothing happened for this long is quiet.
const QUIET: Duration = Duration::from_secs(1);

/// How long connections that were told to close get to do so.
const CLOSING: Duration = Duration::from_secs(2);

/// How long the route may take to be moved; shorter than the model's patience, which only is the last resort.
const MOVE: Duration = Duration::from_secs(10);

/// The first probe's retries come quickly, so that a service that starts fast is ready fast.
const FIRST_INTERVAL: Duration = Duration::from_millis(10);

/// The world that jobs act on.
pub(super) struct World<R, S> {
    pub(super) route: Arc<R>,
    pub(super) services: Arc<S>,
    pub(super) notices: broadcast::Sender<Notice>,
}

impl<R, S> Clone for World<R, S> {
    fn clone(&self) -> Self {
        Self { route: self.route.clone(), services: self.services.clone(), notices: self.notices.clone() }
    }
}

/// What is asked of a service before it counts as ready.
pub(super) struct Question {
    pub(super) check: Check,
    pub(super) address: SocketAddr,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    pub(super) health: HealthConfig,
    pub(super) env: BTreeMap<String, String>,
    pub(super) dir: PathBuf,
}

impl<R: Route, S: Services> World<R, S> {
    /// Starts the service and waits until it is ready: its last health answer.
    ///
    /// One that does not get ready is stopped again, after what it wrote has been read.
    pub(super) async fn bring_up(
        &self,
        service: &Service,
        question: &Question,
        mut exits: broadcast::Receiver<(Colour, Exit)>,
    ) -> Result<String, Failure> {
        // What it replaces may take long to end, which is not its own time.
        if let Err(error) = self.services.end(&service.id).await {
            return Err(Failure::because(format!("the service before it could not be stopped: {error}")));
        }
        let deadline = now() + question.health.deadline;
        let started = match self.services.start(service).await {
            Ok(()) => {
                let gate = pass_gate(question, now(), deadline);
                tokio::select! {
                    gated = gate => gated,
                    exit = exit_of(&mut exits, service.id.colour) => Err(Failure::because(ended(&exit))),
                }
            }
            Err(ServiceError::Failed(exit)) => Err(Failure::because(ended(&exit))),
            Err(error) => Err(Failure::because(error.to_string())),
        };
        match started {
            Ok(answer) => Ok(answer),
            Err(failure) => {
                let failure = self.explain(service, question, failure).await;
                self.give_up(&service.id).await;
                Err(failure)
            }
        }
    }

    /// Stops a candidate that failed.
    pub(super) async fn give_up(&self, id: &ServiceId) {
        if let Err(error) = self.services.stop(id).await {
            tracing::warn!(service = %id, %error, "a failed candidate could not be stopped");
        }
    }

    /// Adds what the person who reads the failure would otherwise have to look for.
    async fn explain(&self, service: &Service, question: &Question, mut failure: Failure) -> Failure {
        let port = question.address.port();
        if failure.last_probe.as_ref().is_some_and(|probe| probe.contains("refused")) {
            let listening = self.services.listening_ports(&service.id).await;
            if !listening.is_empty() && !listening.contains(&port) {
                let ports: Vec<String> = listening.iter().map(u16::to_string).collect();
                failure.reason = format!(
                    "it listens on port {} instead of {port}, which it gets as {{port}} and $PORT",
                    ports.join(" and ")
                );
            }
        }
        failure.log = self.services.last_lines(&service.id, LAST_LINES).await;
        failure
    }

    /// Asks a running service once.
    pub(super) async fn verify(&self, id: &ServiceId, question: &Question) -> Result<String, Failure> {
        let probe = probe_once(question, Duration::MAX).await;
        if probe.healthy {
            return Ok(probe.answer);
        }
        Err(Failure {
            reason: "it was ready before, but is not healthy now".into(),
            last_probe: Some(probe.answer),
            log: self.services.last_lines(id, LAST_LINES).await,
        })
    }

    /// Points the route at a service.
    pub(super) async fn point_at(&self, target: Target) -> Result<(), String> {
        match timeout(MOVE, self.route.point_at(Some(target))).await {
            Ok(moved) => moved.map_err(|error| error.to_string()),
            // Where it points is what counts, and not whether it said so.
            Err(_) if self.route.pointing_at() == Some(target) => Ok(()),
            Err(_) => Err("it did not answer in time".into()),
        }
    }

    /// Sends a share of the clients elsewhere, or nobody any more.
    pub(super) async fn split(&self, canary: Option<Canary>) -> Result<(), String> {
        match timeout(MOVE, self.route.split(canary)).await {
            Ok(split) => split.map_err(|error| error.to_string()),
            Err(_) => Err("it did not answer in time".into()),
        }
    }

    /// Waits until no connection to that colour is left: quiet ones are closed on the way, and at `until` all.
    pub(super) async fn drain(&self, colour: Colour, until: Option<Instant>) -> Tally {
        if let Err(error) = self.split(None).await {
            tracing::error!(%colour, error, "new clients may still be sent to what is drained");
        }
        let mut tally = Tally::default();
        let at_first = self.route.open_connections(colour).await;
        let mut step = Duration::from_millis(5);
        let mut told = None;
        loop {
            let open = self.route.open_connections(colour).await;
            if open == 0 {
                break;
            }
            let left = until.map(|until| until.saturating_duration_since(now()));
            if left == Some(Duration::ZERO) {
                tally.cut = self.route.close(colour, Which::All).await;
                self.wait_closed(colour).await;
                break;
            }
            tally.quiet += self.route.close(colour, Which::Quiet(QUIET)).await;
            let seconds = left.map(|left| left.as_secs());
            if told != Some((open, seconds)) {
                told = Some((open, seconds));
                // Nobody may be watching.
                let _ = self.notices.send(Notice::Draining { colour, open, left });
            }
            sleep(step.min(left.unwrap_or(step))).await;
            step = (step * 2).min(Duration::from_millis(100));
        }
        tally.finished = at_first.saturating_sub(tally.quiet + tally.cut);
        tally
    }

    /// As `drain`; once no connection is left the service is stopped.
    pub(super) async fn retire(&self, id: &ServiceId, until: Option<Instant>) -> Tally {
        let tally = self.drain(id.colour, until).await;
        if let Err(error) = self.services.stop(id).await {
            tracing::warn!(service = %id, %error, "what is bad could not be stopped");
        }
        tally
    }

    async fn wait_closed(&self, colour: Colour) {
        let closed = async {
            while self.route.open_connections(colour).await > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(CLOSING, closed).await.is_err() {
            tracing::warn!(%colour, "connections that were closed are still open");
        }
    }
}

/// The sentence for a service that ended before it was ready.
fn ended(exit: &Exit) -> String {
    format!("it ended: {exit}")
}

/// Waits until the service of that colour ends by itself.
async fn exit_of(exits: &mut broadcast::Receiver<(Colour, Exit)>, colour: Colour) -> Exit {
    loop {
        match exits.recv().await {
            Ok((ended, exit)) if ended == colour => return exit,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Probes until the gate opens or the deadline passes.
async fn pass_gate(question: &Question, started: Instant, deadline: Instant) -> Result<String, Failure> {
    let mut gate = Gate::new(question.health.successes);
    let mut pause = FIRST_INTERVAL.min(question.health.interval);
    loop {
        let probe = probe_once(question, now().duration_since(started)).await;
        if gate.count(&probe) {
            return Ok(probe.answer);
        }
        if probe.healthy {
            pause = question.health.interval;
        }
        if now() + pause >= deadline {
            let seconds = question.health.deadline;
            let reason = format!("it was not healthy within {}", humantime::format_duration(seconds));
            return Err(Failure { reason, last_probe: Some(probe.answer), log: Vec::new() });
        }
        sleep(pause).await;
        pause = (pause * 2).min(question.health.interval);
    }
}

pub(super) async fn probe_once(question: &Question, up_for: Duration) -> Probe {
    let Question { address, proxy_protocol, env, dir, .. } = question;
    let subject = health::Subject { address: *address, proxy_protocol: *proxy_protocol, up_for, env, dir };
    health::probe(&question.check, subject, question.health.timeout).await
}
