//! Folders: a page for browsers, and the same in JSON for others.

mod asset;
mod entries;
mod page;
mod view;

pub(crate) use asset::asset;
pub(crate) use page::error_page;

use crate::imports::{Imports, StoreError};
use crate::message::{Request, Response};
use crate::negotiate;
use crate::settings::EffectiveSettings;
use crate::target_resource::FolderName;
use entries::{append_entries, reference, time};
use http::{StatusCode, header};
use millpond_format::listing::{Entry, EntryKind, ListQuery, Listing};
use serde::Serialize;
use view::View;

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
    settings: &EffectiveSettings,
) -> Result<Response<S>, StoreError> {
    let (path, query) = request.path_and_query();
    let view = View::parse(query.unwrap_or_default());
    let listing = imports.list(folder.as_str(), &view.to_query())?;
    let (media_type, content) = match negotiate::prefers_html(request) {
        true => (
            "text/html; charset=utf-8",
            page::folder_page(folder, &listing, &view, settings.uploads, request.random),
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
    use entries::PAGE_BYTES;

    fn film(name: &str) -> Entry {
        Entry {
            name: name.into(),
            modified_ns: Some(784_111_777_000_000_001),
            kind: EntryKind::File {
                length: 1_234_567,
                media_type: "video/mp4".into(),
            },
        }
    }

    #[test]
    fn a_page_of_very_long_names_ends_early() {
        let listing = Listing {
            entries: (0..100)
                .map(|n| film(&format!("{n:03}{}", "\"".repeat(252))))
                .collect(),
            total: 100,
            has_more: false,
        };
        let view = View::default();
        let json = json("/media/", &FolderName::default(), &listing, &view);
        assert!(json.len() < PAGE_BYTES + 4096, "{}", json.len());
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let entries = json["entries"].as_array().unwrap();
        assert!(
            entries.len() > 10 && entries.len() < 100,
            "{}",
            entries.len()
        );
        let last = entries.last().unwrap()["name"].as_str().unwrap();
        let next = json["next"].as_str().unwrap();
        assert_eq!(
            View::parse(next.split_once('?').unwrap().1)
                .after
                .unwrap()
                .name,
            last
        );
    }
}
