//! Arguments → command → exit code.
//!
//! In: the arguments. Out: the exit code. Drops: nothing. Must not know: what any command does.

use std::process::ExitCode;

use clap::Parser;
use doorward::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
