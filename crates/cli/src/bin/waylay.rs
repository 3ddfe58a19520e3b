//! The `waylay` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    waylay_cli::waylay()
}
