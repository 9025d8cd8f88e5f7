//! Writes a report of the current state to a file, for a process that misbehaves and must keep running.

use super::figures::Memory;
use millpond::Millpond;
use millpond::ledger::heap;
use millpond::monitor::Monitor;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Maximum live requests in a report.
const REQUESTS: usize = 100_000;

/// Writes a report into a folder, and returns its path. The file name contains process id and time. A reader never sees
/// a partial file, since the file gets its name last.
///
/// # Errors
/// When the folder cannot be written to.
pub fn write_report(millpond: &Millpond, watch: &Monitor, folder: &Path) -> io::Result<PathBuf> {
    let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let report = serde_json::json!({
        "time": now,
        "process": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "memory": Memory::of(millpond, &watch.last()),
        "requests": millpond.registry().live_requests(REQUESTS),
        "allocator": heap::installed().map(heap::Heap::report),
    });
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer_pretty(&mut file, &report)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    let name = format!(
        "millpond-{}-{}.json",
        std::process::id(),
        now.replace(':', "-")
    );
    let path = folder.join(name);
    file.persist(&path)?;
    Ok(path)
}
