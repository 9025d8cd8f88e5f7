//! Listing of a folder: the entries of one page, and their order.
//!
//! A store offers every entry of a folder to a [`PageSelector`]. It keeps one page of them, so that its memory does not
//! depend on the size of the folder.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// An entry of a folder: `record entry` of `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Last segment of its path.
    pub name: String,
    /// Time of the last modification, in nanoseconds since 1970.
    pub modified_ns: Option<u64>,
    /// Kind of the entry.
    pub kind: EntryKind,
}

/// Kind of an entry: `variant entry-kind` of `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder.
    Folder,
    /// A file.
    File {
        /// Length, in bytes.
        length: u64,
        /// Media type, by its name.
        media_type: String,
    },
}

/// Request for one page of a folder: `record list-query` of `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListQuery {
    /// Order of the entries.
    pub order: ListOrder,
    /// Whether the order is reversed. Folders come first nevertheless, and entries of equal time or length stay ordered by
    /// name.
    pub descending: bool,
    /// Text that names contain, in lower or upper case. None for all entries.
    pub search: Option<String>,
    /// Last entry of the page before. It need not exist any more.
    pub after: Option<Entry>,
    /// Maximum number of entries.
    pub max: u32,
}

/// Order of a listing: `enum list-order` of `wit/media-store.wit`. Entries that are equal in it are ordered by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListOrder {
    /// By name: its characters in lower case, as code points.
    #[default]
    Name,
    /// By time of the last modification, the oldest first.
    Modified,
    /// By length, the shortest first.
    Length,
}

/// One page of a folder: `record listing` of `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Entries in order, folders first.
    pub entries: Vec<Entry>,
    /// Number of entries of the folder that match, on all pages.
    pub total: u64,
    /// Whether more entries follow.
    pub has_more: bool,
}

/// Maximum number of entries on a page of any store.
pub const MAX_ENTRIES: u32 = 200;

/// Memory of an entry on a page, in bytes: its name twice, as it is and in lower case. Names have 255 bytes at most.
pub const ENTRY_BYTES: usize = size_of::<RankedEntry>() + 3 * 255;

/// Selects the entries of one page among those of a folder.
#[derive(Debug)]
pub struct PageSelector {
    order: ListOrder,
    descending: bool,
    search: Option<String>,
    after: Option<RankedEntry>,
    max: usize,
    /// The first `max + 1` entries so far, the last of them on top.
    first: BinaryHeap<RankedEntry>,
    total: u64,
}

impl PageSelector {
    /// Makes a selector for a query. A page has [`MAX_ENTRIES`] at most.
    #[must_use]
    pub fn new(query: &ListQuery) -> Self {
        let ranked = |entry: &Entry| RankedEntry::new(entry.clone(), query.order, query.descending);
        PageSelector {
            order: query.order,
            descending: query.descending,
            search: query.search.as_ref().map(|text| text.to_lowercase()),
            after: query.after.as_ref().map(ranked),
            max: query.max.min(MAX_ENTRIES) as usize,
            first: BinaryHeap::new(),
            total: 0,
        }
    }

    /// Returns whether a name matches the search.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let search = self.search.as_deref();
        search.is_none_or(|search| name.to_lowercase().contains(search))
    }

    /// Whether the order needs modification times and lengths. Otherwise a store can look them up for the page alone.
    #[must_use]
    pub fn needs_metadata(&self) -> bool {
        self.order != ListOrder::Name
    }

    /// Adds an entry whose name matches.
    pub fn offer(&mut self, entry: Entry) {
        self.total += 1;
        let entry = RankedEntry::new(entry, self.order, self.descending);
        if self.after.as_ref().is_some_and(|after| entry <= *after) {
            return;
        }
        if self.first.len() <= self.max {
            self.first.push(entry);
        } else if let Some(mut last) = self.first.peek_mut()
            && entry < *last
        {
            *last = entry;
        }
    }

    /// Returns the page.
    #[must_use]
    pub fn into_listing(self) -> Listing {
        let has_more = self.first.len() > self.max;
        let entries = self.first.into_sorted_vec().into_iter();
        Listing {
            entries: entries.take(self.max).map(|ranked| ranked.entry).collect(),
            total: self.total,
            has_more,
        }
    }
}

/// An entry with its place in the order.
#[derive(Debug)]
struct RankedEntry {
    entry: Entry,
    value: u64,
    folded_name: String,
    reverses_values: bool,
    reverses_names: bool,
}

impl RankedEntry {
    fn new(entry: Entry, order: ListOrder, descending: bool) -> Self {
        let value = match (order, &entry.kind) {
            (ListOrder::Name, _) | (ListOrder::Length, EntryKind::Folder) => 0,
            (ListOrder::Modified, _) => entry.modified_ns.unwrap_or(0),
            (ListOrder::Length, EntryKind::File { length, .. }) => *length,
        };
        RankedEntry {
            value,
            folded_name: entry.name.to_lowercase(),
            reverses_values: descending,
            reverses_names: descending && order == ListOrder::Name,
            entry,
        }
    }

    fn is_file(&self) -> bool {
        self.entry.kind != EntryKind::Folder
    }
}

impl Ord for RankedEntry {
    fn cmp(&self, other: &Self) -> Ordering {
        let reversed_if = |is_reversed: bool, ordering: Ordering| match is_reversed {
            true => ordering.reverse(),
            false => ordering,
        };
        let by_kind = self.is_file().cmp(&other.is_file());
        let by_value = self.value.cmp(&other.value);
        let by_name = self.folded_name.cmp(&other.folded_name);
        let by_name = by_name.then_with(|| self.entry.name.cmp(&other.entry.name));
        by_kind
            .then(reversed_if(self.reverses_values, by_value))
            .then(reversed_if(self.reverses_names, by_name))
    }
}

impl PartialOrd for RankedEntry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for RankedEntry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for RankedEntry {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn file(name: &str, length: u64, modified_ns: u64) -> Entry {
        Entry {
            name: name.into(),
            modified_ns: Some(modified_ns),
            kind: EntryKind::File {
                length,
                media_type: "image/gif".into(),
            },
        }
    }

    fn folder(name: &str) -> Entry {
        Entry {
            name: name.into(),
            modified_ns: Some(5),
            kind: EntryKind::Folder,
        }
    }

    fn list(entries: &[Entry], query: &ListQuery) -> Listing {
        let mut selector = PageSelector::new(query);
        for entry in entries {
            if selector.matches(&entry.name) {
                selector.offer(entry.clone());
            }
        }
        selector.into_listing()
    }

    fn names(listing: &Listing) -> Vec<&str> {
        let entries = listing.entries.iter();
        entries.map(|entry| entry.name.as_str()).collect()
    }

    #[test]
    fn folders_come_first_in_every_order() {
        let all = [
            file("b", 1, 3),
            file("A", 3, 2),
            folder("z"),
            file("c", 2, 1),
            folder("Y"),
        ];
        for (order, descending, expected) in [
            (ListOrder::Name, false, ["Y", "z", "A", "b", "c"]),
            (ListOrder::Name, true, ["z", "Y", "c", "b", "A"]),
            (ListOrder::Length, false, ["Y", "z", "b", "c", "A"]),
            (ListOrder::Modified, true, ["Y", "z", "b", "A", "c"]),
            (ListOrder::Length, true, ["Y", "z", "A", "c", "b"]),
        ] {
            let query = ListQuery {
                order,
                descending,
                max: 9,
                ..ListQuery::default()
            };
            let listing = list(&all, &query);
            assert_eq!(names(&listing), expected, "{query:?}");
            assert_eq!((listing.total, listing.has_more), (5, false));
        }
    }

    #[test]
    fn a_search_ignores_case() {
        let all = [file("Straße.gif", 1, 1), file("weg.gif", 1, 1)];
        let query = |search: &str| ListQuery {
            search: Some(search.into()),
            max: 9,
            ..ListQuery::default()
        };
        assert_eq!(names(&list(&all, &query("STRAßE"))), ["Straße.gif"]);
        assert_eq!(list(&all, &query("gif")).total, 2);
        assert_eq!(list(&all, &query("png")), Listing::default());
    }

    proptest! {
        #[test]
        fn pages_together_are_the_folder(
            entries in proptest::collection::btree_map("[a-cA-C]{1,3}", (any::<bool>(), 0..4_u64, 0..4_u64), 0..40),
            order in 0..3_u8,
            descending: bool,
            max in 1..7_u32,
        ) {
            let entries: Vec<Entry> = entries.into_iter().map(|(name, (is_folder, length, modified))| {
                if is_folder { folder(&name) } else { file(&name, length, modified) }
            }).collect();
            let order = [ListOrder::Name, ListOrder::Modified, ListOrder::Length][usize::from(order)];
            let mut query = ListQuery { order, descending, max: MAX_ENTRIES, ..ListQuery::default() };
            let whole = list(&entries, &query);
            prop_assert_eq!(whole.entries.len(), entries.len());
            query.max = max;
            let mut seen = Vec::new();
            loop {
                let page = list(&entries, &query);
                prop_assert!(page.entries.len() <= max as usize);
                prop_assert_eq!(page.total, entries.len() as u64);
                seen.extend(page.entries);
                query.after = seen.last().cloned();
                if !page.has_more {
                    break;
                }
            }
            prop_assert_eq!(seen, whole.entries);
        }
    }
}
