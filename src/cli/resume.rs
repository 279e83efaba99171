//! `dorc resume`

use std::process::ExitCode;

use super::Context;
use super::send::{self, Plain};

pub(super) async fn run(context: &Context, options: Plain) -> anyhow::Result<ExitCode> {
    send::plain(context, "resume", options).await
}
