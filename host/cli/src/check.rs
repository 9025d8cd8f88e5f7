//! `millpond check`.

use crate::common::{progress_bar, readable};
use anyhow::{Context, Result};
use clap::Args;
use millpond::store::{Corruption, Repairer, VerifiedEntry, verify};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Folder of the store.
    #[arg(value_name = "DIR", env = "MILLPOND_DIR")]
    dir: PathBuf,

    /// Repair the store, and print each action. Files that an interrupted `add` left are removed. Corrupt files are moved
    /// to the hidden folder `.lost+found`, with the reason. Whole content without a record gets one, as private media.
    /// Missing variants are removed from records.
    #[arg(long)]
    repair: bool,
}

impl Check {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let context = || format!("cannot check the folder {}", self.dir.display());
        // A folder that is not there must not be created.
        std::fs::read_dir(&self.dir).with_context(context)?;
        let repairer = self.repair.then(|| Repairer::open(&self.dir)).transpose()?;
        let (mut repaired, mut failed) = (0_u64, false);
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
            let Some(corruption) = &entry.corruption else {
                return;
            };
            let path = entry.path.display();
            let action = match repairer.as_ref().map(|repairer| repairer.repair(&entry)) {
                None | Some(Ok(None)) => String::new(),
                Some(Ok(Some(action))) => {
                    repaired += u64::from(action.is_repaired());
                    failed |= !action.is_repaired();
                    format!(": {action}")
                }
                Some(Err(error)) => {
                    failed = true;
                    format!(": cannot repair: {:#}", anyhow::Error::from(error))
                }
            };
            bar.suspend(|| eprintln!("{path}: {corruption}{action}"));
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
        let repairs = match self.repair {
            true => format!(", {repaired} repaired"),
            false => String::new(),
        };
        writeln!(
            io::stdout(),
            "{ok} ok ({}), {corrupt} corrupt{orphans}{repairs}",
            readable(ok_bytes)
        )?;
        let is_faulty = match self.repair {
            true => failed,
            false => corrupt + orphaned > 0,
        };
        Ok(ExitCode::from(u8::from(is_faulty)))
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
