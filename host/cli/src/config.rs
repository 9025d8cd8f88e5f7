//! `millpond config`.

use crate::serve::{self, Serve};
use crate::settings::{ResolvedSettings, Setting};
use anyhow::Result;
use clap::{ArgMatches, Subcommand};
use std::io::{self, Write};
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
                let settings = ResolvedSettings::<Serve>::of_file(&file)?;
                serve::check(&settings)?;
                writeln!(io::stdout(), "{} is valid", file.display())?;
            }
            ConfigCommand::Show(_) => {
                let of_show = matches.subcommand().map_or(matches, |(_, matches)| matches);
                let settings = ResolvedSettings::<Serve>::resolve(of_show)?;
                serve::check(&settings)?;
                io::stdout().write_all(shown(&settings.list).as_bytes())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the settings as a file in TOML, with the source of each in a comment. A setting without a value is a comment.
fn shown(list: &[Setting]) -> String {
    let mut text = String::new();
    // Fields without a table come first, as TOML needs it.
    for setting in list.iter().filter(|setting| setting.table().is_empty()) {
        text += &line(setting);
    }
    let mut tables: Vec<&Setting> = list.iter().collect();
    tables.retain(|setting| !setting.table().is_empty());
    tables.sort_by_key(|setting| setting.table());
    for of_table in tables.chunk_by(|one, next| one.table() == next.table()) {
        text += &format!("\n[{}]\n", of_table[0].table());
        text.extend(of_table.iter().map(|setting| line(setting)));
    }
    text
}

fn line(setting: &Setting) -> String {
    /// Column of the sources.
    const WIDTH: usize = 48;
    let name = setting.name();
    let field = match setting.toml() {
        Some(value) => format!("{name} = {value}"),
        None => format!("# {name} = {}", setting.shown()),
    };
    format!("{field:WIDTH$} # {}\n", setting.source)
}
