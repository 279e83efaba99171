//! `dorc metrics`

use std::process::ExitCode;

use super::{Context, say};

pub(super) async fn run(context: &Context) -> anyhow::Result<ExitCode> {
    say::line(context.client.text("/v1/metrics").await?.trim_end());
    Ok(ExitCode::SUCCESS)
}
