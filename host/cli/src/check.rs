//! `millpond check`.

use crate::common::{progress_bar, readable};
use anyhow::{Context, Result};
use clap::Args;
use millpond::store::{Corruption, VerifiedEntry, verify};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Folder of the store.
    #[arg(value_name = "DIR", env = "MILLPOND_DIR")]
    dir: PathBuf,
}

impl Check {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let context = || format!("cannot check the folder {}", self.dir.display());
        let bar = progress_bar(stored_bytes(&self.dir));
        let (mut ok, mut ok_bytes, mut corrupt) = (0_u64, 0_u64, 0_u64);
        let (mut orphaned, mut orphaned_bytes) = (0_u64, 0_u64);
        let on_entry = |entry: VerifiedEntry| {
            match &entry.corruption {
                None => {
                    ok += 1;
                    ok_bytes += entry.size;
                }
                Some(Corruption::OrphanedTemporaryFile) => {
                    orphaned += 1;
                    orphaned_bytes += entry.size;
                }
                Some(_) => corrupt += 1,
            }
            if let Some(corruption) = entry.corruption {
                bar.suspend(|| eprintln!("{}: {corruption}", entry.path.display()));
            }
        };
        let verified = verify(&self.dir, |bytes| bar.inc(bytes), on_entry);
        bar.finish_and_clear();
        verified.with_context(context)?;
        let orphans = match orphaned {
            0 => String::new(),
            1 => format!(", 1 orphaned temporary file ({})", readable(orphaned_bytes)),
            _ => format!(
                ", {orphaned} orphaned temporary files ({})",
                readable(orphaned_bytes)
            ),
        };
        writeln!(
            io::stdout(),
            "{ok} ok ({}), {corrupt} corrupt{orphans}",
            readable(ok_bytes)
        )?;
        Ok(ExitCode::from(u8::from(corrupt + orphaned > 0)))
    }
}

/// Estimates the bytes to read, for the progress bar. The verification itself reports errors.
fn stored_bytes(dir: &Path) -> u64 {
    walkdir::WalkDir::new(dir)
        .min_depth(2)
        .max_depth(2)
        .into_iter()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum()
}
