//! `dorc check`

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{Context, say};
use crate::config::{self, Host, Problem, Severity};
use crate::control::api::{self, exit};
use crate::control::client::ClientError;
use crate::daemon::system;
use crate::model::app::App;

/// Options of `dorc check`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// App files, or names of apps [default: all, and this host]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) async fn run(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    let daemon = context.client.get::<api::Status>("/v1/apps").await;
    let whole = options.files.is_empty();
    let own = &context.places.config;
    let mut bad = if whole { check_host(context, &daemon) } else { 0 };
    if whole && own.exists() {
        bad += check_own(own);
    }
    // What is loaded has its addresses already: a newcomer is blamed for a conflict.
    let loaded: Vec<&str> =
        daemon.iter().flat_map(|status| &status.apps).map(|app| app.app.as_str()).collect();
    let mut all = context.places.app_files();
    all.sort_by_key(|file| !file.file_stem().is_some_and(|stem| loaded.iter().any(|name| stem == *name)));
    let files = if whole { all.clone() } else { named_files(context, options.files) };
    let held: Vec<SocketAddr> = daemon.iter().flat_map(|status| &status.apps).flat_map(listens).collect();
    let base = context.places.base.as_deref();
    let others = all.iter().filter(|file| !files.iter().any(|named| same_app(named, file)));
    let mut apps: Vec<App> =
        others.filter_map(|file| config::load(file, base).ok()).map(|loaded| loaded.app).collect();
    for file in files {
        if file == *own {
            bad += check_own(&file);
            continue;
        }
        let problems = match config::load(&file, base) {
            Ok(loaded) => {
                let mut problems = loaded.notes;
                problems.extend(config::conflicts(&loaded.app, &apps));
                let host = Host { held: &held, ..Host::default() };
                problems.extend(config::host_problems(&loaded.app, &host));
                apps.push(loaded.app);
                problems
            }
            Err(problems) => problems,
        };
        bad += report(&file, &problems);
    }
    Ok(ExitCode::from(if bad == 0 { exit::DONE } else { exit::FAILED }))
}

/// Checks the daemon's own file; the number of its errors.
fn check_own(file: &Path) -> usize {
    report(file, &config::load_daemon(file).err().unwrap_or_default())
}

/// Whether two files are of one app, which their names say.
fn same_app(a: &Path, b: &Path) -> bool {
    a.file_stem() == b.file_stem()
}

fn listens(app: &api::AppStatus) -> impl Iterator<Item = SocketAddr> {
    app.listen.iter().filter_map(|address| address.parse().ok())
}

/// Prints the problems of one file; the number of those that are errors.
fn report(file: &Path, problems: &[Problem]) -> usize {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    if errors == 0 {
        say::done(&format!("{} is right", file.display()), "");
    }
    for problem in problems {
        let text = problem.to_string();
        let file = file.display().to_string();
        let text = if text.starts_with(&file) { text } else { format!("{file}: {text}") };
        match problem.severity {
            Severity::Error => say::error(&text),
            Severity::Warning => say::warning(&text),
        }
    }
    errors
}

/// A name of an app is as good as its file's.
fn named_files(context: &Context, files: Vec<PathBuf>) -> Vec<PathBuf> {
    let file = |path: PathBuf| {
        let named = context.places.apps.join(&path).with_added_extension("toml");
        if path.exists() || !named.exists() { path } else { named }
    };
    files.into_iter().map(file).collect()
}

/// Says what this host can do for dorc; the number of things that stand in its way.
fn check_host(context: &Context, daemon: &Result<api::Status, ClientError>) -> usize {
    let mut bad = 0;
    let mut finding = |good: bool, what: &str, mend: &str| {
        if good {
            say::done(what, "");
        } else {
            bad += 1;
            say::error(&format!("{what}: {mend}"));
        }
    };
    if context.is_local() {
        say::done("dorc up", "needs nothing of this host");
    } else if system::is_booted() {
        finding(true, "systemd runs this host", "");
    } else {
        finding(
            false,
            "systemd does not run this host",
            "dorc's services need it; without it there is dorc up",
        );
    }
    match daemon {
        Ok(status) => finding(true, &format!("the daemon answers, version {}", status.version), ""),
        Err(ClientError::NotPermitted(_)) => {
            finding(
                false,
                "the daemon may not be asked",
                "run this as root, or as a member of the group dorc",
            );
        }
        Err(error) => {
            let start = if context.is_local() { "dorc up" } else { "sudo dorc install" };
            finding(false, &error.to_string(), &format!("start it: {start}"));
        }
    }
    if let Ok(status) = daemon {
        match &status.no_kernel_plane {
            None => say::done("the kernel plane works here", ""),
            Some(why) if context.is_local() => say::done("the tcp plane works here", why),
            Some(why) => say::warning(&format!("no kernel plane, the tcp plane takes its place: {why}")),
        }
        for app in &status.apps {
            let why = app.plane_reason.as_deref().unwrap_or_default();
            say::done(&format!("{} has the {} plane", app.app, app.plane), why);
        }
    }
    bad
}
