//! Notices to an operator at the start, since later they would be riddles: limits that contradict each other, and media
//! that nobody can have.

use crate::common::readable;
use millpond::MemoryPlan;
use millpond::config::Config;
use millpond::ledger::process;
use millpond_format::{Access, ContentId, RECORD_BYTES, Record};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Warns where the process may take more than there is: the system would end it before it keeps to its bound.
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

/// Warns where few files may be open: each connection takes one, and each answer most often another.
pub(crate) fn of_open_files(plan: &MemoryPlan) {
    /// The number of open files that systems allow at the least, as a rule.
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

/// Warns where the store has private media and there is no key to sign URLs with: nobody can have it then. It looks at the
/// first records only; the first request for private media tells of the others.
pub(crate) fn of_private_media(folder: &Path, config: &Config) {
    if config.signing_keys.is_empty()
        && let Some(record) = private_record(folder)
    {
        tracing::warn!(
            "private media such as {} cannot be served without signing keys: set MILLPOND_SIGNING_KEYS or signing-keys \
             in --config",
            record.display(),
        );
    }
}

/// Most records that are looked at, and for how long: a start waits for no millions of them, nor for a slow disk.
const RECORDS: usize = 1000;
const LONGEST: Duration = Duration::from_millis(250);

/// A record of private media, by its path beneath the folder.
fn private_record(folder: &Path) -> Option<PathBuf> {
    let began = Instant::now();
    let folders = (0..=u8::MAX).map(|first| folder.join(format!("{first:02x}")));
    let entries = folders
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten();
    let records = entries.filter_map(|entry| record_path(&entry.ok()?.path()));
    records
        .take(RECORDS)
        .take_while(|_| began.elapsed() < LONGEST)
        .find(|path| is_private(&folder.join(path)) == Some(true))
}

/// The path of a record, where a file has the name of one.
fn record_path(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let id: ContentId = name.strip_suffix(".json")?.parse().ok()?;
    Some(id.record_path())
}

fn is_private(path: &Path) -> Option<bool> {
    let mut json = Vec::new();
    // A named pipe would wait for a writer.
    let is_file = fs::symlink_metadata(path).ok()?.is_file();
    let file = is_file.then(|| File::open(path).ok())??;
    file.take(RECORD_BYTES).read_to_end(&mut json).ok()?;
    Some(Record::parse(&json)?.access == Access::Private)
}
