//! `dorc rollback`

use std::process::ExitCode;

use clap::Args;

use super::{Change, Context, send, switch};
use crate::control::api;

/// Options of `dorc rollback`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The app
    app: String,
    /// The release to go back to [default: the last one that was active before]
    release: Option<String>,
    /// Only if this colour or release is active now, so that a repeated job can't go back twice
    #[arg(long, value_name = "COLOUR|RELEASE")]
    if_active: Option<String>,
    #[command(flatten)]
    change: Change,
}

pub(super) async fn run(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    let Options { app, release, if_active, change } = options;
    let body = api::to_json(&api::Rollback { to: release, if_active, no_wait: change.no_wait });
    let answer = send::send(context, &app, "rollback", body, &change).await?;
    Ok(switch::moved(&answer, change.json))
}
