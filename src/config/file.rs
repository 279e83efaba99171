//! dorc's own app file as it is written.

mod health;
mod hooks;
mod service;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use minisign_verify::PublicKey;
use toml::de::{DeTable, DeValue};

use super::checks;
use super::defaults;
use super::document::Document;
use super::keys::FORMAT;
use super::paths;
use super::problem::Wrong;
use super::section::Section;
use super::values;
use crate::model::app::{App, AppName, PlaneChoice, Promote, ReleaseBin, ReleaseConfig, SwitchConfig};
use crate::model::share::Step;

/// More listen addresses than this are a mistake.
const MAX_LISTEN: usize = 64;

const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads the file. The app is to be used only if nothing was reported to `document`.
pub(super) fn read(name: &AppName, document: &Document<'_>, table: &DeTable<'_>) -> App {
    let top = Section::top(document, &FORMAT, table);
    top.refuse_unknown();
    let listen = top.require("listen", "80", listen).unwrap_or_default();
    let release_dir =
        top.require("release_dir", "\"/srv/upload/web\"", |value| paths::release_dir(value, document.base()));
    let release_bin =
        top.require("release_bin", "\"web\"", |value| paths::release_bin(value, release_dir.as_deref()));
    let service = top.section("service");
    let app = App {
        name: name.clone(),
        listen,
        plane: top.get("plane", plane).unwrap_or(PlaneChoice::Auto),
        release_dir: release_dir.unwrap_or_default(),
        release_bin: release_bin.unwrap_or(ReleaseBin::Inside(PathBuf::new())),
        deployers: top.get("deployers", deployers).unwrap_or_default(),
        service: service::read(&service),
        health: health::read(&top.section("health")),
        hooks: hooks::read(&top.section("hooks")),
        switch: switch(&top.section("switch")),
        release: release(&top.section("release")),
    };
    checks::listen(&top, "listen", &app.listen);
    checks::ports(&service, "ports", &app);
    checks::working_dir(&service, "working_dir", &app);
    checks::proxy_protocol(&service, "proxy_protocol", &app);
    app
}

fn listen(value: &DeValue<'_>) -> Result<Vec<SocketAddr>, Wrong> {
    let DeValue::Array(values) = value else {
        return values::address(value).map(|address| vec![address]);
    };
    if values.is_empty() || values.len() > MAX_LISTEN {
        let message = format!("the list has {} addresses", values.len());
        return Err(Wrong::new(message, format!("an app listens on 1 to {MAX_LISTEN}")));
    }
    values.iter().map(|value| values::address(value.get_ref())).collect()
}

fn plane(value: &DeValue<'_>) -> Result<PlaneChoice, Wrong> {
    let known = [("auto", PlaneChoice::Auto), ("kernel", PlaneChoice::Kernel), ("tcp", PlaneChoice::Tcp)];
    if value.as_str() == Some("http") {
        return Err(Wrong::new("the http plane is not built yet", "write \"auto\" or \"tcp\""));
    }
    values::one_of(value, &known)
}

fn deployers(value: &DeValue<'_>) -> Result<Vec<String>, Wrong> {
    let mut names = values::list(value, "users", values::user)?;
    names.sort();
    names.dedup();
    Ok(names)
}

fn switch(section: &Section<'_, '_>) -> SwitchConfig {
    section.refuse_unknown();
    let default = defaults::switch();
    let promote = [("manual", Promote::Manual), ("auto", Promote::Auto)];
    SwitchConfig {
        promote: section.get("promote", |value| values::one_of(value, &promote)).unwrap_or(default.promote),
        drain: section.get("drain", drain).unwrap_or(default.drain),
        canary: section.get("canary", canary).unwrap_or_default(),
        bake: section
            .get("bake", |value| values::duration(value, Duration::ZERO..=7 * DAY))
            .unwrap_or(default.bake),
        failover: section.get("failover", values::flag).unwrap_or(default.failover),
        hold: section
            .get("hold", |value| values::duration(value, Duration::ZERO..=10 * MINUTE))
            .unwrap_or(default.hold),
    }
}

fn drain(value: &DeValue<'_>) -> Result<Option<Duration>, Wrong> {
    match value {
        DeValue::String(word) if word == "forever" => Ok(None),
        value => values::duration(value, Duration::ZERO..=30 * DAY).map(Some),
    }
}

/// The steps of a canary: each a share and how long it lasts.
fn canary(value: &DeValue<'_>) -> Result<Vec<Step>, Wrong> {
    let steps = values::list(value, "steps", step)?;
    if steps.windows(2).any(|pair| pair[0].share >= pair[1].share) {
        return Err(Wrong::new("the shares do not grow", "order them, as [\"5% 10m\", \"25% 1h\"]"));
    }
    Ok(steps)
}

fn step(value: &DeValue<'_>) -> Result<Step, Wrong> {
    let text = values::text(value)?;
    let mend = "write a share and how long it lasts, as \"10% 5m\"";
    let wrong = |what: &str| Wrong::new(format!("{} has no {what}", values::shown(&text)), mend);
    let (share, time) = text.split_once(' ').ok_or_else(|| wrong("time"))?;
    let share = share.parse().map_err(|_| wrong("share between 0% and 100%"))?;
    let time = humantime::parse_duration(time.trim())
        .ok()
        .filter(|time| !time.is_zero() && *time <= 30 * DAY)
        .ok_or_else(|| wrong("time up to 30 days"))?;
    Ok(Step { share, time })
}

fn release(section: &Section<'_, '_>) -> ReleaseConfig {
    section.refuse_unknown();
    let default = defaults::release();
    ReleaseConfig {
        keep: section
            .get("keep", |value| values::number(value, 1..=1000))
            .and_then(|keep| usize::try_from(keep).ok())
            .unwrap_or(default.keep),
        settle: section
            .get("settle", |value| values::duration(value, 10 * MILLISECOND..=10 * MINUTE))
            .unwrap_or(default.settle),
        signed_by: section
            .get("signed_by", |value| values::list(value, "minisign keys", minisign_key))
            .unwrap_or(default.signed_by),
    }
}

fn minisign_key(value: &DeValue<'_>) -> Result<String, Wrong> {
    let key = values::text(value)?;
    match PublicKey::from_base64(&key) {
        Ok(_) => Ok(key),
        Err(_) => Err(Wrong::new(
            format!("{} is not a minisign key", values::shown(&key)),
            "write the second line of minisign.pub, which begins with RW",
        )),
    }
}
