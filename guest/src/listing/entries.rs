//! Entries of a page, in any format.

use super::view::encode;
use millpond_format::listing::{Entry, EntryKind, Listing};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Maximum bytes of the entries of a page. The host lifts 128 KiB at most. Only a folder of very long names reaches this.
pub(super) const PAGE_BYTES: usize = 80 * 1024;

/// Appends entries as long as they fit on a page. Returns the last one if more follow.
pub(super) fn append_entries<'a>(
    content: &mut Vec<u8>,
    listing: &'a Listing,
    mut append: impl FnMut(&mut Vec<u8>, &Entry),
) -> Option<&'a Entry> {
    let start = content.len();
    let mut last = None;
    for entry in &listing.entries {
        let before = content.len();
        append(content, entry);
        if content.len() - start > PAGE_BYTES {
            content.truncate(before);
            return last;
        }
        last = Some(entry);
    }
    last.filter(|_| listing.has_more)
}

/// A reference to an entry, relative to its folder. `./` keeps a name with a colon from being a scheme.
pub(super) fn reference(entry: &Entry) -> String {
    let mut reference = String::from("./");
    reference.extend(encode(&entry.name));
    if entry.kind == EntryKind::Folder {
        reference.push('/');
    }
    reference
}

/// Returns when an entry was modified. `None` if it is unknown.
pub(super) fn time(entry: &Entry) -> Option<SystemTime> {
    /// Last second that RFC 3339 can represent: 9999-12-31T23:59:59Z.
    const LAST_SECOND: u64 = 253_402_300_799;
    let seconds = (entry.modified_ns? / 1_000_000_000).min(LAST_SECOND);
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}
