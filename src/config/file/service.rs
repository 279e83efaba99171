//! The section `[service]`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use crate::config::problem::Wrong;
use crate::config::section::Section;
use crate::config::values::{self, shown};
use crate::config::{commands, defaults, paths};
use crate::model::app::{Credential, Sandbox, ServiceConfig};
use crate::model::colour::{ByColour, Colour};
use crate::model::proxy_protocol::ProxyProtocol;

/// The longest value of an environment variable: the kernel passes no longer one to a program.
const MAX_VALUE: usize = 100_000;

/// The longest name of a credential.
const MAX_NAME: usize = 100;

/// Reads the section.
pub(super) fn read(section: &Section<'_, '_>) -> ServiceConfig {
    section.refuse_unknown();
    let base = section.document().base();
    let default = defaults::service();
    let both = |words: Vec<String>| ByColour::from_fn(|_| words.clone());
    let sandbox = [("strict", Sandbox::Strict), ("off", Sandbox::Off)];
    let proxy = [("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];
    let user = section.get("user", optional_user).flatten();
    if user.as_deref() == Some("root") {
        let message = "the program runs as root, and so does whoever gets in through it";
        section.warn("user", Wrong::new(message, "leave user out for a user of the app's own"));
    }
    ServiceConfig {
        start: section.get("start", commands::command).map_or(default.start, both),
        reload: section.get("reload", commands::optional_command).flatten().map(both),
        stop: None,
        ports: ports(&section.section("ports")),
        env: entries(&section.section("env"), variable),
        env_file: section.get("env_file", |value| paths::absolute(value, base)),
        credentials: entries(&section.section("credentials"), |name, value| credential(name, value, base)),
        user,
        working_dir: section.get("working_dir", |value| working_dir(value, base)).flatten(),
        memory_max: section.get("memory_max", values::memory_max),
        proxy_protocol: section.get("proxy_protocol", |value| values::one_of(value, &proxy)),
        sandbox: section.get("sandbox", |value| values::one_of(value, &sandbox)).unwrap_or(default.sandbox),
        notify: section.get("notify", values::flag).unwrap_or(default.notify),
    }
}

fn optional_user(value: &DeValue<'_>) -> Result<Option<String>, Wrong> {
    match values::optional_text(value)? {
        Some(_) => values::user(value).map(Some),
        None => Ok(None),
    }
}

fn ports(section: &Section<'_, '_>) -> Option<ByColour<u16>> {
    if !section.is_there() {
        return None;
    }
    section.refuse_unknown();
    let blue = section.require("blue", "8081", values::port);
    let green = section.require("green", "8082", values::port);
    Some(ByColour { blue: blue?, green: green? })
}

/// The entries of a table whose keys are names of the user's own.
fn entries<T>(
    section: &Section<'_, '_>,
    read: impl Fn(&str, &DeValue<'_>) -> Result<T, Wrong>,
) -> BTreeMap<String, T> {
    let mut all = BTreeMap::new();
    for (name, span, value) in section.entries() {
        match read(&name, value) {
            Ok(value) => {
                all.insert(name, value);
            }
            Err(wrong) => {
                let shown: String = name.chars().flat_map(char::escape_debug).take(60).collect();
                section.document().report(&section.key(&shown), Some(span), wrong);
            }
        }
    }
    all
}

fn variable(name: &str, value: &DeValue<'_>) -> Result<String, Wrong> {
    let right = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !right {
        let message = format!("{} is not the name of a variable", shown(name));
        return Err(Wrong::new(
            message,
            "a name has letters, digits and '_', and does not start with a digit",
        ));
    }
    if name == "PORT" {
        return Err(Wrong::new(
            "dorc sets PORT itself, for each colour",
            "set the ports with ports = { blue = 8081, green = 8082 }",
        ));
    }
    let text = values::text(value)?;
    if text.ends_with('\\') {
        let message = format!("{} ends in a backslash", shown(&text));
        return Err(Wrong::new(message, "systemd would take the next line with it, so take it out"));
    }
    if text.len() > MAX_VALUE {
        let message = format!("the value has {} bytes", text.len());
        return Err(Wrong::new(
            message,
            format!("a variable holds at most {MAX_VALUE}, so put it in a file"),
        ));
    }
    Ok(text)
}

/// A file, or one that was encrypted.
fn credential(name: &str, value: &DeValue<'_>, base: Option<&Path>) -> Result<Credential, Wrong> {
    let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.starts_with('.') || name.is_empty() || name.len() > MAX_NAME || !name.chars().all(right) {
        return Err(Wrong::new(
            format!("{} is not the name of a credential", shown(name)),
            format!(
                "a name has up to {MAX_NAME} letters, digits, '-', '_' and '.', and does not start with a dot"
            ),
        ));
    }
    let DeValue::Table(table) = value else {
        return Ok(Credential { path: paths::absolute(value, base)?, encrypted: false });
    };
    match (table.len(), table.get("encrypted")) {
        (1, Some(path)) => Ok(Credential { path: paths::absolute(path.get_ref(), base)?, encrypted: true }),
        _ => Err(Wrong::new(
            "it has other keys than encrypted",
            "write a path, or { encrypted = \"/etc/credstore.encrypted/name\" }",
        )),
    }
}

/// Where each colour runs: `{colour}` filled in, or else a folder of its own below.
fn working_dir(value: &DeValue<'_>, base: Option<&Path>) -> Result<Option<ByColour<PathBuf>>, Wrong> {
    if values::optional_text(value)?.is_none() {
        return Ok(None);
    }
    let path = paths::absolute(value, base)?;
    let Some(text) = path.to_str().filter(|text| text.contains("{colour}")) else {
        return Ok(Some(ByColour::from_fn(|colour| path.join(colour.name()))));
    };
    let of = |colour: Colour| PathBuf::from(text.replace("{colour}", colour.name()));
    Ok(Some(ByColour::from_fn(of)))
}
