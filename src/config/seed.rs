//! The first dorc's app file as it is written.
//!
//! Its services ran as root, without a sandbox, and with their port written into each command. They go on to.

mod command;

use std::path::PathBuf;

use toml::de::{DeTable, DeValue};

use super::checks;
use super::defaults;
use super::document::Document;
use super::keys::SEED;
use super::paths;
use super::problem::Wrong;
use super::section::Section;
use super::values::{self, shown};
use crate::model::app::{App, AppName, ReleaseBin, Sandbox, ServiceConfig};
use crate::model::colour::{ByColour, Colour};
use command::Context;

/// Keys that only the first dorc's format has.
const MARKS: [&str; 4] = ["app_name", "listen_port", "active_service", "inactive_service"];

/// One of the two services as it is written.
#[derive(Default)]
struct Written {
    colour: Option<Colour>,
    working_dir: Option<PathBuf>,
    port: Option<u16>,
    start: Option<Vec<String>>,
    reload: Option<Vec<String>>,
    stop: Option<Vec<String>>,
}

/// Whether the file is in the first dorc's format.
pub(super) fn is_seed(table: &DeTable<'_>) -> bool {
    let has = |wanted: &str| table.keys().any(|key| key.get_ref() == wanted);
    !has("listen") && MARKS.into_iter().any(has)
}

/// Reads the file: the app, and the colour that was active. Both are to be used only if nothing was
/// reported to `document`.
pub(super) fn read(name: &AppName, document: &Document<'_>, table: &DeTable<'_>) -> (App, Option<Colour>) {
    let top = Section::top(document, &SEED, table);
    top.refuse_unknown();
    top.require("app_name", &shown(name.as_str()), |value| same_name(name, value));
    let port = top.require("listen_port", "80", values::port);
    let release_dir =
        top.require("release_dir", "\"/srv/upload/web\"", |value| paths::release_dir(value, document.base()));
    let release_bin = top
        .require("release_bin", "\"/srv/upload/web/web\"", |value| {
            paths::release_bin(value, release_dir.as_deref())
        })
        .unwrap_or(ReleaseBin::Inside(PathBuf::new()));
    let release_dir = release_dir.unwrap_or_default();
    let upload = match &release_bin {
        ReleaseBin::Inside(path) => release_dir.join(path),
        ReleaseBin::Outside(path) => path.clone(),
    };
    let active = service(&top, "active_service", name, &upload);
    let inactive = service(&top, "inactive_service", name, &upload);
    let was_active = active.colour;
    let listen = port.map(checks::service_address).into_iter().collect();
    let mut app = defaults::new_app(name.clone(), listen, release_dir, release_bin);
    app.service = both(&top, active, inactive);
    checks::ports(&top, "inactive_service", &app);
    checks::working_dir(&top, "inactive_service", &app);
    document.warn(
        "",
        None,
        Wrong::new(
            "this is the first dorc's format: its services go on running as root, without a sandbox",
            "docs/moving-from-the-first-dorc.md says how to move on",
        ),
    );
    (app, was_active)
}

fn same_name(name: &AppName, value: &DeValue<'_>) -> Result<(), Wrong> {
    let written = values::text(value)?;
    if written == name.as_str() {
        return Ok(());
    }
    let message = format!("the app is called {}, and its file {name}.toml", shown(&written));
    Err(Wrong::new(message, "make them the same"))
}

fn service(top: &Section<'_, '_>, key: &str, name: &AppName, upload: &std::path::Path) -> Written {
    let section = top.section(key);
    if !section.is_there() {
        if top.span(key).is_none() {
            top.report(
                key,
                Wrong::new("this section is missing", "an app has two services, so add the other one"),
            );
        }
        return Written::default();
    }
    section.refuse_unknown();
    let example = shown(&name.service(Colour::Blue));
    let colour = section.require("qualified_name", &example, |value| colour_of(name, value));
    let port = section.require("port", "8081", values::port);
    let working_dir = section.require("working_dir", "\"/srv/www/blue-web\"", |value| {
        paths::absolute(value, section.document().base())
    });
    let context = Context { service: colour.map(|colour| name.service(colour)), port, upload };
    Written {
        colour,
        working_dir,
        port,
        start: section.require("on_start", "\"blue-web -p 8081\"", |value| context.start(value)),
        reload: section.get("on_reload", |value| context.reload(value)).flatten(),
        stop: section.get("on_stop", |value| context.stop(value)).flatten(),
    }
}

fn colour_of(name: &AppName, value: &DeValue<'_>) -> Result<Colour, Wrong> {
    let written = values::text(value)?;
    Colour::BOTH.into_iter().find(|colour| name.service(*colour) == written).ok_or_else(|| {
        let [blue, green] = Colour::BOTH.map(|colour| shown(&name.service(colour)));
        Wrong::new(
            format!("{} is not a service of {name}", shown(&written)),
            format!("write {blue} or {green}"),
        )
    })
}

/// How both are run; where something is missing or wrong, that has been reported.
fn both(top: &Section<'_, '_>, active: Written, inactive: Written) -> ServiceConfig {
    let same = active.colour.is_some() && active.colour == inactive.colour;
    // What follows from a wrong name would only hide it.
    let different = !same && active.colour.is_some() && inactive.colour.is_some();
    if same {
        top.report(
            "inactive_service",
            Wrong::new(
                "both services have the same colour",
                "one is the blue one, and the other the green one",
            ),
        );
    }
    let services = match active.colour {
        Some(Colour::Blue) => ByColour { blue: active, green: inactive },
        _ => ByColour { blue: inactive, green: active },
    };
    let ByColour { blue, green } = services;
    ServiceConfig {
        start: pair(blue.start, green.start).unwrap_or_else(defaults::start),
        reload: like(top, "on_reload", different, blue.reload, green.reload),
        stop: like(top, "on_stop", different, blue.stop, green.stop),
        ports: pair(blue.port, green.port),
        working_dir: pair(blue.working_dir, green.working_dir),
        user: Some("root".to_owned()),
        sandbox: Sandbox::Off,
        ..defaults::service()
    }
}

fn pair<T>(blue: Option<T>, green: Option<T>) -> Option<ByColour<T>> {
    blue.zip(green).map(|(blue, green)| ByColour { blue, green })
}

/// A command that both services have, or neither of them.
fn like(
    top: &Section<'_, '_>,
    key: &str,
    told: bool,
    blue: Option<Vec<String>>,
    green: Option<Vec<String>>,
) -> Option<ByColour<Vec<String>>> {
    if told && blue.is_some() != green.is_some() {
        let message = format!("only one of the two services has a command of its own for {key}");
        top.report("inactive_service", Wrong::new(message, "give it to both, or to none"));
    }
    pair(blue, green)
}
