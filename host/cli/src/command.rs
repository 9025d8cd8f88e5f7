//! Command line, with its subcommands.

use crate::{
    add, check, config, doctor, health, inspect, list, manual, new, publish, remove, serve, sign,
};
use anyhow::Result;
use clap::{ArgMatches, CommandFactory, Parser};
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
    /// List the media of a store.
    Ls(list::ListMedia),
    /// Remove media from a store.
    Rm(remove::Remove),
    /// Make private media public.
    Publish(publish::Publish),
    /// Make public media private, with its variants.
    Unpublish(publish::Unpublish),
    /// Verify every stored file against its id, and repair the store.
    Check(check::Check),
    /// Create signed URLs for private media.
    Sign(sign::Sign),
    /// Show the imports, exports and memory of a component, and check that it can be served.
    Inspect(inspect::Inspect),
    /// Create a folder with a component to start from: sources, interface, and build instructions.
    New(new::New),
    /// Check a configuration file, or show the settings in effect.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Show, purge or warm the cache of a server with media from an origin.
    #[cfg(feature = "origin")]
    Cache(crate::cache::CacheCommand),
    /// Check the machine, the folder and the settings for `serve`.
    Doctor(Box<doctor::Doctor>),
    /// Check that a server is ready.
    Health(health::Health),
    /// Print the completions for a shell.
    Completions(manual::Completions),
    /// Write the manual pages.
    Manual(manual::Manual),
}

impl Command {
    /// Runs the subcommand. The exit code is 0 on success, 1 if it found a fault, and 2 for an error.
    ///
    /// `matches` are the arguments that the command was parsed from.
    pub(crate) fn run(self, matches: &ArgMatches) -> Result<ExitCode> {
        let of_subcommand = || matches.subcommand().map_or(matches, |(_, matches)| matches);
        match self {
            Command::Serve(_) => serve::run(of_subcommand()),
            Command::Add(add) => add.run(),
            Command::Ls(list) => list.run(),
            Command::Rm(remove) => remove.run(),
            Command::Publish(publish) => publish.run(),
            Command::Unpublish(unpublish) => unpublish.run(),
            Command::Check(check) => check.run(),
            Command::Sign(sign) => sign.run(),
            Command::Inspect(inspect) => inspect.run(),
            Command::New(new) => new.run(),
            Command::Config(config) => config.run(of_subcommand()),
            #[cfg(feature = "origin")]
            Command::Cache(cache) => cache.run(),
            Command::Doctor(doctor) => doctor.run(of_subcommand()),
            Command::Health(health) => health.run(),
            Command::Completions(completions) => completions.run(Command::command()),
            Command::Manual(manual) => manual.run(Command::command()),
        }
    }
}
