//! Folders: a page for browsers, and the same in JSON for others.

mod asset;
mod page;

pub(crate) use asset::asset;
pub(crate) use page::error_page;

use crate::imports::{Imports, StoreError};
use crate::message::{Request, Response};
use crate::negotiate;
use crate::settings::EffectiveSettings;
use crate::target_resource::FolderName;
use http::{StatusCode, header};
use millpond_format::listing::{Entry, EntryKind, ListOrder, ListQuery, Listing};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Serialize;
use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Number of entries on a page.
const PAGE_ENTRIES: u32 = 100;

/// Maximum bytes of the entries of a page. The host lifts 128 KiB at most. Only a folder of very long names reaches this.
const PAGE_BYTES: usize = 80 * 1024;

/// Returns the listing of a folder.
///
/// It is never stored by the host, since a folder has no version.
///
/// # Errors
/// The store's.
pub(crate) fn listing<I: Imports, S>(
    request: &Request<'_>,
    imports: &I,
    folder: &FolderName,
) -> Result<Response<S>, StoreError> {
    let (path, query) = request.path_and_query();
    let view = View::parse(query.unwrap_or_default());
    let listing = imports.list(folder.as_str(), &view.to_query())?;
    let (media_type, content) = match negotiate::prefers_html(request) {
        true => (
            "text/html; charset=utf-8",
            page::folder_page(folder, &listing, &view, request.random),
        ),
        false => ("application/json", json(path, folder, &listing, &view)),
    };
    let response = Response::new(StatusCode::OK)
        .with(header::CACHE_CONTROL, "no-cache")
        .with(header::VARY, "accept")
        .with_bytes(media_type, content);
    Ok(match negotiate::prefers_html(request) {
        true => response.with(
            header::CONTENT_SECURITY_POLICY,
            page::content_security_policy(request.random),
        ),
        false => response,
    })
}

/// Returns whether errors are pages for this request: for browsers, where folders are pages too.
pub(crate) fn prefers_page(request: &Request<'_>, settings: &EffectiveSettings) -> bool {
    settings.browse && negotiate::prefers_html(request)
}

/// Returns whether there is a folder.
///
/// # Errors
/// The store's, unless there is no such folder.
pub(crate) fn is_folder(imports: &impl Imports, folder: &FolderName) -> Result<bool, StoreError> {
    match imports.list(folder.as_str(), &ListQuery::default()) {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The part of a folder that a query asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct View {
    order: ListOrder,
    descending: bool,
    search: String,
    after: Option<Entry>,
}

/// Orders by the values of the parameter `sort`. A leading `-` reverses one.
const ORDERS: [(&str, ListOrder); 3] = [
    ("name", ListOrder::Name),
    ("modified", ListOrder::Modified),
    ("size", ListOrder::Length),
];

impl View {
    /// Parses a query. Unknown parameters and values count as absent.
    fn parse(query: &str) -> Self {
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

    fn to_query(&self) -> ListQuery {
        ListQuery {
            order: self.order,
            descending: self.descending,
            search: Some(self.search.clone()).filter(|search| !search.is_empty()),
            after: self.after.clone(),
            max: PAGE_ENTRIES,
        }
    }

    /// Value of `sort`.
    fn sort(&self) -> String {
        let order = ORDERS.iter().find(|(_, order)| *order == self.order);
        let reversed = if self.descending { "-" } else { "" };
        format!("{reversed}{}", order.map_or("", |(name, _)| name))
    }

    /// Returns the query of the page after an entry.
    fn query_after(&self, entry: &Entry) -> String {
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

fn encode(text: &str) -> impl Iterator<Item = &str> {
    utf8_percent_encode(text, RESERVED)
}

/// A reference to an entry, relative to its folder. `./` keeps a name with a colon from being a scheme.
fn reference(entry: &Entry) -> String {
    let mut reference = String::from("./");
    reference.extend(encode(&entry.name));
    if entry.kind == EntryKind::Folder {
        reference.push('/');
    }
    reference
}

fn time(entry: &Entry) -> Option<SystemTime> {
    /// Last second that RFC 3339 can represent: 9999-12-31T23:59:59Z.
    const LAST_SECOND: u64 = 253_402_300_799;
    let seconds = (entry.modified_ns? / 1_000_000_000).min(LAST_SECOND);
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// An entry in JSON.
#[derive(Serialize)]
struct JsonEntry<'a> {
    name: &'a str,
    /// `folder` or `file`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
    href: String,
}

impl<'a> JsonEntry<'a> {
    fn of(entry: &'a Entry) -> Self {
        let (kind, r#type, size) = match &entry.kind {
            EntryKind::Folder => ("folder", None, None),
            EntryKind::File { length, media_type } => {
                ("file", Some(media_type.as_str()), Some(*length))
            }
        };
        JsonEntry {
            name: &entry.name,
            kind,
            r#type,
            size,
            modified: time(entry).map(|time| humantime::format_rfc3339_seconds(time).to_string()),
            href: reference(entry),
        }
    }
}

/// Appends entries as long as they fit on a page. Returns the last one if more follow.
fn append_entries<'a>(
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

/// Returns a folder in JSON. References are relative to the folder's own.
fn json(path: &str, folder: &FolderName, listing: &Listing, view: &View) -> Vec<u8> {
    // Serialization of these types cannot fail: they have text keys and no maps.
    let text = |text: &str| serde_json::to_string(text).unwrap_or_default();
    let mut content = Vec::with_capacity(listing.entries.len() * 256 + 1024);
    content.extend_from_slice(b"{\"folder\":");
    content.extend_from_slice(text(folder.as_str()).as_bytes());
    content.extend_from_slice(format!(",\"total\":{},\"entries\":[", listing.total).as_bytes());
    let mut is_first = true;
    let last = append_entries(&mut content, listing, |content, entry| {
        if !std::mem::take(&mut is_first) {
            content.push(b',');
        }
        content.extend(serde_json::to_vec(&JsonEntry::of(entry)).unwrap_or_default());
    });
    content.push(b']');
    if let Some(last) = last {
        let next = format!("{path}{}", view.query_after(last));
        content.extend_from_slice(b",\"next\":");
        content.extend_from_slice(text(&next).as_bytes());
    }
    content.extend_from_slice(b"}\n");
    content
}

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
        for query in ["", "sort=", "sort=none", "sort=--name", "after=x", "after=x.1.a", "after=d.x.a", "q=+"] {
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

    #[test]
    fn a_page_of_very_long_names_ends_early() {
        let listing = Listing {
            entries: (0..100).map(|n| film(&format!("{n:03}{}", "\"".repeat(252)))).collect(),
            total: 100,
            has_more: false,
        };
        let view = View::default();
        let json = json("/media/", &FolderName::default(), &listing, &view);
        assert!(json.len() < PAGE_BYTES + 4096, "{}", json.len());
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let entries = json["entries"].as_array().unwrap();
        assert!(entries.len() > 10 && entries.len() < 100, "{}", entries.len());
        let last = entries.last().unwrap()["name"].as_str().unwrap();
        let next = json["next"].as_str().unwrap();
        assert_eq!(View::parse(next.split_once('?').unwrap().1).after.unwrap().name, last);
    }
}
