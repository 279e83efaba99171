//! `dorc remove`

use std::process::ExitCode;

use clap::Args;

use super::{Change, Context, send};
use crate::control::api;

/// Options of `dorc remove`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The app
    app: String,
    /// Delete its releases and its app file too
    #[arg(long)]
    purge: bool,
    #[command(flatten)]
    change: Change,
}

pub(super) async fn run(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    let Options { app, purge, change } = options;
    let body = api::to_json(&api::Remove { purge });
    let answer = send::send(context, &app, "remove", body, &change).await?;
    Ok(send::conclude(&answer, change.json))
}
