//! Command line, with its subcommands.

use crate::{add, check, health, inspect, manual, new, publish, serve, sign};
use anyhow::Result;
use clap::{CommandFactory, Parser};
use std::process::ExitCode;

/// Media server that answers requests with a WebAssembly component. The memory of every request is accounted for,
/// limited and released.
#[derive(Debug, Parser)]
#[command(name = "millpond", version, max_term_width = 100)]
pub(crate) enum Command {
    /// Serve a folder of media over HTTP.
    Serve(Box<serve::Serve>),
    /// Add files to a store, addressed by their content.
    Add(add::Add),
    /// Make private media public.
    Publish(publish::Publish),
    /// Verify every stored file against its id.
    Check(check::Check),
    /// Create a signed URL for private media.
    Sign(sign::Sign),
    /// Show the imports, exports and memory of a component, and check that it can be served.
    Inspect(inspect::Inspect),
    /// Create a folder with a component to start from: sources, interface, and build instructions.
    New(new::New),
    /// Check that a server is ready.
    Health(health::Health),
    /// Print the completions for a shell.
    Completions(manual::Completions),
    /// Write the manual pages.
    Manual(manual::Manual),
}

impl Command {
    /// Runs the subcommand. The exit code is 0 on success, 1 if it found a fault, and 2 for an error.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Command::Serve(serve) => serve.run(),
            Command::Add(add) => add.run(),
            Command::Publish(publish) => publish.run(),
            Command::Check(check) => check.run(),
            Command::Sign(sign) => sign.run(),
            Command::Inspect(inspect) => inspect.run(),
            Command::New(new) => new.run(),
            Command::Health(health) => health.run(),
            Command::Completions(completions) => completions.run(Command::command()),
            Command::Manual(manual) => manual.run(Command::command()),
        }
    }
}
