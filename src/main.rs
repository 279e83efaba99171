//! The `dorc` program: parse, dispatch, exit.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().and_then(|verb| verb.into_string().ok()).as_deref() {
        Some("guard") => Ok(dorc::services::embedded::guard::run(arguments)),
        Some("demo-backend") => dorc::cli::demo_backend::main(arguments),
        _ => Ok(ExitCode::SUCCESS),
    }
}
