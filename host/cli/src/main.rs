//! The command `millpond`: see `millpond --help`.

#![deny(unsafe_code)]

mod add;
mod add_target;
mod admin_client;
mod admin_token;
#[cfg(feature = "jemalloc")]
#[allow(unsafe_code)]
mod allocator;
#[cfg(feature = "origin")]
mod cache;
#[cfg(feature = "origin")]
mod cache_admin;
mod certificate;
mod check;
mod command;
mod common;
mod config;
mod doctor;
mod health;
mod hints;
mod inspect;
mod interrupt;
mod list;
mod listen;
mod log;
mod manual;
mod media_location;
mod memory;
mod new;
mod notices;
#[cfg(feature = "origin")]
mod origin;
#[cfg(feature = "origin")]
mod origin_session;
mod passed_sockets;
mod publish;
mod reload;
mod remove;
mod sandbox;
mod serve;
mod service_manager;
mod settings;
mod settings_file;
mod sign;
mod signals;
mod sources;
mod store_writer;
#[cfg(feature = "otlp")]
mod traces;
mod uploads;

use clap::{CommandFactory, FromArgMatches};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "jemalloc")]
    millpond::ledger::heap::install(&allocator::Jemalloc);
    let matches = command::Command::command().get_matches();
    let parsed = command::Command::from_arg_matches(&matches);
    let command = parsed.unwrap_or_else(|error| error.exit());
    match command.run(&matches) {
        Ok(code) => code,
        Err(error) => {
            // If nobody reads it, the exit code remains.
            let _ = writeln!(std::io::stderr(), "millpond: {}", common::one_line(&error));
            ExitCode::from(2)
        }
    }
}
