//! Reading of records in a store, for the commands that change and verify it.

use millpond_format::{ContentId, RECORD_BYTES, Record};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Returns the record of an id. `None` if it is unreadable. A record longer than [`RECORD_BYTES`] is unreadable, for
/// the server too.
///
/// # Errors
/// The system's; [`io::ErrorKind::NotFound`] if there is no record.
pub(super) fn read_record(root: &Path, id: &ContentId) -> io::Result<Option<Record>> {
    let mut json = Vec::new();
    let file = open_regular(&root.join(id.record_path()))?;
    file.take(RECORD_BYTES).read_to_end(&mut json)?;
    Ok(Record::parse(&json))
}

/// Opens a regular file of a store. Opening a named pipe would wait for a writer.
///
/// # Errors
/// The system's, or the path is not a regular file.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    File::open(path)
}
