//! The questions of `dorc register` on a terminal: each with a good default, each answer checked at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use inquire::validator::Validation;
use inquire::{Confirm, CustomUserError, Text};

use super::Context;
use super::say::{self, Style};
use crate::config;
use crate::model::app::{App, AppName, Check, ReleaseBin};
use crate::model::colour::Colour;

/// Asks for an app's name.
pub(super) fn name(context: &Context) -> anyhow::Result<AppName> {
    let apps = context.places.apps.clone();
    let answer = Text::new("Name of the app")
        .with_help_message("its services will be green-NAME and blue-NAME")
        .with_validator(move |text: &str| {
            check(AppName::new(text).and_then(|name| {
                if apps.join(format!("{name}.toml")).exists() {
                    return Err(format!("{name} is registered already"));
                }
                Ok(())
            }))
        })
        .prompt()?;
    AppName::new(&answer).map_err(anyhow::Error::msg)
}

/// Asks for everything that an app needs and what most want, and shows what that makes of it.
pub(super) fn app(name: AppName) -> anyhow::Result<App> {
    let release_dir = release_dir(&name)?;
    let release_bin = release_bin(&name, &release_dir)?;
    let listen = listen()?;
    let mut app = config::new_app(name, vec![listen], release_dir, release_bin);
    let start = Text::new("Start command")
        .with_default("{bin} --port {port}")
        .with_help_message(
            "{port} is the service's own port, which is in $PORT too; {colour} is green or blue",
        )
        .with_validator(|text: &str| check(words(text).map(|_| ())))
        .prompt()?;
    let start = words(&start).map_err(anyhow::Error::msg)?;
    app.service.start = crate::model::colour::ByColour::from_fn(|_| start.clone());
    let health = Text::new("Health path")
        .with_help_message("an HTTP GET that says 2xx when the service is well; empty: its port answers")
        .with_validator(|text: &str| {
            let right = text.is_empty() || text.starts_with('/');
            check(if right { Ok(()) } else { Err("a path starts with /, as /healthz".into()) })
        })
        .prompt()?;
    if !health.is_empty() {
        app.health.check = Check::Http { path: health, host: config::HOST.into() };
    }
    show(&app);
    Ok(app)
}

fn release_dir(name: &AppName) -> anyhow::Result<PathBuf> {
    let answer = Text::new("Release directory")
        .with_default(&format!("/srv/upload/{name}"))
        .with_help_message("where you or your CI upload to; made if it is not there")
        .with_validator(|text: &str| {
            check(if text.starts_with('/') { Ok(()) } else { Err("a whole path, from / on".into()) })
        })
        .prompt()?;
    Ok(answer.into())
}

fn release_bin(name: &AppName, dir: &Path) -> anyhow::Result<ReleaseBin> {
    let answer = Text::new("Release binary")
        .with_default(name.as_str())
        .with_help_message(&format!("the program to run, in {}", dir.display()))
        .with_validator(|text: &str| {
            let right =
                !text.is_empty() && !text.starts_with('/') && !text.split('/').any(|part| part == "..");
            check(if right { Ok(()) } else { Err("a file in the release directory, without ..".into()) })
        })
        .prompt()?;
    Ok(ReleaseBin::Inside(answer.into()))
}

fn listen() -> anyhow::Result<SocketAddr> {
    let answer = Text::new("Listen address")
        .with_default("80")
        .with_help_message("a port of 127.0.0.1, or an address as 0.0.0.0:80")
        .with_validator(|text: &str| {
            check(address(text).and_then(|address| match std::net::TcpListener::bind(address) {
                Ok(_) => Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
                Err(error) => Err(format!("{address}: {error}")),
            }))
        })
        .prompt()?;
    address(&answer).map_err(anyhow::Error::msg)
}

/// An address, or the port of one on the loopback interface.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let address = match text.parse::<u16>() {
        Ok(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        Err(_) => {
            text.parse().map_err(|_| format!("{text:?} is neither a port nor an address like 0.0.0.0:80"))?
        }
    };
    if address.port() == 0 { Err("ports go from 1 to 65535".into()) } else { Ok(address) }
}

/// The words of a command.
pub(super) fn words(text: &str) -> Result<Vec<String>, String> {
    match shell_words::split(text) {
        Ok(words) if words.is_empty() => Err("a command is needed".into()),
        Ok(words) => Ok(words),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether the app that was asked for is to be registered.
pub(super) fn agreed(name: &AppName) -> anyhow::Result<bool> {
    Ok(Confirm::new(&format!("Register {name}?")).with_default(true).prompt()?)
}

/// Shows the two services in their colours.
fn show(app: &App) {
    say::line("");
    for colour in [Colour::Green, Colour::Blue] {
        let port = app
            .service
            .ports
            .as_ref()
            .map_or_else(|| "a free port".to_owned(), |ports| ports[colour].to_string());
        let text =
            format!("{:<24} {} on {port}", app.name.service(colour), app.service.start[colour].join(" "));
        say::line(&Style::of(colour).paint(&text));
    }
    say::line("");
}

#[expect(clippy::unnecessary_wraps, reason = "the shape that a validator has")]
fn check(result: Result<(), String>) -> Result<Validation, CustomUserError> {
    Ok(match result {
        Ok(()) => Validation::Valid,
        Err(why) => Validation::Invalid(why.into()),
    })
}
