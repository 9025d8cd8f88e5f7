//! The command `millpond`: see `millpond --help`.

mod allocator;
mod cli;

use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    millpond::heap::install(&allocator::Jemalloc);
    match cli::Command::parse().run() {
        Ok(code) => code,
        Err(error) => {
            // Where nobody reads it, the code tells.
            let _ = writeln!(std::io::stderr(), "millpond: {error:#}");
            ExitCode::from(2)
        }
    }
}
