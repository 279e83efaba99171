//! The `dorc` program: parse, dispatch, exit.

use std::process::ExitCode;

use dorc::services::embedded::guard;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // The process between dorc and an embedded service is this program, too; it needs nothing of the rest.
    if arguments.next().is_some_and(|verb| verb == "guard") {
        return guard::run(arguments);
    }
    dorc::cli::main()
}
