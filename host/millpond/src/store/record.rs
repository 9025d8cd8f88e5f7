//! Reads records as they lie in a store, for the commands that change and verify it.

use millpond_format::{ContentId, RECORD_BYTES, Record};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// The record of an id, `None` where it is damaged. Bytes beyond [`RECORD_BYTES`] are not read, as by the server, so a
/// longer record is damaged.
///
/// # Errors
/// As the system's; [`io::ErrorKind::NotFound`] where there is no record.
pub(super) fn read_record(root: &Path, id: &ContentId) -> io::Result<Option<Record>> {
    let mut json = Vec::new();
    let file = open_regular(&root.join(id.record_path()))?;
    file.take(RECORD_BYTES).read_to_end(&mut json)?;
    Ok(Record::parse(&json))
}

/// Opens a regular file of a store. Opening a named pipe would wait for a writer, for ever.
///
/// # Errors
/// As the system's, and where it is no regular file.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    File::open(path)
}
