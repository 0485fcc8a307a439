//! `comptoir`: the one binary of the box. `comptoir help` lists what it can do.

use std::process::ExitCode;

fn main() -> ExitCode {
    comptoir::cli::run()
}
