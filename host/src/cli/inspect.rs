//! `millpond inspect`.

use super::readable;
use anyhow::Result;
use clap::Args;
use millpond::{Limits, Source};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The component; the embedded one where none is named.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Inspect {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let source = match &self.file {
            Some(path) => Source::from_file(path)?,
            None => Source::embedded(),
        };
        let limits = Limits::default();
        let inspection = source.inspect(&limits)?;
        println!("component  {}", inspection.name);
        println!("size       {}", readable(inspection.size_bytes as u64));
        println!("sha256     {}", inspection.sha256);
        for import in &inspection.imports {
            println!("imports    {import}");
        }
        for export in &inspection.exports {
            println!("exports    {export}");
        }
        println!(
            "begins     with {} of memory in {}",
            readable(inspection.initial_memory_bytes),
            inspection.memories,
        );
        println!("allowed    {limits}");
        Ok(ExitCode::SUCCESS)
    }
}
