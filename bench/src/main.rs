//! Measures millpond beside other servers: `cargo run --release -p millpond-bench -- --help`.

mod compare;
mod cores;
mod express;
mod herd;
mod interrupt;
mod machine;
mod nodes;
mod process;
mod program;
mod replay;
mod sockets;
mod spread;
mod store;
mod table;

use clap::Parser;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "millpond-bench", version, about)]
enum Bench {
    /// Compares millpond's speed and cost with those of other servers.
    Compare(Box<compare::Compare>),
    /// Plays the original's load against millpond and the original, and draws their memory.
    Replay(Box<replay::Replay>),
    /// Lets many clients request one object at once from caches of an origin, millpond and others.
    Herd(Box<herd::Herd>),
    /// Simulates caches of several nodes behind a balancer.
    Nodes(nodes::Nodes),
    /// The least server that there can be, which `compare` starts.
    #[command(hide = true)]
    Bare(compare::Bare),
    /// The load of a schedule, which `compare` starts.
    #[command(hide = true)]
    Send(compare::Send),
}

fn main() -> ExitCode {
    let ended = match Bench::parse() {
        Bench::Compare(compare) => compare.run(),
        Bench::Replay(replay) => replay.run(),
        Bench::Herd(herd) => herd.run(),
        Bench::Nodes(nodes) => nodes.run(),
        Bench::Bare(bare) => bare.run(),
        Bench::Send(send) => send.run(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("millpond-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}
