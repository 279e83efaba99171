//! The `dorc` program: parse, dispatch, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    dorc::cli::main()
}
