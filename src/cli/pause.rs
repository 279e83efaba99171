//! `dorc pause`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{Change, Context, send};
use crate::control::api;

/// Options of `dorc pause`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The app
    app: String,
    /// For how long at most; then it resumes by itself
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    time: Duration,
    #[command(flatten)]
    change: Change,
}

pub(super) async fn run(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    let Options { app, time, change } = options;
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let answer = send::send(context, &app, "pause", api::to_json(&api::Pause { millis }), &change).await?;
    Ok(send::conclude(&answer, change.json))
}
