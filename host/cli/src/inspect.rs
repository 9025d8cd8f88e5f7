//! `millpond inspect`.

use crate::common::{RequestMemory, readable};
use crate::hints;
use anyhow::Result;
use clap::Args;
use millpond::{Limits, Source};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Component file [default: the embedded component].
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    request_memory: RequestMemory,
}

impl Inspect {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let source = match &self.file {
            Some(path) => Source::from_file(path)?,
            None => Source::embedded(),
        };
        let mut limits = Limits::default();
        limits.request_memory_bytes = self.request_memory.bytes()?;
        let inspection = source.inspect(&limits).map_err(hints::of_component)?;
        let mut lines = vec![
            format!("component  {}", inspection.name),
            format!("size       {}", readable(inspection.size_bytes as u64)),
            format!("sha256     {}", inspection.sha256),
        ];
        let imports = inspection.imports.iter();
        lines.extend(imports.map(|import| format!("imports    {import}")));
        let exports = inspection.exports.iter();
        lines.extend(exports.map(|export| format!("exports    {export}")));
        lines.push(format!(
            "instance   {} of memory at the start, and {} in the host",
            readable(inspection.initial_memory_bytes),
            readable(inspection.instance_bytes as u64),
        ));
        lines.push(format!("limits     {limits}"));
        writeln!(io::stdout(), "{}", lines.join("\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}
