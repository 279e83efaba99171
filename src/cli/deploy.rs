//! `dorc deploy`

use std::process::ExitCode;

use clap::Args;

use super::{Change, Context, send, switch};
use crate::control::api;

/// Options of `dorc deploy`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The app
    app: String,
    /// Bring back this release of the store instead of the newest
    #[arg(long, value_name = "RELEASE")]
    release: Option<String>,
    #[command(flatten)]
    change: Change,
}

pub(super) async fn run(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    let Options { app, release, change } = options;
    let body = api::to_json(&api::Deploy { release, prepare: false, no_wait: change.no_wait });
    let answer = send::send(context, &app, "deploy", body, &change).await?;
    Ok(switch::moved(&answer, change.json))
}
