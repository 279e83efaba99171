//! `dorc register`

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Change, Context, ask, fail, install, say, send};
use crate::config::{self, Host, Severity};
use crate::control::api::{self, exit};
use crate::model::app::{App, AppName, Check, Promote};
use crate::model::colour::ByColour;

/// Options of `dorc register`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The app's name
    app: Option<String>,
    /// Take this app file as it is
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["listen", "release_dir", "release_bin"])]
    file: Option<PathBuf>,
    /// Where clients reach it: a port of 127.0.0.1, or an address; more than one with commas
    #[arg(long, value_delimiter = ',', value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Where uploads arrive
    #[arg(long, value_name = "DIR")]
    release_dir: Option<PathBuf>,
    /// The program to run: a path in the release directory, or a whole one
    #[arg(long, value_name = "PATH")]
    release_bin: Option<PathBuf>,
    /// The start command [default: {bin} --port {port}]
    #[arg(long, value_name = "COMMAND")]
    start: Option<String>,
    /// An environment variable
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The user to run as [default: a dynamic user of the app's own]
    #[arg(long)]
    user: Option<String>,
    /// A path that says 2xx when the service is well [default: its port answers]
    #[arg(long, value_name = "PATH")]
    health_path: Option<String>,
    /// How long a release that got the traffic is watched, to go back by itself [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    bake: Option<std::time::Duration>,
    /// Let a release that is ready become active by itself
    #[arg(long)]
    promote_auto: bool,
    #[command(flatten)]
    change: Change,
}

/// What is said where nobody can be asked.
const NO_TERMINAL: &str = "dorc register asks its way through on a terminal; here it needs a name and options: dorc register --help";

pub(super) async fn run(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    if !context.is_local() && !rustix::process::geteuid().is_root() {
        return Err(fail(exit::NOT_PERMITTED, "dorc register writes to /etc/dorc: sudo dorc register"));
    }
    if wants_questions(&options) {
        if !io::stdin().is_terminal() {
            return Err(fail(exit::USAGE, NO_TERMINAL));
        }
        // Nobody is asked anything in vain.
        install::check_daemon(context).await?;
    }
    let name = name(context, &options)?;
    let file = context.places.app_file(&name);
    let is_there = file.exists();
    if is_there && options.file.as_deref().is_none_or(|given| !same_file(given, &file)) {
        return Err(registered_already(&name, &file));
    }
    let text = match &options.file {
        Some(given) => fs::read_to_string(given).with_context(|| given.display().to_string())?,
        None if wants_questions(&options) => {
            let app = ask::app(context, name.clone())?;
            if !ask::agreed(&name)? {
                return Err(fail(exit::FAILED, "stopped, nothing was changed"));
            }
            config::render_new(&app)
        }
        None => config::render_new(&from_options(&name, &options)?),
    };
    let app = check(context, &name, &text).await?;
    if !is_there {
        write(context, &name, &file, &text)?;
    }
    let loaded = load(context, &name, &options.change).await;
    match loaded {
        Ok(answer) if answer.exit == exit::DONE => first_release(context, &app, &options.change).await,
        failed => {
            if !is_there {
                // What was not taken is not to be taken at the next start either.
                fs::remove_file(&file)?;
                say::warning(&format!("{} was removed again", file.display()));
            }
            let answer = failed?;
            say::answer(&answer, options.change.json);
            Ok(ExitCode::from(answer.exit))
        }
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

fn wants_questions(options: &Options) -> bool {
    options.file.is_none()
        && options.listen.is_empty()
        && options.release_dir.is_none()
        && options.release_bin.is_none()
}

fn name(context: &Context, options: &Options) -> anyhow::Result<AppName> {
    let from_file = || Some(options.file.as_ref()?.file_stem()?.to_string_lossy().into_owned());
    match options.app.clone().or_else(from_file) {
        Some(name) => AppName::new(&name).map_err(|why| fail(exit::USAGE, why)),
        None if io::stdin().is_terminal() => ask::name(context),
        None => Err(fail(exit::USAGE, NO_TERMINAL)),
    }
}

fn from_options(name: &AppName, options: &Options) -> anyhow::Result<App> {
    let usage = |why: String| fail(exit::USAGE, why);
    let missing = |what: &str| {
        usage(format!("{what} is missing; all three are needed: --listen, --release-dir, --release-bin"))
    };
    let listen: Vec<SocketAddr> = options
        .listen
        .iter()
        .map(|text| ask::address(text).map_err(|why| usage(format!("--listen: {why}"))))
        .collect::<Result<_, _>>()?;
    if listen.is_empty() {
        return Err(missing("--listen"));
    }
    let dir = options.release_dir.clone().ok_or_else(|| missing("--release-dir"))?;
    let dir = std::path::absolute(&dir)?;
    let bin = options.release_bin.clone().ok_or_else(|| missing("--release-bin"))?;
    let bin = ask::bin_of(&dir, bin);
    let mut app = config::new_app(name.clone(), listen, dir, bin);
    if let Some(start) = &options.start {
        let words = ask::words(start).map_err(|why| usage(format!("--start: {why}")))?;
        app.service.start = ByColour::from_fn(|_| words.clone());
    }
    app.service.env = env(&options.env).map_err(usage)?;
    app.service.user.clone_from(&options.user);
    if let Some(path) = &options.health_path {
        app.health.check = Check::Http { path: path.clone(), host: config::HOST.into() };
    }
    if let Some(bake) = options.bake {
        app.switch.bake = bake;
    }
    if options.promote_auto {
        app.switch.promote = Promote::Auto;
    }
    Ok(app)
}

fn env(given: &[String]) -> Result<BTreeMap<String, String>, String> {
    given
        .iter()
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or_else(|| format!("--env: {pair:?} has no ="))?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// Checks the text as an app file, and the host for what it names; makes the release directory.
async fn check(context: &Context, name: &AppName, text: &str) -> anyhow::Result<App> {
    let base = context.places.base.as_deref();
    let loaded = config::read(name, text, base).map_err(|problems| refused(&problems))?;
    let app = loaded.app;
    fs::create_dir_all(&app.release_dir)
        .with_context(|| format!("the release directory {} could not be made", app.release_dir.display()))?;
    let held: Vec<SocketAddr> = match context.client.get::<api::Status>("/v1/apps").await {
        Ok(status) => status
            .apps
            .iter()
            .flat_map(|app| &app.listen)
            .filter_map(|address| address.parse().ok())
            .collect(),
        Err(_) => Vec::new(),
    };
    let mut problems = config::host_problems(&app, &Host { held: &held, ..Host::default() });
    problems.extend(config::conflicts(&app, &ask::other_apps(&context.places, name)));
    let (errors, warnings): (Vec<_>, Vec<_>) =
        problems.into_iter().partition(|problem| problem.severity == Severity::Error);
    for warning in loaded.notes.iter().chain(&warnings) {
        say::warning(&warning.to_string());
    }
    if errors.is_empty() { Ok(app) } else { Err(refused(&errors)) }
}

fn refused(problems: &[config::Problem]) -> anyhow::Error {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    fail(exit::FAILED, lines.join("\n"))
}

/// Writes the app file, which nobody else may have written meanwhile.
fn write(context: &Context, name: &AppName, file: &Path, text: &str) -> anyhow::Result<()> {
    fs::create_dir_all(&context.places.apps)
        .with_context(|| format!("{} could not be made", context.places.apps.display()))?;
    let new = file.with_extension(format!("toml.{}.new", std::process::id()));
    let written =
        fs::write(&new, text).and_then(|()| Ok(renameat_with(CWD, &new, CWD, file, RenameFlags::NOREPLACE)?));
    if let Err(error) = written {
        // It may not even have been written.
        let _ = fs::remove_file(&new);
        if error.kind() == io::ErrorKind::AlreadyExists {
            return Err(registered_already(name, file));
        }
        return Err(error).with_context(|| format!("{} could not be written", file.display()));
    }
    say::done(&format!("{} written", file.display()), "");
    Ok(())
}

fn registered_already(name: &AppName, file: &Path) -> anyhow::Error {
    let why = format!("{name} is registered already: change {}, then dorc update {name}", file.display());
    fail(exit::FAILED, why)
}

async fn load(context: &Context, name: &AppName, change: &Change) -> anyhow::Result<api::Answer> {
    install::ensure_daemon(context).await?;
    let plain = Change { json: change.json, no_wait: true, timeout: None };
    send::send(context, name.as_str(), "load", String::new(), &plain).await
}

/// Waits for the first release, if there is one to take, and says how to go on.
async fn first_release(context: &Context, app: &App, change: &Change) -> anyhow::Result<ExitCode> {
    let name = &app.name;
    let status = status(context, name).await?;
    if status.active.is_none() && !change.no_wait {
        let body = api::to_json(&api::Switch::default());
        let answer = send::send(context, name.as_str(), "switch", body, change).await?;
        if answer.failure.is_some() {
            say::answer(&answer, change.json);
            return Ok(ExitCode::from(answer.exit));
        }
    }
    let status = self::status(context, name).await?;
    if change.json {
        say::line(&api::to_json(&status));
        return Ok(ExitCode::SUCCESS);
    }
    let dir = app.release_dir.display();
    let listen = status.listen.join(" and ");
    if status.active.is_some() {
        say::line(&format!("{name} is live on {listen} by the {} plane.", status.plane));
        say::hint("new version", &format!("upload it to {dir}, then: dorc switch {name}"));
        say::hint("way back", &format!("dorc rollback {name}"));
    } else {
        say::line(&format!("{name} is registered for {listen} and waits for its first release."));
        say::hint("first version", &format!("upload it to {dir}; it becomes active as soon as it is ready"));
        say::hint("see", &format!("dorc status {name}"));
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(context: &Context, name: &AppName) -> anyhow::Result<api::AppStatus> {
    let status: api::Status = context.client.get(&format!("/v1/apps/{name}")).await?;
    status.apps.into_iter().next().with_context(|| format!("{name} is not loaded"))
}
