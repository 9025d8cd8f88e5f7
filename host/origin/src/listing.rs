//! Listing of a folder at an origin.

use crate::fetch::FetchError;
use crate::origin::Origin;
use millpond::store::{Entry, EntryKind, ListQuery, Listing, OpenError};
use millpond_format::listing::{ENTRY_BYTES, MAX_ENTRIES, PageSelector};
use millpond_format::{names, timestamp_ns};
use millpond_ledger::{Kind, LedgerHandle};
use std::io;

/// Maximum number of requests for one listing. Each returns up to a thousand entries, in some tens of milliseconds.
const LIST_REQUESTS: usize = 100;

/// Number of entries that a request asks for: the maximum of S3.
const REQUEST_ENTRIES: usize = 1000;

/// Memory of a response with that many entries, in bytes. A key has a kilobyte at most.
const RESPONSE_BYTES: usize = 256 * 1024;

/// Returns one page of a folder's listing. It leaves out hidden entries and entries of the content store.
///
/// # Errors
/// [`OpenError::NotFound`] if the folder is empty, or the origin lists nothing. [`OpenError::Failed`] for a folder of more
/// entries than [`LIST_REQUESTS`] return.
pub(crate) async fn list(
    origin: &Origin,
    folder: &str,
    query: &ListQuery,
    ledger: &LedgerHandle,
) -> Result<Listing, OpenError> {
    let entries = query.max.min(MAX_ENTRIES) as usize;
    let bytes = RESPONSE_BYTES + (entries + 1) * ENTRY_BYTES;
    let _page = ledger.charge(Kind::Buffers, bytes)?;
    let mut selector = PageSelector::new(query);
    let mut next = None;
    let mut is_found = folder.is_empty();
    for _ in 0..LIST_REQUESTS {
        let max = match query.max {
            0 => 1,
            _ => REQUEST_ENTRIES,
        };
        let page = origin.list(folder, next.take(), max).await;
        let page = page.map_err(open_error)?;
        is_found |= !page.folders.is_empty() || !page.objects.is_empty();
        if query.max == 0 {
            return is_found.then(Listing::default).ok_or(OpenError::NotFound);
        }
        for name in page.folders {
            if may_be_listed(folder, &name) && selector.matches(&name) && !is_content(folder, &name)
            {
                selector.offer(Entry {
                    name,
                    modified_ns: None,
                    kind: EntryKind::Folder,
                });
            }
        }
        for object in page.objects {
            if may_be_listed(folder, &object.name) && selector.matches(&object.name) {
                selector.offer(Entry {
                    modified_ns: object.modified.and_then(timestamp_ns),
                    kind: EntryKind::File {
                        length: object.length,
                        media_type: names::media_type(&object.name).to_owned(),
                    },
                    name: object.name,
                });
            }
        }
        match page.next {
            Some(token) => next = Some(token),
            None if is_found => return Ok(selector.into_listing()),
            None => return Err(OpenError::NotFound),
        }
    }
    let most = LIST_REQUESTS * REQUEST_ENTRIES;
    Err(OpenError::Failed(io::Error::other(format!(
        "a folder has more than {most} entries: {folder}"
    ))))
}

/// Whether a folder of the root holds media by content.
fn is_content(folder: &str, name: &str) -> bool {
    folder.is_empty() && names::may_be_content_folder(name)
}

fn may_be_listed(folder: &str, name: &str) -> bool {
    match folder {
        "" => names::is_served(name),
        _ => names::is_served(&format!("{folder}/{name}")),
    }
}

fn open_error(error: FetchError) -> OpenError {
    match error {
        FetchError::NotFound | FetchError::Unsupported => OpenError::NotFound,
        FetchError::Unavailable(_) => OpenError::Busy(io::Error::other(error)),
        _ => OpenError::Failed(io::Error::other(error)),
    }
}
