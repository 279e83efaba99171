//! `dorc logs`

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Args;

use super::Context;
use crate::control::api;
use crate::daemon::{local, system};
use crate::model::app::AppName;
use crate::model::colour::Colour;

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
    let path = format!("/v1/apps/{}", options.app);
    // Says so if there is no such app, rather than showing nothing.
    let _: api::Status = context.client.get(&path).await?;
    let app = AppName::new(&options.app).map_err(anyhow::Error::msg)?;
    let colours = Colour::BOTH.into_iter().filter(|colour| match colour {
        Colour::Green => !options.blue,
        Colour::Blue => !options.green,
    });
    let mut command = if context.is_local() {
        let mut tail = Command::new("tail");
        tail.arg(if options.follow { "-F" } else { "-q" });
        tail.args(colours.flat_map(|colour| local::log_files(&context.places, &app, colour)));
        tail
    } else {
        let mut journal = Command::new("journalctl");
        journal.arg("--no-pager");
        let units = colours.flat_map(|colour| system::units(&app, colour));
        journal.args(units.flat_map(|unit| ["-u".to_owned(), unit]));
        if options.follow {
            journal.arg("-f");
        }
        journal
    };
    command.arg("-n").arg(options.lines.to_string());
    let program = command.get_program().to_string_lossy().into_owned();
    Err(anyhow::Error::new(command.exec()).context(format!("{program} could not be run")))
}
