//! `dorc switch`

use std::process::ExitCode;

use clap::Args;

use super::{Change, Context, say, send};
use crate::control::api;
use crate::model::share::Share;

/// Options of `dorc switch`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The app
    app: String,
    /// Make this colour or release active; nothing happens if it is
    #[arg(long, value_name = "COLOUR|RELEASE")]
    to: Option<String>,
    /// Only if this colour or release is active now, so that a repeated job can't switch twice
    #[arg(long, value_name = "COLOUR|RELEASE")]
    if_active: Option<String>,
    /// Send only this share of the clients there, as 10%; without a share: by the steps of the app file
    #[arg(
        long, value_name = "SHARE", num_args = 0..=1, default_missing_value = "", value_parser = share,
        conflicts_with = "to"
    )]
    canary: Option<String>,
    #[command(flatten)]
    change: Change,
}

/// A share as it was written; empty where none was.
fn share(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { text.parse::<Share>().map(|share| share.to_string()) }
}

pub(super) async fn run(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    let Options { app, to, if_active, canary, change } = options;
    let body = api::to_json(&api::Switch { to, if_active, canary, no_wait: change.no_wait });
    let answer = send::send(context, &app, "switch", body, &change).await?;
    Ok(moved(&answer, change.json))
}

/// Says how a command that moves traffic ended.
pub(super) fn moved(answer: &api::Answer, json: bool) -> ExitCode {
    say::answer(answer, json);
    if answer.exit == api::exit::DONE && !json {
        // A move was told step by step.
        if answer.before.is_some() && answer.before != answer.active {
            say::line(&format!("way back: dorc rollback {}", answer.app));
        } else {
            say::line(&answer.message);
        }
    }
    ExitCode::from(answer.exit)
}
