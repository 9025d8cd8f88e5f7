//! Which files are served by their name, as what, and which files beside them hold the same in another form.

use crate::content::ContentId;

/// Whether a path may name a file. Hidden files are none of a visitor's, and what lies in the content store
/// is had by its id alone, under the rules that its record sets.
#[must_use]
pub fn is_served(name: &str) -> bool {
    let mut segments = name.split('/');
    let is_plain = |segment: &str| {
        !segment.is_empty()
            && !segment.starts_with('.')
            && !segment
                .chars()
                .any(|c| c.is_control() || matches!(c, '\\' | ':'))
    };
    if !segments.clone().all(is_plain) {
        return false;
    }
    let in_content_store = match (segments.next(), segments.next()) {
        (Some(folder), Some(file)) => {
            let id = file.get(..64).unwrap_or_default();
            id.parse::<ContentId>().is_ok() && id.starts_with(folder)
        }
        _ => false,
    };
    !in_content_store
}

/// The media type of a named file, by its extension.
#[must_use]
pub fn media_type(name: &str) -> &'static str {
    mime_guess::from_path(name)
        .first_raw()
        .unwrap_or("application/octet-stream")
}

/// A file beside another that holds the same in another form: `logo.svg.br` of `logo.svg`, `pond.png.avif` of
/// `pond.png`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    /// Its path beneath the root.
    pub name: String,
    /// Its media type.
    pub media_type: String,
    /// Its content coding (RFC 9110 section 8.4.1), where it has one.
    pub content_coding: Option<&'static str>,
}

/// The siblings that a file of that name and type may have.
pub fn siblings(name: &str, media_type: &str) -> impl Iterator<Item = Sibling> {
    let (codings, formats) = (CODINGS.iter(), FORMATS.iter());
    let codings = codings.filter(move |_| is_compressible(media_type));
    let codings = codings.map(move |(suffix, coding)| Sibling {
        name: format!("{name}.{suffix}"),
        media_type: media_type.to_owned(),
        content_coding: Some(*coding),
    });
    let has_formats = matches!(media_type, "image/png" | "image/jpeg" | "image/gif");
    let formats = formats.filter(move |_| has_formats);
    let formats = formats.map(move |(suffix, media_type)| Sibling {
        name: format!("{name}.{suffix}"),
        media_type: (*media_type).to_owned(),
        content_coding: None,
    });
    codings.chain(formats)
}

const CODINGS: [(&str, &str); 3] = [("br", "br"), ("zst", "zstd"), ("gz", "gzip")];

const FORMATS: [(&str, &str); 2] = [("avif", "image/avif"), ("webp", "image/webp")];

/// Whether a type is text, which compresses well; media is compressed already.
fn is_compressible(media_type: &str) -> bool {
    media_type.starts_with("text/")
        || matches!(
            media_type,
            "image/svg+xml"
                | "application/json"
                | "application/javascript"
                | "application/xml"
                | "application/dash+xml"
                | "application/vnd.apple.mpegurl"
                | "application/x-mpegurl"
                | "application/wasm"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_hidden_files_nor_ways_out_are_served() {
        for name in ["a.gif", "b/c d.mp4", "ab/notes.txt"] {
            assert!(is_served(name), "{name}");
        }
        let id = "ab".repeat(32);
        for name in [
            "",
            ".env",
            "a/.git/config",
            "../a",
            "a/../b",
            "a//b",
            "/a",
            "a/",
            "c:a",
            "a\\b",
            "a\nb",
            &format!("ab/{id}"),
            &format!("ab/{id}.json"),
        ] {
            assert!(!is_served(name), "{name}");
        }
    }

    #[test]
    fn siblings_are_of_the_kind_that_helps() {
        let of = |name: &str| -> Vec<String> {
            let siblings = siblings(name, media_type(name));
            siblings.map(|sibling| sibling.name).collect()
        };
        assert_eq!(of("a.svg"), ["a.svg.br", "a.svg.zst", "a.svg.gz"]);
        assert_eq!(of("a.png"), ["a.png.avif", "a.png.webp"]);
        assert!(of("a.mp4").is_empty());
    }
}
