//! Archives that are the same whenever and wherever they are made.

use super::release::Release;
use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use std::fs;
use std::path::Path;
use tar::{Builder, Header};

/// One file of an archive.
pub(super) struct Entry<'a> {
    /// Its name within the archive's one folder.
    pub(super) name: &'a str,
    /// Where it is now.
    pub(super) from: &'a Path,
    /// Its permissions.
    pub(super) mode: u32,
}

/// Writes `<name>.tar.gz` into `folder`. The entries stand in the order of their names, belong to nobody, and are of
/// the commit's time.
pub(super) fn write(release: &Release, folder: &Path, name: &str, files: &[Entry]) -> Result<()> {
    let to = fs::File::create(folder.join(format!("{name}.tar.gz")))?;
    let zipped = GzBuilder::new().mtime(0).write(to, Compression::best());
    let mut archive = Builder::new(zipped);
    let mut files: Vec<&Entry> = files.iter().collect();
    files.sort_by_key(|entry| entry.name);
    for entry in files {
        let content = fs::read(entry.from)
            .with_context(|| format!("cannot read {}", entry.from.display()))?;
        let mut header = Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(entry.mode);
        header.set_mtime(release.commit_time_seconds);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, format!("{name}/{}", entry.name), &content[..])?;
    }
    archive.into_inner()?.finish()?.sync_all()?;
    Ok(())
}
