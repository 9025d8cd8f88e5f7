//! Warnings at the start, about limits that contradict each other and about unreachable media. Without them, the
//! effects would be hard to explain later.

use crate::common::readable;
use millpond::MemoryPlan;
use millpond::config::Config;
use millpond::ledger::process;
use millpond_format::{Access, ContentId, RECORD_BYTES, Record};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Warns if the memory limit exceeds the memory of the machine, so that the system may kill the process.
pub(crate) fn of_memory(limit_bytes: usize) {
    if let Some(available_bytes) = process::memory_limit_bytes()
        && limit_bytes as u64 > available_bytes
    {
        tracing::warn!(
            "--memory-limit {} is more than the machine or the control group has, {}: the system may kill this process",
            readable(limit_bytes as u64),
            readable(available_bytes),
        );
    }
}

/// Warns if the limit of open files is low. A connection takes one file, and its response usually another.
pub(crate) fn of_open_files(plan: &MemoryPlan) {
    /// Usual limit of open files.
    const USUAL: u64 = 1024;
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        let files = getrlimit(Resource::Nofile).current;
        if let Some(files) = files.filter(|files| *files < USUAL) {
            let connections = plan.connections;
            tracing::warn!(
                "the limit of open files is {files}, which is enough for {connections} connections: \
                 raise it (ulimit -n, LimitNOFILE) to {USUAL} or more"
            );
        }
    }
    #[cfg(not(unix))]
    let _ = (plan, USUAL);
}

/// Warns if the store has private media and there is no signing key. Reads the first records only; the first request
/// for private media warns of others.
///
/// It reads on a thread of its own: a large folder or a slow disk must not delay the start.
pub(crate) fn of_private_media(folder: &Path, config: &Config) {
    if !config.signing_keys.is_empty() {
        return;
    }
    let folder = folder.to_owned();
    let warn = move || {
        if let Some(record) = private_record(&folder) {
            tracing::warn!(
                "private media such as {} cannot be served without signing keys: set MILLPOND_SIGNING_KEYS or \
                 signing-keys in --config",
                record.display(),
            );
        }
    };
    let thread = std::thread::Builder::new().name("millpond-notices".into());
    if let Err(error) = thread.spawn(warn) {
        tracing::warn!(%error, "cannot look for private media");
    }
}

/// Maximum number of entries to read.
const ENTRIES: usize = 10_000;

/// Maximum number of records to read.
const RECORDS: usize = 1000;

/// Returns the path of a record of private media, relative to the folder.
fn private_record(folder: &Path) -> Option<PathBuf> {
    let folders = (0..=u8::MAX).map(|first| folder.join(format!("{first:02x}")));
    let entries = folders
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .take(ENTRIES);
    let records = entries.filter_map(|entry| record_path(&entry.ok()?.path()));
    records
        .take(RECORDS)
        .find(|path| is_private(&folder.join(path)) == Some(true))
}

/// Returns the path, if the file has the name of a record.
fn record_path(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let id: ContentId = name.strip_suffix(".json")?.parse().ok()?;
    Some(id.record_path())
}

fn is_private(path: &Path) -> Option<bool> {
    let mut json = Vec::new();
    // Opening a named pipe would wait for a writer.
    let is_file = fs::symlink_metadata(path).ok()?.is_file();
    let file = is_file.then(|| File::open(path).ok())??;
    file.take(RECORD_BYTES).read_to_end(&mut json).ok()?;
    Some(Record::parse(&json)?.access == Access::Private)
}
