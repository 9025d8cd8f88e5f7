//! Pages in HTML: a folder, and an error.

use super::asset;
use super::entries::{append_entries, reference, time};
use super::view::{ORDERS, View};
use crate::message::Response;
use crate::target_resource::FolderName;
use http::{StatusCode, header};
use millpond_format::html::Escaped;
use millpond_format::listing::{Entry, EntryKind, Listing};
use std::fmt::{self, Display, Write};

/// Returns the page of a folder.
///
/// With `has_upload` it has a form for uploads to the folder. `nonce` is unpredictable. It lets the page's own script run and no other (CSP Level 3, section 2.3.1).
pub(super) fn folder_page(
    folder: &FolderName,
    listing: &Listing,
    view: &View,
    has_upload: bool,
    nonce: u64,
) -> Vec<u8> {
    let mut page = String::with_capacity(listing.entries.len() * 448 + 3 * 1024);
    begin(
        &mut page,
        folder.as_str().rsplit('/').next().unwrap_or_default(),
    );
    page.push_str("<header><h1>");
    crumbs(&mut page, folder);
    page.push_str("</h1>");
    controls(&mut page, view);
    page.push_str("</header><main>");
    if has_upload {
        page.push_str(UPLOAD_FORM);
    }
    let mut page = page.into_bytes();
    let last = match listing.entries.is_empty() {
        true => {
            let text = match view.search.is_empty() && view.after.is_none() {
                true => "This folder is empty.",
                false => "Nothing here matches.",
            };
            page.extend_from_slice(format!("<p>{text}</p>").as_bytes());
            None
        }
        false => {
            page.extend_from_slice(b"<ul>");
            let last = append_entries(&mut page, listing, |page, entry| {
                page.extend_from_slice(Card(entry).to_string().as_bytes());
            });
            page.extend_from_slice(b"</ul>");
            last
        }
    };
    let total = listing.total;
    let entries = if total == 1 { "entry" } else { "entries" };
    let mut end = format!("</main><footer><span>{total} {entries}</span>");
    if view.after.is_some() {
        let first = View {
            after: None,
            ..view.clone()
        };
        let _ = write!(
            end,
            "<a class=\"b\" href=\"{}\">First page</a>",
            Escaped(&first.query())
        );
    }
    if let Some(last) = last {
        let next = view.query_after(last);
        let _ = write!(
            end,
            "<a class=\"b\" rel=\"next\" href=\"{}\">Next page</a>",
            Escaped(&next)
        );
    }
    let _ = writeln!(
        end,
        "</footer><script defer nonce=\"{nonce:016x}\" src=\"{}\"></script></html>",
        asset::JS_PATH
    );
    page.extend_from_slice(end.as_bytes());
    page
}

/// Form for uploads. The token comes first, since the host reads a form in order and nothing is stored without it.
const UPLOAD_FORM: &str = "<details class=\"u\"><summary>Upload</summary>\
    <form method=\"post\" action=\"./\" enctype=\"multipart/form-data\">\
    <label>Token <input type=\"password\" name=\"token\" required autocomplete=\"current-password\"></label>\
    <label>Files <input type=\"file\" name=\"file\" required multiple></label>\
    <button>Upload</button></form></details>";

/// Returns the policy of a folder's page: media, style and the one script of its own origin (CSP Level 3).
pub(super) fn content_security_policy(nonce: u64) -> String {
    format!(
        "default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'self'; \
         script-src 'nonce-{nonce:016x}'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    )
}

/// Makes the page of an error. No cache may store it, as [`Response::error`].
pub(crate) fn error_page<S>(status: StatusCode, message: &str) -> Response<S> {
    let mut page = String::with_capacity(768);
    begin(&mut page, message);
    let _ = writeln!(
        page,
        "<main class=\"e\"><h1><b>{}</b> {}</h1><p><a class=\"b\" href=\"./\">Up</a></p></main></html>",
        status.as_u16(),
        Escaped(message)
    );
    Response::new(status)
        .with(header::CACHE_CONTROL, "no-store")
        .with(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; img-src data:; style-src 'self'; base-uri 'none'",
        )
        .with_bytes("text/html; charset=utf-8", page)
}

fn begin(page: &mut String, title: &str) {
    let title = if title.is_empty() { "Media" } else { title };
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{}</title><link rel=\"icon\" href=\"data:,\">\
         <link rel=\"stylesheet\" href=\"{}\">",
        Escaped(title),
        asset::CSS_PATH
    );
}

/// Writes the way from the root to a folder, as relative links.
fn crumbs(page: &mut String, folder: &FolderName) {
    let segments: Vec<&str> = match folder.as_str() {
        "" => Vec::new(),
        path => path.split('/').collect(),
    };
    let names = std::iter::once("Media").chain(segments.iter().copied());
    for (index, name) in names.enumerate() {
        let above = segments.len() - index;
        if index > 0 {
            page.push_str(" / ");
        }
        let _ = match above {
            0 => write!(page, "<span aria-current=\"page\">{}</span>", Escaped(name)),
            _ => write!(
                page,
                "<a href=\"{}\">{}</a>",
                "../".repeat(above),
                Escaped(name)
            ),
        };
    }
}

/// Writes the form for search and order.
fn controls(page: &mut String, view: &View) {
    /// Orders by the value of `sort`.
    const LABELS: [(&str, &str); 6] = [
        ("name", "Name A–Z"),
        ("-name", "Name Z–A"),
        ("-modified", "Newest first"),
        ("modified", "Oldest first"),
        ("-size", "Largest first"),
        ("size", "Smallest first"),
    ];
    const _: () = assert!(LABELS.len() == 2 * ORDERS.len());
    let _ = write!(
        page,
        "<form role=\"search\"><input type=\"search\" name=\"q\" aria-label=\"Search this folder\" \
         placeholder=\"Search this folder\" value=\"{}\"><select name=\"sort\" aria-label=\"Order\">",
        Escaped(&view.search)
    );
    let sort = view.sort();
    for (value, label) in LABELS {
        let selected = if value == sort { " selected" } else { "" };
        let _ = write!(page, "<option value=\"{value}\"{selected}>{label}</option>");
    }
    page.push_str("</select><button>Search</button></form>");
}

/// One entry of a folder's page.
struct Card<'a>(&'a Entry);

impl Display for Card<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = self.0;
        let (href, name) = (reference(entry), Escaped(&entry.name));
        let href = Escaped(&href);
        match &entry.kind {
            EntryKind::Folder => write!(
                f,
                "<li class=\"d\"><a href=\"{href}\"><span class=\"t\"></span><span class=\"n\">{name}</span></a>\
                 <small>folder</small>"
            )?,
            EntryKind::File { length, media_type } => {
                write!(
                    f,
                    "<li data-type=\"{}\" data-name=\"{name}\"><a href=\"{href}\"><span class=\"t\">",
                    Escaped(media_type)
                )?;
                let extension = entry
                    .name
                    .rsplit_once('.')
                    .map_or("", |(_, extension)| extension);
                if !extension.is_empty() && extension.len() <= 5 {
                    Escaped(&extension.to_uppercase()).fmt(f)?;
                }
                match media_type.split('/').next() {
                    Some("image") => write!(
                        f,
                        "<img src=\"{href}\" alt=\"\" loading=\"lazy\" decoding=\"async\">"
                    )?,
                    Some("video") => write!(
                        f,
                        "<video data-src=\"{href}#t=0.1\" preload=\"none\" muted playsinline tabindex=\"-1\"></video>"
                    )?,
                    _ => {}
                }
                write!(
                    f,
                    "</span><span class=\"n\">{name}</span></a><small>{} · {}</small>",
                    Size(*length),
                    Escaped(media_type)
                )?;
            }
        }
        if let Some(time) = time(entry) {
            let time = humantime::format_rfc3339_seconds(time).to_string();
            // Without the script, the time is shown in UTC.
            let shown = time.replace('T', " ");
            write!(f, "<small><time datetime=\"{time}\">{shown}</time></small>")?;
        }
        f.write_str("</li>")
    }
}

/// A number of bytes, for people: `1.2 MB`.
struct Size(u64);

impl Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
        if self.0 < 1000 {
            return write!(f, "{} B", self.0);
        }
        let mut tenths = self.0 / 100;
        let mut unit = 0;
        while tenths >= 10_000 {
            tenths /= 1000;
            unit += 1;
        }
        let unit = UNITS.get(unit).copied().unwrap_or_default();
        match tenths {
            100.. => write!(f, "{} {unit}", tenths / 10),
            _ => write!(f, "{}.{} {unit}", tenths / 10, tenths % 10),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(name: &str, media_type: &str) -> Entry {
        Entry {
            name: name.into(),
            modified_ns: Some(784_111_777_000_000_001),
            kind: EntryKind::File {
                length: 1_234_567,
                media_type: media_type.into(),
            },
        }
    }

    fn page_of(entries: Vec<Entry>, view: &View) -> String {
        page_with(entries, view, false)
    }

    fn page_with(entries: Vec<Entry>, view: &View, has_upload: bool) -> String {
        let total = entries.len() as u64;
        let listing = Listing {
            entries,
            total,
            has_more: false,
        };
        let page = folder_page(&FolderName::default(), &listing, view, has_upload, 1);
        String::from_utf8(page).unwrap()
    }

    #[test]
    fn names_with_markup_are_text() {
        let name = "<script>alert(1)</script>\"'&.mp4";
        let view = View {
            search: "\"><img src=x>".into(),
            ..View::default()
        };
        let page = page_of(vec![file(name, "video/mp4")], &view);
        assert!(
            !page.contains("<script>") && !page.contains("<img src=x"),
            "{page}"
        );
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;.mp4"));
        assert_eq!(page.matches("<script").count(), 1);
    }

    #[test]
    fn the_form_for_uploads_is_there_if_the_host_accepts_them() {
        let page = page_with(Vec::new(), &View::default(), true);
        assert!(page.contains("enctype=\"multipart/form-data\""), "{page}");
        // The host refuses a file that comes before the token.
        assert!(page.find("name=\"token\"") < page.find("type=\"file\""));
        let page = page_of(Vec::new(), &View::default());
        assert!(!page.contains("method=\"post\""), "{page}");
    }

    #[test]
    fn pictures_and_films_have_thumbnails() {
        let entries = vec![
            file("a b.png", "image/png"),
            file("javascript:x.mp4", "video/mp4"),
            file("c.pdf", "application/pdf"),
        ];
        let page = page_of(entries, &View::default());
        assert!(page.contains("<img src=\"./a%20b.png\" alt=\"\" loading=\"lazy\""));
        assert!(page.contains("data-src=\"./javascript%3Ax.mp4#t=0.1\""));
        assert!(page.contains(">PDF<") && page.contains("1.2 MB · application/pdf"));
        assert!(page.contains("datetime=\"1994-11-06T08:49:37Z\""));
    }

    #[test]
    fn sizes_are_for_people() {
        for (bytes, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (99_949, "99 kB"),
            (999_999, "999 kB"),
            (1_000_000, "1.0 MB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(Size(bytes).to_string(), expected);
        }
    }
}
