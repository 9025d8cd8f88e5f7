//! Measures millpond beside the server that it replaces: `cargo run --release -p millpond-bench -- --help`.

mod drive;
mod load;
mod machine;
mod media;
mod memory;
mod picture;
mod replay;
mod report;
mod request;
mod sample;
mod servers;
mod slope;
mod sockets;
mod tally;

use clap::Parser;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "millpond-bench", version, about)]
enum Bench {
    /// Plays the original's load against millpond and the original, and draws their memory.
    Replay(Box<replay::Replay>),
}

fn main() -> ExitCode {
    let ended = match Bench::parse() {
        Bench::Replay(replay) => replay.run(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millpond-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}
