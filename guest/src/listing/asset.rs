//! The style sheet and the script of folders' pages.

use crate::conditions::{self, EntityTag, Evaluation, Validators};
use crate::message::{Request, Response};
use crate::target_resource::Asset;
use http::{StatusCode, header};

/// Target of the style sheet.
pub(super) const CSS_PATH: &str = "/api/gallery.css";

/// Target of the script.
pub(super) const JS_PATH: &str = "/api/gallery.js";

/// The files in gzip, as `cargo xtask guest` makes them. They take little of the component's memory so, and every
/// browser decodes them.
const CSS: &[u8] = include_bytes!("gallery.css.gz");
const JS: &[u8] = include_bytes!("gallery.js.gz");

/// Returns a file that the pages of folders need, or 304. `None` if a condition of the request fails.
///
/// It is sent in gzip to every client: only browsers need it.
pub(crate) fn asset<S>(request: &Request<'_>, asset: Asset) -> Option<Response<S>> {
    let (media_type, gzip) = match asset {
        Asset::Css => ("text/css; charset=utf-8", CSS),
        Asset::Js => ("text/javascript; charset=utf-8", JS),
    };
    // A file in gzip ends with the checksum and the length of its content (RFC 1952 section 2.3.1).
    let end: String = gzip[gzip.len() - 8..]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let validators = Validators {
        etag: EntityTag::strong(&end),
        last_modified: None,
    };
    let response = |status| {
        Response::new(status)
            .with(header::ETAG, validators.etag.field_value())
            .with(header::CACHE_CONTROL, "public, no-cache")
    };
    match conditions::evaluate(request, &validators) {
        Evaluation::PreconditionFailed => None,
        Evaluation::NotModified => Some(response(StatusCode::NOT_MODIFIED)),
        Evaluation::Proceed { .. } => Some(
            response(StatusCode::OK)
                .with(header::CONTENT_ENCODING, "gzip")
                .with_bytes(media_type, gzip),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Read;

    #[test]
    fn the_compressed_files_are_the_sources() {
        for (gzip, source) in [
            (CSS, include_str!("gallery.css")),
            (JS, include_str!("gallery.js")),
        ] {
            let mut text = String::new();
            flate2::read::GzDecoder::new(gzip)
                .read_to_string(&mut text)
                .unwrap();
            assert!(text == source, "`cargo xtask guest` compresses them anew");
        }
    }
}
