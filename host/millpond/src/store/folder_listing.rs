//! Reads the entries of a folder for one page of its listing.

use super::beneath_dir::{BeneathDir, EntryMetadata};
use cap_std::fs::DirEntry;
use millpond_format::listing::{Entry, EntryKind, ListOrder, ListQuery, Listing, PageSelector};
use millpond_format::{names, timestamp_ns};
use std::io;
use std::path::Path;

/// Maximum number of entries that are read of one folder. Reading them takes a second.
const MAX_READ: usize = 1_000_000;

/// A way to get the metadata of an entry, by its path.
pub(super) type MetadataOf<'a> = &'a dyn Fn(&Path) -> Option<EntryMetadata>;

/// Returns one page of a folder's listing. Blocks on the folder's file system.
///
/// It leaves out hidden entries, entries of the content store, and names that are not UTF-8. It leaves out devices too, and
/// links that lead out of the folder or to a file system that may not answer.
///
/// # Errors
/// The system's, and one for a folder of more than [`MAX_READ`] entries.
pub(super) fn list(
    root: &BeneathDir,
    folder: &str,
    query: &ListQuery,
    metadata_of: MetadataOf<'_>,
) -> io::Result<Listing> {
    let entries = root.read_dir(Path::new(folder))?;
    if query.max == 0 {
        return Ok(Listing::default());
    }
    let mut selector = PageSelector::new(query);
    for (index, found) in entries.enumerate() {
        if index == MAX_READ {
            return Err(io::Error::other(format!(
                "a folder has more than {MAX_READ} entries: {folder}"
            )));
        }
        let found = found?;
        let file_name = found.file_name();
        let Some(name) = file_name.to_str().filter(|name| selector.matches(name)) else {
            continue;
        };
        let path = join(folder, name);
        if !names::is_served(&path) {
            continue;
        }
        let kind = match selector.needs_metadata() {
            true => None,
            false => kind_without_metadata(&found),
        };
        let entry = match kind {
            Some(kind) => Entry {
                name: name.to_owned(),
                modified_ns: None,
                kind,
            },
            None => match metadata_of(Path::new(&path)) {
                Some(metadata) => entry_of(name, metadata),
                None => continue,
            },
        };
        if entry.kind == EntryKind::Folder && has_content(root, name, &path) {
            continue;
        }
        selector.offer(entry);
    }
    let mut listing = selector.into_listing();
    if query.order == ListOrder::Name {
        for entry in &mut listing.entries {
            // An entry that was removed meanwhile stays as it was found.
            if let Some(metadata) = metadata_of(Path::new(&join(folder, &entry.name))) {
                *entry = entry_of(&entry.name, metadata);
            }
        }
    }
    Ok(listing)
}

/// Returns the kind of an entry if the folder itself tells it. A file's length is filled in later.
fn kind_without_metadata(found: &DirEntry) -> Option<EntryKind> {
    let file_type = found.file_type().ok()?;
    match (file_type.is_dir(), file_type.is_file()) {
        (true, _) => Some(EntryKind::Folder),
        (_, true) => Some(EntryKind::File {
            length: 0,
            media_type: String::new(),
        }),
        // A symbolic link, or a file system that does not tell.
        _ => None,
    }
}

fn entry_of(name: &str, metadata: EntryMetadata) -> Entry {
    Entry {
        modified_ns: metadata.modified.and_then(timestamp_ns),
        kind: match metadata.is_folder {
            true => EntryKind::Folder,
            false => EntryKind::File {
                length: metadata.length,
                media_type: names::media_type(name).to_owned(),
            },
        },
        name: name.to_owned(),
    }
}

/// Returns whether a folder belongs to the content store, by its name and its first entries.
fn has_content(root: &BeneathDir, name: &str, path: &str) -> bool {
    const FIRST: usize = 4;
    if !names::may_be_content_folder(name) || root.local_metadata(Path::new(path)).is_none() {
        return false;
    }
    let Ok(entries) = root.read_dir(Path::new(path)) else {
        return false;
    };
    let mut first = entries.take(FIRST).flatten();
    first.any(|entry| {
        let file = entry.file_name();
        file.to_str()
            .is_some_and(|file| names::is_content(name, file))
    })
}

fn join(folder: &str, name: &str) -> String {
    match folder {
        "" => name.to_owned(),
        _ => format!("{folder}/{name}"),
    }
}
