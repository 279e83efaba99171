//! How a command that changes something goes to the daemon, and its answer to the user.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{Change, Context, fail, install, say};
use crate::control::api::{self, exit};
use crate::control::client::ClientError;

/// Options of a command that takes nothing but an app.
#[derive(Debug, Args)]
pub(super) struct Plain {
    /// The app
    app: String,
    #[command(flatten)]
    change: Change,
}

/// Sends a command that takes nothing but an app, and says how it ended.
pub(super) async fn plain(context: &Context, verb: &str, options: Plain) -> anyhow::Result<ExitCode> {
    let Plain { app, change } = options;
    let answer = send(context, &app, verb, String::new(), &change).await?;
    Ok(conclude(&answer, change.json))
}

/// Sends a command and tells its steps; the answer's exit code is ours. If there is no daemon yet, it is installed first.
pub(super) async fn send(
    context: &Context,
    app: &str,
    verb: &str,
    body: String,
    change: &Change,
) -> anyhow::Result<api::Answer> {
    match post(context, app, verb, body.clone(), change).await? {
        Err(ClientError::NoDaemon(_)) => {
            install::ensure_daemon(context).await?;
            Ok(post(context, app, verb, body, change).await??)
        }
        answered => Ok(answered?),
    }
}

async fn post(
    context: &Context,
    app: &str,
    verb: &str,
    body: String,
    change: &Change,
) -> anyhow::Result<Result<api::Answer, ClientError>> {
    let path = format!("/v1/apps/{app}/{verb}");
    let mut steps = say::Steps::new(change.json, change.no_wait);
    let posted = context.client.post(&path, body, |event| steps.event(&event));
    let answered = within(app, change, posted).await;
    steps.clear();
    answered
}

/// Waits no longer than the user wants to.
pub(super) async fn within<T>(
    app: &str,
    change: &Change,
    what: impl Future<Output = T>,
) -> anyhow::Result<T> {
    match change.timeout {
        Some(limit) => tokio::time::timeout(limit, what).await.map_err(|_| timed_out(app, limit)),
        None => Ok(what.await),
    }
}

fn timed_out(app: &str, limit: Duration) -> anyhow::Error {
    let limit = humantime::format_duration(limit);
    fail(exit::BUSY, format!("{app}: not done after {limit}; what was begun goes on, see: dorc status {app}"))
}

/// Prints an answer of which there is nothing more to say than its message.
pub(super) fn conclude(answer: &api::Answer, json: bool) -> ExitCode {
    if answer.exit == exit::DONE && !json {
        say::done(&answer.message, "");
    } else {
        say::answer(answer, json);
    }
    ExitCode::from(answer.exit)
}
