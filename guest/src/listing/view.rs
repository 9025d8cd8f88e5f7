//! Queries of a folder's target: order, search and place.

use millpond_format::listing::{Entry, EntryKind, ListOrder, ListQuery};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;

/// The part of a folder that a query asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct View {
    /// Order of the entries.
    pub(super) order: ListOrder,
    /// Whether the order is reversed.
    pub(super) descending: bool,
    /// Text that names contain; empty for all entries.
    pub(super) search: String,
    /// Last entry of the page before.
    pub(super) after: Option<Entry>,
}

/// Orders by the values of the parameter `sort`. A leading `-` reverses one.
pub(super) const ORDERS: [(&str, ListOrder); 3] = [
    ("name", ListOrder::Name),
    ("modified", ListOrder::Modified),
    ("size", ListOrder::Length),
];

impl View {
    /// Parses a query. Unknown parameters and values count as absent.
    pub(super) fn parse(query: &str) -> Self {
        let mut view = View::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value);
            match name {
                "sort" => {
                    let order = value.strip_prefix('-').unwrap_or(&value);
                    if let Some((_, order)) = ORDERS.iter().find(|(name, _)| *name == order) {
                        view.order = *order;
                        view.descending = value.starts_with('-');
                    }
                }
                "q" => view.search = value.trim().to_owned(),
                "after" => view.after = parse_cursor(&value),
                _ => {}
            }
        }
        view
    }

    pub(super) fn to_query(&self) -> ListQuery {
        ListQuery {
            order: self.order,
            descending: self.descending,
            search: Some(self.search.clone()).filter(|search| !search.is_empty()),
            after: self.after.clone(),
            max: PAGE_ENTRIES,
        }
    }

    /// Value of `sort`.
    pub(super) fn sort(&self) -> String {
        let order = ORDERS.iter().find(|(_, order)| *order == self.order);
        let reversed = if self.descending { "-" } else { "" };
        format!("{reversed}{}", order.map_or("", |(name, _)| name))
    }

    /// Query of the first page.
    pub(super) fn query(&self) -> String {
        let mut query = format!("?sort={}", self.sort());
        if !self.search.is_empty() {
            query.push_str("&q=");
            query.extend(encode(&self.search));
        }
        query
    }

    /// Returns the query of the page after an entry.
    pub(super) fn query_after(&self, entry: &Entry) -> String {
        let mut query = String::new();
        let parameters = [
            ("sort", self.sort()),
            ("q", self.search.clone()),
            ("after", self.cursor(entry)),
        ];
        for (name, value) in parameters {
            if !value.is_empty() {
                query.push(if query.is_empty() { '?' } else { '&' });
                query.extend([name, "="]);
                query.extend(encode(&value));
            }
        }
        query
    }

    /// Returns the place of an entry in the order: its kind, the value that it is ordered by, and its name.
    fn cursor(&self, entry: &Entry) -> String {
        let (kind, length) = match &entry.kind {
            EntryKind::Folder => ('d', 0),
            EntryKind::File { length, .. } => ('f', *length),
        };
        let value = match self.order {
            ListOrder::Name => 0,
            ListOrder::Modified => entry.modified_ns.unwrap_or(0),
            ListOrder::Length => length,
        };
        format!("{kind}.{value}.{}", entry.name)
    }
}

fn parse_cursor(text: &str) -> Option<Entry> {
    let (kind, rest) = text.split_once('.')?;
    let (value, name) = rest.split_once('.')?;
    let value = value.parse().ok()?;
    Some(Entry {
        name: name.to_owned(),
        modified_ns: Some(value),
        kind: match kind {
            "d" => EntryKind::Folder,
            "f" => EntryKind::File {
                length: value,
                media_type: String::new(),
            },
            _ => return None,
        },
    })
}

/// Decodes a value of a form (URL Standard, section 5.1). Bytes that are not UTF-8 are replaced.
fn decode(value: &str) -> String {
    let spaced: Cow<'_, str> = match value.contains('+') {
        true => value.replace('+', " ").into(),
        false => value.into(),
    };
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// Characters other than the unreserved ones (RFC 3986 section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

pub(super) fn encode(text: &str) -> impl Iterator<Item = &str> {
    utf8_percent_encode(text, RESERVED)
}

/// Number of entries on a page.
const PAGE_ENTRIES: u32 = 100;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn entry(name: &str, kind: EntryKind) -> Entry {
        Entry {
            name: name.into(),
            modified_ns: Some(784_111_777_000_000_001),
            kind,
        }
    }

    fn film(name: &str) -> Entry {
        let kind = EntryKind::File {
            length: 1_234_567,
            media_type: "video/mp4".into(),
        };
        entry(name, kind)
    }

    #[test]
    fn what_a_query_asks_for() {
        let view = View::parse("sort=-modified&q=a+b%20c&unknown=1");
        assert_eq!(view.order, ListOrder::Modified);
        assert!(view.descending);
        assert_eq!(view.search, "a b c");
        for query in [
            "",
            "sort=",
            "sort=none",
            "sort=--name",
            "after=x",
            "after=x.1.a",
            "after=d.x.a",
            "q=+",
        ] {
            assert_eq!(View::parse(query), View::default(), "{query}");
        }
    }

    proptest! {
        #[test]
        fn a_link_to_the_next_page_says_where_it_begins(
            name in "\\PC{1,40}",
            is_folder: bool,
            order in 0..3_usize,
            descending: bool,
            search in "[a-zé&=+ %]{0,9}",
        ) {
            let view = View {
                order: ORDERS[order].1,
                descending,
                search: search.trim().to_owned(),
                after: None,
            };
            let last = if is_folder { entry(&name, EntryKind::Folder) } else { film(&name) };
            let query = view.query_after(&last);
            prop_assert!(query.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>'".contains(&byte)));
            let next = View::parse(&query[1..]);
            let after = next.after.clone().unwrap();
            prop_assert_eq!(next.cursor(&after), view.cursor(&last));
            prop_assert_eq!(after.name, last.name);
            prop_assert_eq!(View { after: None, ..next }, view);
        }

        #[test]
        fn no_query_panics(query in "[ -~]{0,60}") {
            let _ = View::parse(&query);
        }
    }
}
