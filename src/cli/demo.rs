//! `dorc demo`: a whole deployment under load in a temporary folder, by the very commands that a user types.

mod client;
mod folder;
mod stage;
mod story;
mod traffic;

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::{Context, daemon, fail, runtime, say};
use crate::control::api::demo::Demo;
use crate::control::api::{self, exit};
use crate::daemon::local::Local;
use crate::daemon::told_to_end;
use folder::Folder;
use stage::Stage;

/// Options of `dorc demo`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Print one JSON document at the end
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if std::env::var_os("DORC_DEBUG").is_some() {
        daemon::log();
    }
    let start = Instant::now();
    let runtime = runtime()?;
    // From before there is anything that a signal could leave behind.
    let told = runtime.block_on(async { told_to_stop() })?;
    let folder = Folder::make()?;
    // The commands name what is in it as they would be typed there.
    std::env::set_current_dir(folder.path())?;
    let mut stage = Stage::new(Context::new(Some(folder.path().to_owned()), Vec::new()));
    if options.json {
        say::keep();
    }
    let played = runtime.block_on(play(&folder, &mut stage, told));
    // What it still does on other threads ends with it.
    drop(runtime);
    // Only now is it true that nothing is left.
    let removed = folder.remove();
    let played = played.and(removed).and_then(|()| stage.is_without_failure());
    let problem = played.err().map(|error| format!("{error:#}"));
    let ok = problem.is_none();
    let demo = Demo {
        ok,
        problem,
        seconds: start.elapsed().as_millis() as f64 / 1000.0,
        requests: stage.requests,
        steps: stage.steps,
    };
    if options.json {
        say::print_again();
        say::line(&api::to_pretty_json(&demo));
    } else {
        conclude(&demo);
    }
    Ok(ExitCode::from(if ok { exit::DONE } else { exit::FAILED }))
}

/// Ready when a signal says so, or the terminal was closed.
fn told_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let told = told_to_end()?;
    let mut hung_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            () = told => {}
            _ = hung_up.recv() => {}
        }
    })
}

/// The daemon and the story that is played with it, until the end of the story or a signal.
async fn play(folder: &Folder, stage: &mut Stage, told: impl Future<Output = ()>) -> anyhow::Result<()> {
    let up = Local::start(folder.path()).await?;
    let (finish, finished) = oneshot::channel::<()>();
    let daemon = up.run(async {
        // Dropping the sender says it.
        let _ = finished.await;
    });
    let story = async {
        let played = tokio::select! {
            played = story::play(stage) => played,
            () = told => Err(fail(exit::FAILED, "it was stopped before its end")),
        };
        // Its connections are among those that the daemon waits for.
        stage.end_traffic(played.is_ok()).await;
        drop(finish);
        played
    };
    let (played, served) = tokio::join!(story, daemon);
    played.and(served)
}

fn conclude(demo: &Demo) {
    let requests = &demo.requests;
    say::line("");
    for (version, answers) in &requests.answers {
        say::hint(&format!("version {version}"), &format!("{answers} answers"));
    }
    if requests.reopened > 0 {
        let resent = match requests.resent {
            0 => String::new(),
            resent => format!("; {resent} requests that met this were sent once more"),
        };
        let what = format!("{} kept connections, closed between two requests{resent}", requests.reopened);
        say::hint("reopened", &what);
    }
    if !requests.answers.is_empty() {
        say::hint(
            "slowest",
            &format!("{} ms, but for answers that take 500 ms on purpose", requests.slowest_ms),
        );
    }
    for (reason, number) in &requests.reasons {
        say::hint("failed", &format!("{number} × {reason}"));
    }
    match &demo.problem {
        None => say::line(&format!("Done in {:.1} s; no process and no file is left.", demo.seconds)),
        Some(problem) => say::error(&format!("dorc demo: {problem}")),
    }
    say::line(&format!("{} requests sent, {} failed", requests.sent, requests.failed));
}
