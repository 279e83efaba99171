//! The `dorc` program: parse, dispatch, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|verb| verb == "guard") {
        return dorc::services::embedded::guard::run(arguments);
    }
    ExitCode::SUCCESS
}
