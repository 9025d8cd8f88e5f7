//! `millpond check`.

use crate::common::{progress_bar, readable};
use crate::media_location::MediaLocation;
#[cfg(feature = "origin")]
use crate::origin_session::OriginSession;
use anyhow::{Context, Result};
use clap::Args;
use indicatif::ProgressBar;
use millpond::store::{Corruption, Repairer, VerifiedEntry, verify};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Folder of the store, or the URL of object storage: s3://BUCKET/PREFIX, gs:// or az://. All content is read.
    #[arg(
        value_name = "DIR|URL",
        env = "MILLPOND_DIR",
        value_parser = MediaLocation::parser()
    )]
    dir: MediaLocation,

    /// Repair the store in a folder, and print each action. Files that an interrupted `add` left are removed. Corrupt files are moved
    /// to the hidden folder `.lost+found`, with the reason. Whole content without a record gets one, as private media.
    /// Missing variants are removed from records.
    #[arg(long)]
    repair: bool,
}

impl Check {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let context = || match &self.dir {
            MediaLocation::Folder(folder) => {
                format!("cannot check the folder {}", folder.display())
            }
            #[cfg(feature = "origin")]
            MediaLocation::Origin(url) => format!("cannot check {url}"),
        };
        if let Some(folder) = self.dir.folder() {
            // A folder that is not there must not be created.
            std::fs::read_dir(folder).with_context(context)?;
        }
        let repairer = self.repair.then(|| self.repairer()).transpose()?;
        let (mut repaired, mut failed) = (0_u64, false);
        let bar = progress_bar(self.dir.folder().map_or(0, stored_bytes));
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
        let verified = self.verify(&bar, on_entry);
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

impl Check {
    fn repairer(&self) -> Result<Repairer> {
        let folder = self.dir.folder();
        let folder =
            folder.context("--repair is for folders: add the files to object storage again")?;
        Ok(Repairer::open(folder)?)
    }

    fn verify(&self, bar: &ProgressBar, found: impl FnMut(VerifiedEntry)) -> Result<()> {
        match &self.dir {
            MediaLocation::Folder(folder) => Ok(verify(folder, |bytes| bar.inc(bytes), found)?),
            #[cfg(feature = "origin")]
            MediaLocation::Origin(url) => {
                let session = OriginSession::open(url)?;
                // The total is known when the last page of the listing has come.
                let listed = |bytes| bar.inc_length(bytes);
                let progress = |bytes| bar.inc(bytes);
                Ok(session.wait(session.importer().verify(&listed, &progress, found))?)
            }
        }
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
