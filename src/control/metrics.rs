//! What is measured, in Prometheus' text format: what the status says, and how often what happened.
//!
//! The format: <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use super::api::{AppStatus, PHASES, STATES, ServiceStatus, Status, Traffic};
use crate::model::app::AppName;
use crate::state::Entry;

/// The media type of the format.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How often what happened to which app since the daemon was started, well or not.
#[derive(Debug, Default)]
pub struct Counts(Mutex<BTreeMap<(String, String, bool), u64>>);

impl Counts {
    /// It happened once more.
    pub fn count(&self, app: &AppName, entry: &Entry) {
        let key = (app.to_string(), entry.what.clone(), entry.failed);
        // Each change is of one number.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }

    fn all(&self) -> BTreeMap<(String, String, bool), u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All that is measured of these apps.
#[must_use]
pub fn render(status: &Status, counts: &Counts) -> String {
    let mut page = Page(String::new());
    let version = ("version", status.version.clone());
    page.gauge("dorc_info", "The version of the daemon", [(vec![version], 1.0)]);
    let broken = status.broken.len() as f64;
    page.gauge("dorc_broken_app_files", "App files that could not be taken", [(vec![], broken)]);
    of_apps(&mut page, &status.apps);
    of_services(&mut page, &status.apps);
    let counts =
        counts.all().into_iter().filter(|((of, ..), _)| status.apps.iter().any(|app| app.app == *of));
    page.family(
        "dorc_app_events_total",
        "counter",
        "What happened to an app since the daemon was started, as its history says",
        counts.map(|((app, what, failed), count)| {
            (vec![("app", app), ("what", what), ("failed", failed.to_string())], count as f64)
        }),
    );
    page.0
}

fn of_apps(page: &mut Page, apps: &[AppStatus]) {
    let info = apps.iter().map(|app| {
        let active = app.active_service();
        let release = active.and_then(|service| service.release.clone()).unwrap_or_default();
        let label = active.and_then(|service| service.label.clone()).unwrap_or_default();
        let colour = app.active.clone().unwrap_or_default();
        let more = [("plane", app.plane.clone()), ("colour", colour), ("release", release), ("label", label)];
        ([named(app)].into_iter().chain(more).collect(), 1.0)
    });
    page.gauge("dorc_app_info", "What is active, and the plane by which clients reach it", info);
    let phases = apps.iter().flat_map(|app| {
        let sample = |phase: &str| (vec![named(app), ("phase", phase.to_owned())], flag(app.phase == phase));
        PHASES.map(sample)
    });
    page.gauge("dorc_app_phase", "1 where the deployment stands", phases);
    let mut each = |name, help, value: fn(&AppStatus) -> Option<bool>| {
        let samples = apps.iter().filter_map(|app| Some((vec![named(app)], flag(value(app)?))));
        page.gauge(name, help, samples);
    };
    each("dorc_app_healthy", "Whether the active service was healthy when it was last asked", |app| {
        app.health.as_ref().map(|health| health.healthy)
    });
    each("dorc_app_frozen", "Whether nothing new is taken into service", |app| Some(app.frozen.is_some()));
    each("dorc_app_paused", "Whether new connections wait", |app| Some(app.paused.is_some()));
}

fn of_services(page: &mut Page, apps: &[AppStatus]) {
    let services: Vec<(Vec<Label>, &ServiceStatus)> = apps
        .iter()
        .flat_map(|app| {
            let labels = |colour: &str| vec![named(app), ("colour", colour.to_owned())];
            [(labels("green"), &app.green), (labels("blue"), &app.blue)]
        })
        .collect();
    let states = services.iter().flat_map(|(labels, service)| {
        STATES.map(|state| {
            let labels = labels.iter().cloned().chain([("state", state.to_owned())]);
            (labels.collect(), flag(service.state == state))
        })
    });
    page.gauge("dorc_service_state", "1 for what the service is", states);
    let mut each = |name, kind, help, value: fn(&ServiceStatus) -> Option<f64>| {
        let samples = services.iter().filter_map(|(labels, service)| Some((labels.clone(), value(service)?)));
        page.family(name, kind, help, samples);
    };
    each("dorc_service_connections", "gauge", "Connections that are open through dorc", |service| {
        Some(service.connections as f64)
    });
    each(
        "dorc_service_restarts",
        "gauge",
        "How often it was started again after it had ended by itself",
        |it| Some(f64::from(it.restarts)),
    );
    each(
        "dorc_service_accepted_total",
        "counter",
        "Connections that it got, on the kernel plane",
        |service| service.traffic.map(|traffic: Traffic| traffic.accepted as f64),
    );
    each(
        "dorc_service_closed_total",
        "counter",
        "Connections that dorc closed, on the kernel plane",
        |service| service.traffic.map(|traffic| traffic.closed as f64),
    );
    each("dorc_service_round_trip_seconds", "gauge", "Mean round trip of the open connections", |service| {
        service.traffic?.round_trip_us.map(|time| time as f64 / 1e6)
    });
}

type Label = (&'static str, String);

fn named(app: &AppStatus) -> Label {
    ("app", app.app.clone())
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Vec<Label>, f64)>) {
        self.family(name, "gauge", help, samples);
    }

    /// A family without samples is left out.
    fn family(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<Label>, f64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a string can't fail; so below.
        let _ = writeln!(self.0, "# HELP {name} {help}.\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.into_iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(&value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }
}

/// The value of a label as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}
