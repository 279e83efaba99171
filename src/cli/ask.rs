//! The questions of `dorc register` on a terminal: each with a good default, each answer checked at once, and by the
//! same checks that an app file has to pass.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use inquire::ui::{Color, RenderConfig, Styled};
use inquire::validator::Validation;
use inquire::{Confirm, CustomUserError, InquireError, Text};

use super::say::{self, Style};
use super::{Context, fail};
use crate::config::{self, Host, Problem, Severity};
use crate::control::api::exit;
use crate::daemon::Places;
use crate::model::app::{App, AppName, Check, ReleaseBin};
use crate::model::colour::{ByColour, Colour};

/// The ports that are offered where the app is not for the whole host.
const PORTS: std::ops::Range<u16> = 8080..8100;

/// Asks for an app's name.
pub(super) fn name(context: &Context) -> anyhow::Result<AppName> {
    let apps = context.places.apps.clone();
    let free = move |text: &str| {
        AppName::new(text).and_then(|name| {
            let is_taken = apps.join(format!("{name}.toml")).exists();
            if is_taken { Err(format!("{name} is registered already")) } else { Ok(name) }
        })
    };
    let folder = context.places.base.as_deref().and_then(Path::file_name);
    let default = folder.map(|name| name.to_string_lossy().to_lowercase()).filter(|name| free(name).is_ok());
    let mut question =
        Text::new("Name of the app").with_help_message("its services will be green-NAME and blue-NAME");
    question.default = default.as_deref();
    let answer = question.with_validator(move |text: &str| validation(free(text).map(drop)));
    AppName::new(&answered(answer.with_render_config(looks()).prompt())?).map_err(anyhow::Error::msg)
}

/// Asks for everything that an app needs and what most want, and shows what that makes of it.
pub(super) fn app(context: &Context, name: AppName) -> anyhow::Result<App> {
    let mut draft = Draft::new(context, name);
    let dir = draft.release_dir(context)?;
    draft.release_bin(&dir)?;
    draft.listen(context)?;
    draft.start()?;
    draft.health()?;
    show(&draft.app);
    if !dir.join(draft.app.release_bin.in_release()).exists() {
        say::line(
            "There is no release yet; the first one becomes active as soon as it is uploaded and ready.\n",
        );
    }
    Ok(draft.app)
}

/// Whether the app that was asked for is to be registered.
pub(super) fn agreed(name: &AppName) -> anyhow::Result<bool> {
    let question = format!("Register {name}?");
    answered(Confirm::new(&question).with_default(true).with_render_config(looks()).prompt())
}

/// An app whose questions are being answered, and what the answers are checked against.
#[derive(Clone)]
struct Draft {
    app: App,
    base: Option<PathBuf>,
    others: Vec<App>,
}

impl Draft {
    fn new(context: &Context, name: AppName) -> Self {
        let places = &context.places;
        let (dir, bin) = (default_dir(context, &name), ReleaseBin::Inside(name.as_str().into()));
        let others = other_apps(places, &name);
        let app = config::new_app(name, vec![(Ipv4Addr::LOCALHOST, PORTS.start).into()], dir.into(), bin);
        Self { app, base: places.base.clone(), others }
    }

    /// Asks for the release directory; its whole path.
    fn release_dir(&mut self, context: &Context) -> anyhow::Result<PathBuf> {
        let default = default_dir(context, &self.app.name);
        let question = Text::new("Release directory")
            .with_default(&default)
            .with_help_message("where you or your CI upload to; it is made if it is not there");
        self.ask("release_dir", question, |app, text| {
            app.release_dir = text.into();
            Ok(())
        })?;
        Ok(self.base.as_deref().unwrap_or(Path::new("/")).join(&self.app.release_dir))
    }

    fn release_bin(&mut self, dir: &Path) -> anyhow::Result<()> {
        let default = only_program(dir).unwrap_or_else(|| self.app.name.to_string());
        let help = format!("the program to run, in {}", self.app.release_dir.display());
        let question = Text::new("Release binary").with_default(&default).with_help_message(&help);
        self.ask("release_bin", question, |app, text| {
            app.release_bin = bin_of(&app.release_dir, text.into());
            Ok(())
        })
    }

    fn listen(&mut self, context: &Context) -> anyhow::Result<()> {
        let default = self.free_port(context.is_local()).to_string();
        let question = Text::new("Listen address")
            .with_default(&default)
            .with_help_message("a port of 127.0.0.1, or an address as 0.0.0.0:80");
        self.ask("listen", question, |app, text| {
            app.listen = vec![address(text)?];
            Ok(())
        })
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let question = Text::new("Start command").with_default("{bin} --port {port}").with_help_message(
            "{port} is the service's own port, $PORT too; {bin} is the release binary, {colour} green or blue",
        );
        self.ask("service.start", question, |app, text| {
            let start = words(text)?;
            app.service.start = ByColour::from_fn(|_| start.clone());
            Ok(())
        })
    }

    fn health(&mut self) -> anyhow::Result<()> {
        let question = Text::new("Health path").with_help_message(
            "as /healthz: a GET that says 2xx when the service is well; empty: it is enough that the port answers",
        );
        self.ask("health", question, |app, text| {
            if !text.is_empty() {
                app.health.check = Check::Http { path: text.into(), host: config::HOST.into() };
            }
            Ok(())
        })
    }

    /// Asks for the value of one key; `set` puts an answer into the app.
    fn ask(
        &mut self,
        key: &'static str,
        question: Text<'_, '_>,
        set: fn(&mut App, &str) -> Result<(), String>,
    ) -> anyhow::Result<()> {
        let draft = self.clone();
        let checked = question.with_validator(move |text: &str| {
            let mut draft = draft.clone();
            validation(set(&mut draft.app, text.trim()).and_then(|()| draft.check(key)))
        });
        let answer = answered(checked.with_render_config(looks()).prompt())?;
        set(&mut self.app, answer.trim()).map_err(anyhow::Error::msg)
    }

    /// The first problem with the value of that key, or of a key in that section.
    fn check(&self, key: &str) -> Result<(), String> {
        let app = match config::read(&self.app.name, &config::render_new(&self.app), self.base.as_deref()) {
            Ok(loaded) => loaded.app,
            Err(problems) => return first(&problems, key),
        };
        let held: Vec<SocketAddr> = self.others.iter().flat_map(|other| other.listen.clone()).collect();
        let mut problems = config::host_problems(&app, &Host { held: &held, ..Host::default() });
        // It is made.
        problems.retain(|problem| problem.key != "release_dir" || app.release_dir.exists());
        problems.extend(config::conflicts(&app, &self.others));
        first(&problems, key)
    }

    /// A port that the app can have, the usual one if possible.
    fn free_port(&self, is_local: bool) -> u16 {
        let usual = (!is_local).then_some(80);
        let mut draft = self.clone();
        let mut ports = usual.into_iter().chain(PORTS);
        let free = ports.find(|port| {
            draft.app.listen = vec![(Ipv4Addr::LOCALHOST, *port).into()];
            draft.check("listen").is_ok()
        });
        free.unwrap_or(PORTS.start)
    }
}

/// Where uploads arrive unless something else is wanted.
fn default_dir(context: &Context, name: &AppName) -> String {
    if context.is_local() { format!("upload/{name}") } else { format!("/srv/upload/{name}") }
}

fn first(problems: &[Problem], key: &str) -> Result<(), String> {
    let is_of_it = |problem: &&Problem| {
        let rest = problem.key.strip_prefix(key);
        problem.severity == Severity::Error
            && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    problems.iter().find(is_of_it).map_or(Ok(()), |Problem { message, mend, .. }| {
        Err(if mend.is_empty() { message.clone() } else { format!("{message}; {mend}") })
    })
}

/// The apps of the other app files that are right.
pub(super) fn other_apps(places: &Places, name: &AppName) -> Vec<App> {
    let files = fs::read_dir(&places.apps).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let apps = files.filter_map(|path| config::load(&path, places.base.as_deref()).ok());
    apps.map(|loaded| loaded.app).filter(|app| app.name != *name).collect()
}

/// The name of the only program in a folder.
fn only_program(dir: &Path) -> Option<String> {
    let mut programs = fs::read_dir(dir).ok()?.flatten().filter(|entry| {
        entry.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    });
    let only = programs.next()?.file_name().into_string().ok()?;
    programs.next().is_none().then_some(only)
}

/// A release binary as it is written: inside the release directory, or elsewhere.
pub(super) fn bin_of(dir: &Path, bin: PathBuf) -> ReleaseBin {
    match bin.strip_prefix(dir) {
        Ok(inside) => ReleaseBin::Inside(inside.to_owned()),
        Err(_) if bin.is_absolute() => ReleaseBin::Outside(bin),
        Err(_) => ReleaseBin::Inside(bin),
    }
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

/// Shows the two services in their colours.
fn show(app: &App) {
    say::line("");
    for colour in [Colour::Green, Colour::Blue] {
        let (service, start) = (app.name.service(colour), shell_words::join(&app.service.start[colour]));
        let text = format!("{service:<20} {start}   on a free port of its own");
        say::line(&format!("  {}", Style::of(colour).paint(&text)));
    }
    say::line("");
}

/// The marks that all output of dorc has.
fn looks() -> RenderConfig<'static> {
    if std::env::var_os("NO_COLOR").is_some() {
        return RenderConfig::empty();
    }
    let mut looks = RenderConfig::default()
        .with_answered_prompt_prefix(Styled::new("✓"))
        .with_canceled_prompt_indicator(Styled::new(""));
    looks.error_message = looks.error_message.with_prefix(Styled::new("✗").with_fg(Color::LightRed));
    looks
}

/// Whoever stops in the middle has changed nothing.
fn answered<T>(answer: Result<T, InquireError>) -> anyhow::Result<T> {
    answer.map_err(|error| match error {
        InquireError::OperationCanceled | InquireError::OperationInterrupted => {
            fail(exit::FAILED, "stopped, nothing was changed")
        }
        other => other.into(),
    })
}

#[expect(clippy::unnecessary_wraps, reason = "the shape that a validator has")]
fn validation(result: Result<(), String>) -> Result<Validation, CustomUserError> {
    Ok(match result {
        Ok(()) => Validation::Valid,
        Err(why) => Validation::Invalid(why.into()),
    })
}
