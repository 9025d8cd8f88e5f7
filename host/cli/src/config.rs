//! `millpond config`.

use crate::serve::{self, Serve};
use crate::settings::{Setting, Settings};
use anyhow::Result;
use clap::{ArgMatches, Subcommand};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration file. A wrong one is named with its line, its field and what is allowed.
    Check {
        /// Configuration file in TOML.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show the settings that `serve` would have with these options, each with its source. Secrets are hidden.
    Show(Box<Serve>),
}

impl ConfigCommand {
    pub(crate) fn run(self, matches: &ArgMatches) -> Result<ExitCode> {
        match self {
            ConfigCommand::Check { file } => {
                let settings = Settings::<Serve>::of_file(&file)?;
                serve::check(&settings)?;
                writeln!(io::stdout(), "{} is valid", file.display())?;
            }
            ConfigCommand::Show(_) => {
                let of_show = matches.subcommand().map_or(matches, |(_, matches)| matches);
                let settings = Settings::<Serve>::resolve(of_show)?;
                serve::check(&settings)?;
                io::stdout().write_all(shown(&settings.list).as_bytes())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the settings as a file in TOML, with the source of each in a comment. A setting without a value is a comment.
fn shown(list: &[Setting]) -> String {
    /// Column of the sources.
    const WIDTH: usize = 48;
    let mut text = String::new();
    let mut add = |key: &str, setting: &Setting| {
        let line = match setting.toml() {
            Some(value) => format!("{key} = {value}"),
            None => format!("# {key} = {}", setting.shown()),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line:WIDTH$} # {}", setting.source);
    };
    let (tables, options): (Vec<&Setting>, Vec<&Setting>) =
        list.iter().partition(|setting| setting.key.contains('.'));
    for setting in options {
        add(&setting.key, setting);
    }
    let mut tables: Vec<_> = tables
        .iter()
        .filter_map(|setting| Some((setting.key.split_once('.')?, *setting)))
        .collect();
    tables.sort_by_key(|((table, _), _)| *table);
    let mut last = "";
    for ((table, key), setting) in tables {
        if table != last {
            let _ = writeln!(text, "\n[{table}]");
            last = table;
        }
        let line = match setting.toml() {
            Some(value) => format!("{key} = {value}"),
            None => format!("# {key} = {}", setting.shown()),
        };
        let _ = writeln!(text, "{line:WIDTH$} # {}", setting.source);
    }
    text
}
