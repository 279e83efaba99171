//! The `dorc` program: parse, dispatch, exit.

use std::process::ExitCode;

use dorc::services::embedded::guard;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // Two things that this program also is, and that no user types: the process between dorc and an embedded service,
    // and the backend of the demo.
    match arguments.next().as_ref().and_then(|verb| verb.to_str()) {
        Some("guard") => guard::run(arguments),
        Some("demo-backend") => dorc::cli::demo_backend::main(arguments),
        _ => dorc::cli::main(),
    }
}
