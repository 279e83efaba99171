//! The section `[health]`.

use std::time::Duration;

use toml::de::DeValue;

use crate::config::problem::Wrong;
use crate::config::section::Section;
use crate::config::values::{self, shown};
use crate::config::{commands, defaults};
use crate::model::app::{Check, HealthConfig};

const SHORTEST: Duration = Duration::from_millis(10);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Reads the section.
pub(super) fn read(section: &Section<'_, '_>) -> HealthConfig {
    section.refuse_unknown();
    let default = defaults::health();
    let duration =
        |key, longest: Duration| section.get(key, |value| values::duration(value, SHORTEST..=longest));
    let health = HealthConfig {
        check: check(section),
        interval: duration("interval", HOUR).unwrap_or(default.interval),
        timeout: duration("timeout", HOUR).unwrap_or(default.timeout),
        successes: section
            .get("successes", |value| values::number(value, 1..=100))
            .and_then(|successes| u32::try_from(successes).ok())
            .unwrap_or(default.successes),
        deadline: duration("deadline", 24 * HOUR).unwrap_or(default.deadline),
    };
    check_deadline(section, &health);
    health
}

fn check(section: &Section<'_, '_>) -> Check {
    let path = section.get("path", path);
    let host = section.get("host", host);
    let command = section.get("command", commands::command);
    let given = |key| section.span(key).is_some();
    if given("path") && given("command") {
        section.report("command", Wrong::new("path and command are both given", "leave one of them out"));
    }
    if given("host") && !given("path") {
        section.warn("host", Wrong::new("without a path no host is asked", "add path = \"/healthz\""));
    }
    match (path, command) {
        (Some(path), _) => Check::Http { path, host: host.unwrap_or_else(|| defaults::HOST.to_owned()) },
        (None, Some(command)) => Check::Command(command),
        (None, None) => Check::Port { up_for: defaults::UP_FOR },
    }
}

fn path(value: &DeValue<'_>) -> Result<String, Wrong> {
    let path = values::text(value)?;
    let mend = "write for example \"/healthz\"";
    if !path.starts_with('/') {
        return Err(Wrong::new(format!("{} does not start with /", shown(&path)), mend));
    }
    if let Some(bad) = path.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
        let message = format!("{} has {bad:?}, which no request can carry", shown(&path));
        return Err(Wrong::new(message, "write it with % and its number"));
    }
    if path.len() > 2000 {
        return Err(Wrong::new(format!("the path has {} characters", path.len()), mend));
    }
    Ok(path)
}

fn host(value: &DeValue<'_>) -> Result<String, Wrong> {
    let host = values::text(value)?;
    let of_a_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '[' | ']');
    if !host.is_empty() && host.len() <= 255 && host.chars().all(of_a_host) {
        return Ok(host);
    }
    Err(Wrong::new(
        format!("{} is not a host", shown(&host)),
        "write a name alone, for example \"www.example.org\"",
    ))
}

/// A gate that can't open before its deadline would fail every release.
fn check_deadline(section: &Section<'_, '_>, health: &HealthConfig) {
    let probes = health.interval.saturating_mul(health.successes.saturating_sub(1));
    let up_for = match health.check {
        Check::Port { up_for } => up_for,
        Check::Http { .. } | Check::Command(_) => Duration::ZERO,
    };
    let earliest = probes.max(up_for);
    if earliest < health.deadline {
        return;
    }
    let (earliest, deadline) =
        (humantime::format_duration(earliest), humantime::format_duration(health.deadline));
    section.report(
        "deadline",
        Wrong::new(
            format!("no release can be ready within {deadline}: its probes alone take {earliest}"),
            "give it longer, or ask less often or less",
        ),
    );
}
