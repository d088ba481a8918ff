//! The `tare` command: everything is in the library.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(tare::cli::run(env::args_os().skip(1)))
}
