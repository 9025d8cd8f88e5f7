//! The command `millpond`: see `millpond --help`.

mod allocator;
mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    millpond::heap::install(&allocator::Jemalloc);
    match cli::Command::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("millpond: {error:#}");
            ExitCode::from(2)
        }
    }
}
