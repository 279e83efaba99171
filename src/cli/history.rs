//! `dorc history`

use std::process::ExitCode;

use clap::Args;

use super::{Context, say, status};
use crate::control::api;

/// Options of `dorc history`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The app [default: all]
    app: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    let apps = match options.app {
        Some(app) => vec![app],
        None => {
            let status: api::Status = context.client.get("/v1/apps").await?;
            status.apps.into_iter().map(|app| app.app).collect()
        }
    };
    let mut entries: Vec<(String, api::Entry)> = Vec::new();
    for app in apps {
        let path = format!("/v1/apps/{app}/history");
        let history: Vec<api::Entry> = context.client.get(&path).await?;
        entries.extend(history.into_iter().map(|entry| (app.clone(), entry)));
    }
    entries.sort_by(|(_, a), (_, b)| a.when.cmp(&b.when));
    if options.json {
        let happened = entries.into_iter().map(|(app, entry)| api::Happened { app, entry });
        happened.for_each(|happened| say::line(&api::to_json(&happened)));
        return Ok(ExitCode::SUCCESS);
    }
    let rows = entries.into_iter().map(|(app, entry)| {
        let way = match (entry.from, entry.to) {
            (Some(from), Some(to)) => format!("{from} → {to}"),
            (from, to) => from.or(to).unwrap_or_default(),
        };
        [entry.when, app, entry.who, entry.what, way, entry.label.unwrap_or_default(), entry.result]
            .map(|text| (say::plain(&text), say::plain(&text)))
            .to_vec()
    });
    status::print_table(&["WHEN", "APP", "WHO", "WHAT", "", "LABEL", "RESULT"], rows.collect());
    Ok(ExitCode::SUCCESS)
}
