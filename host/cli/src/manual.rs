//! `millpond completions` and `millpond manual`: files that clap writes from its description of the command.

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Shell that reads the completions.
    shell: Shell,
}

impl Completions {
    /// Prints the completions of the command.
    pub(crate) fn run(self, mut command: Command) -> Result<ExitCode> {
        let mut completions = Vec::new();
        let name = command.get_name().to_owned();
        clap_complete::generate(self.shell, &mut command, name, &mut completions);
        io::stdout().write_all(&completions)?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Manual {
    /// Folder for the pages. It is created if it does not exist.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl Manual {
    /// Writes a page for the command, and one for each subcommand.
    pub(crate) fn run(self, command: Command) -> Result<ExitCode> {
        let context = || format!("cannot write to the folder {}", self.dir.display());
        fs::create_dir_all(&self.dir).with_context(context)?;
        clap_mangen::generate_to(command, &self.dir).with_context(context)?;
        Ok(ExitCode::SUCCESS)
    }
}
