//! `dorc freeze`

use std::process::ExitCode;

use clap::Args;

use super::{Change, Context, send};
use crate::control::api;

/// Options of `dorc freeze`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The app
    app: String,
    /// Why, for whoever wants to deploy meanwhile
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    change: Change,
}

pub(super) async fn run(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    let Options { app, reason, change } = options;
    let body = api::to_json(&api::Freeze { reason });
    let answer = send::send(context, &app, "freeze", body, &change).await?;
    Ok(send::conclude(&answer, change.json))
}
