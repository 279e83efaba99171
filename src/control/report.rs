//! From the model to the API.

mod outcome;

use std::time::{Duration, SystemTime};

use indicatif::DecimalBytes;

use super::api;
use crate::engine::View;
use crate::model::colour::Colour;
use crate::model::deployment::{Live, Notice, Phase, Standby, Tally, Upload};
use crate::model::health::{Failure, Probe};
use crate::model::release::{Release, ReleaseId, Verdict};

pub(super) use outcome::{answer, uploaded};

pub(super) fn event(notice: Notice) -> api::Event {
    match notice {
        Notice::Waiting(what) => api::Event::Waiting { what },
        Notice::Trying(live) => {
            api::Event::Trying { colour: live.colour.to_string(), release: live.release.to_string() }
        }
        Notice::Ready(live, answer) => {
            api::Event::Ready { colour: live.colour.to_string(), release: live.release.to_string(), answer }
        }
        Notice::Failed(live, why) => api::Event::Failed {
            colour: live.colour.to_string(),
            release: live.release.to_string(),
            failure: failure(&why),
        },
        Notice::Moved { from, to } => api::Event::Moved {
            from: from.map(|live| live.colour.to_string()),
            to: to.colour.to_string(),
            release: to.release.to_string(),
        },
        Notice::Draining { colour, open, left } => api::Event::Draining {
            colour: colour.to_string(),
            open,
            seconds_left: left.map(|left| left.as_secs_f64().ceil() as u64),
        },
        Notice::Settled(counts) => api::Event::Settled { tally: tally(counts) },
        Notice::Canary { canary, share, .. } => api::Event::Canary {
            colour: canary.colour.to_string(),
            release: canary.release.to_string(),
            share: share.to_string(),
        },
        Notice::Baking(live, left) => api::Event::Baking {
            colour: live.colour.to_string(),
            release: live.release.to_string(),
            seconds_left: left.as_secs_f64().ceil() as u64,
        },
        Notice::Baked(live) => {
            api::Event::Baked { colour: live.colour.to_string(), release: live.release.to_string() }
        }
        Notice::CanaryEnded { canary, bad: None, .. } => {
            api::Event::CanaryEnded { colour: canary.colour.to_string(), release: canary.release.to_string() }
        }
        Notice::Bad(live, why)
        | Notice::KeepsEnding(live, why)
        | Notice::CanaryEnded { canary: live, bad: Some(why), .. } => api::Event::Bad {
            colour: live.colour.to_string(),
            release: live.release.to_string(),
            failure: failure(&why),
        },
        Notice::Unhealthy(live, why) => api::Event::Unhealthy {
            colour: live.colour.to_string(),
            release: live.release.to_string(),
            failure: failure(&why),
        },
        Notice::Healthy(live, answer) => {
            api::Event::Healthy { colour: live.colour.to_string(), release: live.release.to_string(), answer }
        }
        Notice::Exited(live, how) => {
            api::Event::Exited { colour: live.colour.to_string(), how: how.to_string() }
        }
    }
}

fn tally(tally: Tally) -> api::Tally {
    api::Tally { finished: tally.finished, quiet: tally.quiet, cut: tally.cut }
}

fn failure(failure: &Failure) -> api::Failure {
    let Failure { reason, last_probe, log } = failure.clone();
    api::Failure { reason, last_probe, log }
}

pub(super) fn status(view: &View, plane: api::Plane) -> api::AppStatus {
    let deployment = &view.deployment;
    let active = deployment.active();
    let way_back = match deployment.phase() {
        Phase::Canary { active, .. } => Some(active.release),
        Phase::Draining { old, was_active: true, bad: None, .. } | Phase::Baking { old, .. } => Some(*old),
        _ => view.catalogue.last_good(active.map(|live| live.release)).map(|release| release.id),
    };
    api::AppStatus {
        app: view.app.name.to_string(),
        listen: view.app.listen.iter().map(ToString::to_string).collect(),
        plane: plane.name.to_owned(),
        plane_reason: plane.reason,
        release_dir: view.app.release_dir.display().to_string(),
        release_bin: view.app.release_bin.in_release().display().to_string(),
        active: active.map(|live| live.colour.to_string()),
        phase: phase(deployment.phase()).to_owned(),
        state: summary(view),
        upload: match deployment.upload() {
            Upload::Incoming(what) => Some(what.clone()),
            Upload::Dealt => receiving(view),
            Upload::Refused(_, failure) => {
                receiving(view).or_else(|| Some(format!("refused: {}", failure.reason)))
            }
        },
        canary: deployment.canary().map(|(_, plan)| plan.share.to_string()),
        queued: deployment.queued().map(|release| release.to_string()),
        way_back: way_back.map(|release| release.to_string()),
        health: view.health.clone().map(|Probe { healthy, answer }| api::Health { healthy, answer }),
        paused: view.pause.as_ref().map(|(who, left)| paused(who, *left)),
        frozen: view.freeze.as_ref().map(ToString::to_string),
        last_exit: active
            .and_then(|live| view.last_exits[live.colour].as_ref())
            .map(|(when, how)| format!("{}: {how}", time(*when))),
        green: api::ServiceStatus { traffic: plane.traffic.green, ..service(view, Colour::Green) },
        blue: api::ServiceStatus { traffic: plane.traffic.blue, ..service(view, Colour::Blue) },
    }
}

const fn phase(phase: &Phase) -> &'static str {
    match phase {
        Phase::Vacant { .. } => "vacant",
        Phase::Trying { .. } => "trying",
        Phase::Steady { .. } => "steady",
        Phase::Switching { .. } => "switching",
        Phase::Draining { .. } => "draining",
        Phase::Baking { .. } => "baking",
        Phase::Canary { .. } => "canary",
    }
}

fn summary(view: &View) -> String {
    let deployment = &view.deployment;
    if let Upload::Incoming(what) = deployment.upload() {
        return format!("upload: {what}");
    }
    if let Some((who, left)) = &view.pause {
        return paused(who, *left);
    }
    match deployment.phase() {
        Phase::Trying { candidate, .. } => format!("{} is coming up", candidate.release),
        Phase::Switching { to, .. } => format!("switching to {to}"),
        Phase::Canary { canary, plan, .. } => format!("{} of the clients get {canary}", plan.share),
        Phase::Draining { active, .. } => format!("draining {}", active.colour.other()),
        Phase::Steady { active, .. } | Phase::Baking { active, .. } if down(view, active.colour) => {
            format!("{} is down, connections wait", active.colour)
        }
        Phase::Steady { standby: Standby::Warm(_), .. } | Phase::Baking { .. }
            if down(view, deployment.inactive_colour()) =>
        {
            format!("{} is down, it is started again", deployment.inactive_colour())
        }
        Phase::Baking { active, .. } => format!("{} is watched, way back ready", active.release),
        Phase::Steady { active, .. } if ill(view).is_some() => {
            format!("{} is not healthy: {}", active.colour, ill(view).unwrap_or_default())
        }
        Phase::Steady { .. } | Phase::Vacant { .. } if view.freeze.is_some() => {
            view.freeze.as_ref().map(ToString::to_string).unwrap_or_default()
        }
        phase => {
            if let Some(what) = receiving(view) {
                return format!("upload: {what}");
            }
            if let Upload::Refused(_, failure) = deployment.upload() {
                return format!("upload refused: {}", failure.reason);
            }
            match phase {
                Phase::Vacant { standby: Standby::Failed(_, failure) }
                | Phase::Steady { standby: Standby::Failed(_, failure), .. } => {
                    format!("failed: {}", failure.reason)
                }
                Phase::Steady { standby: Standby::Warm(release), .. } => {
                    let served = view.catalogue.get(*release).is_some_and(|it| it.served().is_some());
                    if served { "live, way back ready".into() } else { "ready to switch".into() }
                }
                Phase::Vacant { standby: Standby::Warm(_) } => "ready to switch".into(),
                Phase::Steady { .. } => "live".into(),
                _ => "waits for its first release".into(),
            }
        }
    }
}

fn receiving(view: &View) -> Option<String> {
    view.receiving.map(|bytes| format!("{} have arrived", DecimalBytes(bytes)))
}

fn paused(who: &str, left: Duration) -> String {
    format!("paused by {who}, new connections wait for {} s at most", left.as_secs_f64().ceil())
}

/// What the active service answered, if that was not good.
fn ill(view: &View) -> Option<&str> {
    view.health.as_ref().filter(|probe| !probe.healthy).map(|probe| probe.answer.as_str())
}

fn down(view: &View, colour: Colour) -> bool {
    view.running[colour].as_ref().is_none_or(|running| running.main_pid.is_none())
}

fn service(view: &View, colour: Colour) -> api::ServiceStatus {
    let deployment = &view.deployment;
    let (state, release, why) = if deployment.active().is_some_and(|live| live.colour == colour) {
        ("active", deployment.active().map(|live| live.release), None)
    } else if deployment.active().is_none() && colour != deployment.inactive_colour() {
        ("empty", None, None)
    } else {
        inactive(deployment.phase())
    };
    let running = view.running[colour].as_ref();
    api::ServiceStatus {
        service: view.app.name.service(colour),
        state: state.to_owned(),
        release: release.map(|release| release.to_string()),
        label: release.and_then(|release| label(view, release)),
        port: view.ports[colour],
        connections: view.connections[colour],
        traffic: None,
        pid: running.and_then(|running| running.main_pid),
        restarts: running.map_or(0, |running| running.restarts),
        failure: why.map(failure),
    }
}

fn inactive(phase: &Phase) -> (&'static str, Option<ReleaseId>, Option<&Failure>) {
    match phase {
        Phase::Trying { candidate, .. } => ("starting", Some(candidate.release), None),
        Phase::Vacant { standby } | Phase::Steady { standby, .. } => match standby {
            Standby::Empty => ("empty", None, None),
            Standby::Warm(release) => ("ready", Some(*release), None),
            Standby::Failed(release, why) => ("failed", Some(*release), Some(why)),
        },
        Phase::Switching { to: release, .. } => ("ready", Some(*release), None),
        Phase::Draining { old, .. } => ("draining", Some(*old), None),
        Phase::Baking { old, .. } => ("ready", Some(*old), None),
        Phase::Canary { canary, .. } => ("canary", Some(*canary), None),
    }
}

pub(super) fn release(view: &View, release: &Release) -> api::ReleaseStatus {
    let active = view.deployment.active();
    let is = |live: Option<Live>| live.is_some_and(|live| live.release == release.id);
    let (_, inactive, why) = inactive(view.deployment.phase());
    let (state, reason) = match &release.verdict {
        _ if is(active) => ("active", None),
        _ if inactive == Some(release.id) && why.is_none() => ("ready", None),
        Verdict::Good(_) => ("good", None),
        Verdict::Failed(reason) => ("failed", Some(failure(reason))),
        Verdict::Untried => ("untried", None),
    };
    api::ReleaseStatus {
        release: release.id.to_string(),
        digest: release.artifact.to_string(),
        taken: time(release.taken),
        files: release.files,
        bytes: release.bytes,
        label: release.label.as_ref().map(ToString::to_string),
        state: state.to_owned(),
        served: release.served().map(time),
        failure: reason,
    }
}

/// What the user calls a release.
fn label(view: &View, release: ReleaseId) -> Option<String> {
    view.catalogue.get(release)?.label.as_ref().map(ToString::to_string)
}

/// An answer with the label of the release that it names.
pub(super) fn labelled(answer: api::Answer, view: &View) -> api::Answer {
    let release = answer.release.as_deref().and_then(|release| release.parse().ok());
    api::Answer { label: release.and_then(|release| label(view, release)), ..answer }
}

fn time(when: SystemTime) -> String {
    humantime::format_rfc3339_seconds(when).to_string()
}
