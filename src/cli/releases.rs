//! `dorc releases`

use std::process::ExitCode;

use clap::Args;

use super::say::{self, Style};
use super::{Context, status};
use crate::control::api;

/// Options of `dorc releases`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The app
    app: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/apps/{}/releases", options.app);
    let releases: Vec<api::ReleaseStatus> = context.client.get(&path).await?;
    if options.json {
        say::line(&api::to_pretty_json(&releases));
        return Ok(ExitCode::SUCCESS);
    }
    if releases.is_empty() {
        say::line(&format!("{} has no release yet", options.app));
    }
    let rows = releases.iter().rev().map(|release| {
        let state = match release.state.as_str() {
            "active" => Style::Bold.paint(&release.state),
            "failed" => Style::Red.paint(&release.state),
            _ => release.state.clone(),
        };
        let size = say::size(release.files, release.bytes);
        let label = release.label.clone().unwrap_or_default();
        let reason = release.failure.as_ref().map(|failure| say::plain(&failure.reason)).unwrap_or_default();
        vec![
            (release.release.clone(), release.release.clone()),
            (release.state.clone(), state),
            (release.taken.clone(), release.taken.clone()),
            (size.clone(), size),
            (label.clone(), label),
            (reason.clone(), reason),
        ]
    });
    status::print_table(&["RELEASE", "STATE", "TAKEN", "SIZE", "LABEL", "REASON"], rows.collect());
    Ok(ExitCode::SUCCESS)
}
