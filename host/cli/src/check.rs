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
        let (mut sound, mut sound_bytes, mut damaged) = (0_u64, 0_u64, 0_u64);
        let (mut left, mut left_bytes) = (0_u64, 0_u64);
        let on_entry = |entry: VerifiedEntry| {
            match &entry.corruption {
                None => {
                    sound += 1;
                    sound_bytes += entry.size;
                }
                Some(Corruption::LeftBehind) => {
                    left += 1;
                    left_bytes += entry.size;
                }
                Some(_) => damaged += 1,
            }
            if let Some(corruption) = entry.corruption {
                bar.suspend(|| eprintln!("{}: {corruption}", entry.path.display()));
            }
        };
        let verified = verify(&self.dir, |bytes| bar.inc(bytes), on_entry);
        bar.finish_and_clear();
        verified.with_context(context)?;
        let left_behind = match left {
            0 => String::new(),
            _ => format!(", {left} left behind ({})", readable(left_bytes)),
        };
        writeln!(
            io::stdout(),
            "{sound} sound ({}), {damaged} damaged{left_behind}",
            readable(sound_bytes)
        )?;
        Ok(ExitCode::from(u8::from(damaged + left > 0)))
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
