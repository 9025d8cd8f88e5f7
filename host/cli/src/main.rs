//! The command `millpond`: see `millpond --help`.

#![deny(unsafe_code)]

mod add;
#[cfg(feature = "jemalloc")]
#[allow(unsafe_code)]
mod allocator;
mod certificate;
mod check;
mod command;
mod common;
mod health;
mod hints;
mod inspect;
mod interrupt;
mod listen;
mod log;
mod log_line;
mod manual;
mod memory;
mod new;
mod notices;
mod publish;
mod serve;
mod sign;
mod signals;

use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "jemalloc")]
    millpond::ledger::heap::install(&allocator::Jemalloc);
    match command::Command::parse().run() {
        Ok(code) => code,
        Err(error) => {
            // If nobody reads it, the exit code remains.
            let _ = writeln!(std::io::stderr(), "millpond: {}", one_line(&error));
            ExitCode::from(2)
        }
    }
}

/// Returns an error and its causes in one line. Some libraries' errors include their cause, so each is written once.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_cause_that_its_error_has_told_is_not_told_again() {
        let none = std::path::Path::new("/none/at/all");
        let error = tempfile::NamedTempFile::new_in(none).map(drop);
        let line = one_line(&anyhow::Context::context(error, "cannot write").unwrap_err());
        assert!(line.starts_with("cannot write: "), "{line}");
        assert_eq!(line.matches("No such file").count(), 1, "{line}");
    }
}
