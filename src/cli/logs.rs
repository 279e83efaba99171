//! `dorc logs`

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use super::Context;

/// Options of `dorc logs`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The app
    app: String,
    /// Go on until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many lines
    #[arg(short = 'n', long, default_value_t = 100)]
    lines: usize,
    /// Only the green service
    #[arg(long, conflicts_with = "blue")]
    green: bool,
    /// Only the blue service
    #[arg(long)]
    blue: bool,
}

pub(super) async fn run(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    let colour = match (options.green, options.blue) {
        (true, _) => "&colour=green",
        (_, true) => "&colour=blue",
        _ => "",
    };
    let follow = if options.follow { "&follow" } else { "" };
    let path = format!("/v1/apps/{}/logs?lines={}{colour}{follow}", options.app, options.lines);
    let mut parts = context.client.lines("GET", &path, String::new()).await?;
    let mut output = io::stdout();
    while let Some(part) = parts.part().await? {
        // That nobody reads it any more is its end.
        if output.write_all(&part).and_then(|()| output.flush()).is_err() {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}
