//! The daemon, which keeps a policy in force.

use std::process::ExitCode;

fn main() -> ExitCode {
    waylay_cli::waylayd()
}
