//! `dorc update`

use std::process::ExitCode;

use clap::Args;

use super::{Change, Context, send};

/// Options of `dorc update`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The app
    app: String,
    #[command(flatten)]
    change: Change,
}

pub(super) async fn run(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    let Options { app, change } = options;
    let answer = send::send(context, &app, "update", String::new(), &change).await?;
    Ok(send::conclude(&answer, change.json))
}
