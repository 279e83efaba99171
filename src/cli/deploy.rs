//! `dorc deploy`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::upload::{self, Called};
use super::{Change, Context, hosts, say, send, switch};
use crate::control::api::{self, exit};

/// Options of `dorc deploy`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The app
    pub(super) app: String,
    /// Upload this first, as dorc upload does [default: the newest release is deployed]
    pub(super) path: Option<PathBuf>,
    /// Bring back this release of the store instead
    #[arg(long, value_name = "RELEASE", conflicts_with = "path")]
    pub(super) release: Option<String>,
    #[command(flatten)]
    pub(super) called: Called,
    #[command(flatten)]
    pub(super) change: Change,
}

pub(super) async fn run(context: &Context, options: Options) -> anyhow::Result<ExitCode> {
    options.called.check()?;
    if context.hosts.len() > 1 {
        return hosts::deploy(context, options).await;
    }
    let Options { app, path, mut release, called, change } = options;
    if let Some(path) = path {
        let steps = say::Steps::new(change.json, change.no_wait);
        let uploading = upload::upload(context, &app, &path, called.for_deployment(), steps);
        let uploaded = send::within(&app, &change, uploading).await??;
        if uploaded.exit != exit::DONE {
            say::answer(&uploaded, change.json);
            return Ok(ExitCode::from(uploaded.exit));
        }
        release = uploaded.release;
    }
    let body = api::Deploy { release, prepare: false, label: called.label, no_wait: change.no_wait };
    let body = api::to_json(&body);
    let answer = send::send(context, &app, "deploy", body, &change).await?;
    Ok(switch::moved(&answer, change.json))
}
