//! Named files: names that are served, their media types, and sibling files with other representations.

use crate::ContentId;
use std::path::Path;

/// Returns whether a path may name a served file.
///
/// Hidden files are not served. Files of the content store are served by their ids only, under the rules of their records.
#[must_use]
pub fn is_served(name: &str) -> bool {
    let segments = name.split(SEPARATORS);
    let is_shown = |segment: &str| can_be_a_name(segment) && !is_hidden(segment);
    // The store may be in a subfolder of the served folder.
    let mut pairs = segments.clone().zip(segments.clone().skip(1));
    segments.clone().all(is_shown) && !pairs.any(is_in_content_store)
}

/// Returns whether a folder may belong to the content store, by its name: the first two digits of an id.
///
/// Such a folder is not listed if a file of the content store is in it.
#[must_use]
pub fn may_be_content_folder(name: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    name.len() == 2 && name.bytes().all(is_digit)
}

/// Returns whether a file in a folder belongs to the content store, by the names of both.
#[must_use]
pub fn is_content(folder: &str, file: &str) -> bool {
    is_in_content_store((folder, file))
}

fn is_in_content_store((folder, file): (&str, &str)) -> bool {
    let id = file.get(..64);
    id.is_some_and(|id| id.parse::<ContentId>().is_ok() && id.starts_with(folder))
}

/// Separators of path segments. A component does not know its host's system, so `\` may be one as well.
const SEPARATORS: &[char] = if cfg!(target_family = "wasm") {
    &['/', '\\']
} else {
    &['/']
};

/// Returns whether a file can have a name, and the name has no other meaning on this system.
///
/// Linux accepts every byte but `/` and U+0000. Windows has separators, streams, patterns and devices, and ignores a dot or
/// a space at the end.
fn can_be_a_name(segment: &str) -> bool {
    let means_something = cfg!(windows)
        && (segment.ends_with(['.', ' '])
            || segment.contains(|c: char| c.is_control() || "\\:*?\"<>|".contains(c)));
    !matches!(segment, "" | "." | "..") && !segment.contains('\0') && !means_something
}

/// Returns whether a file is hidden: its name begins with one dot. Several dots begin a title, as in
/// `...And Justice for All`. `.well-known` is public (RFC 8615).
fn is_hidden(segment: &str) -> bool {
    let has_one_dot = segment.starts_with('.') && !segment.starts_with("..");
    has_one_dot && segment != ".well-known"
}

/// Returns the media type of a named file, by its extension.
#[must_use]
pub fn media_type(name: &str) -> &'static str {
    let extension = Path::new(name).extension().and_then(|found| found.to_str());
    let Some(extension) = extension else {
        return UNKNOWN;
    };
    let mut types = TYPES.iter();
    let found = types.find(|(known, _)| extension.eq_ignore_ascii_case(known));
    let guess = || mime_guess::from_ext(extension).first_raw();
    found
        .map(|(_, media_type)| *media_type)
        .or_else(guess)
        .unwrap_or(UNKNOWN)
}

/// Type that a browser neither runs nor shows.
const UNKNOWN: &str = "application/octet-stream";

/// Types that `mime_guess` lacks, or has under another name than that of the IANA registry. The packages for Node and Python
/// have the same types.
const TYPES: [(&str, &str); 27] = [
    // HLS and DASH (RFC 8216 section 10, ISO/IEC 23009-1, ISO/IEC 23000-19).
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("ts", "video/mp2t"),
    ("m2t", "video/mp2t"),
    ("m2ts", "video/mp2t"),
    ("mts", "video/mp2t"),
    ("m4s", "video/iso.segment"),
    ("m4a", "audio/mp4"),
    ("m4b", "audio/mp4"),
    ("m4p", "audio/mp4"),
    ("m4r", "audio/mp4"),
    ("cmfv", "video/mp4"),
    ("cmfa", "audio/mp4"),
    ("cmft", "application/mp4"),
    ("cmfm", "application/mp4"),
    ("ec3", "audio/eac3"),
    ("mpdp", "application/dash-patch+xml"),
    // Subtitles.
    ("ttml", "application/ttml+xml"),
    ("dfxp", "application/ttml+xml"),
    ("ass", "text/x-ssa"),
    ("ssa", "text/x-ssa"),
    // Models.
    ("stl", "model/stl"),
    ("obj", "model/obj"),
    ("usdz", "model/vnd.usdz+zip"),
    // Pages (RFC 9239, RFC 8081).
    ("mjs", "text/javascript"),
    ("otf", "font/otf"),
    ("woff", "font/woff"),
    ("avifs", "image/avif"),
];

/// A file beside another, with another representation of it: `logo.svg.br` of `logo.svg`, `pond.png.avif` of `pond.png`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    /// Path relative to the root.
    pub name: String,
    /// Media type.
    pub media_type: String,
    /// Content coding (RFC 9110 section 8.4.1), if any.
    pub content_coding: Option<&'static str>,
}

/// Returns the siblings that a file with a name and a media type may have.
pub fn siblings(name: &str, media_type: &str) -> impl Iterator<Item = Sibling> {
    let is_compressible = is_compressible(media_type) && !is_compressed(name);
    let codings = CODINGS.iter().filter(move |_| is_compressible);
    let codings = codings.map(move |(suffix, coding)| Sibling {
        name: format!("{name}.{suffix}"),
        media_type: media_type.to_owned(),
        content_coding: Some(*coding),
    });
    let has_formats = matches!(media_type, "image/png" | "image/jpeg" | "image/gif");
    let formats = FORMATS.iter().filter(move |_| has_formats);
    let formats = formats.map(move |(suffix, media_type)| Sibling {
        name: format!("{name}.{suffix}"),
        media_type: (*media_type).to_owned(),
        content_coding: None,
    });
    codings.chain(formats)
}

const CODINGS: [(&str, &str); 3] = [("br", "br"), ("zst", "zstd"), ("gz", "gzip")];

const FORMATS: [(&str, &str); 2] = [("avif", "image/avif"), ("webp", "image/webp")];

/// Returns whether data of a type is worth compressing. Films and most pictures are compressed already.
fn is_compressible(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or(media_type).trim();
    let (kind, subtype) = essence.split_once('/').unwrap_or((essence, ""));
    let is_text = kind == "text"
        || ["+xml", "+json", "+yaml"]
            .iter()
            .any(|suffix| subtype.ends_with(suffix));
    is_text
        || matches!(
            essence,
            "application/json"
                | "application/javascript"
                | "application/xml"
                | "application/yaml"
                | "application/rtf"
                | "application/wasm"
                // Playlists and subtitles.
                | "application/vnd.apple.mpegurl"
                | "application/x-mpegurl"
                | "audio/mpegurl"
                | "audio/x-mpegurl"
                | "audio/scpls"
                | "application/x-subrip"
                // Uncompressed formats of pictures, models and fonts.
                | "image/bmp"
                | "image/x-icon"
                | "model/gltf-binary"
                | "model/obj"
                | "model/stl"
                | "font/ttf"
                | "font/otf"
                | "font/collection"
                | "application/vnd.ms-fontobject"
        )
}

/// Returns whether a file is compressed, by its extension: `.svgz` is SVG in gzip.
fn is_compressed(name: &str) -> bool {
    let extension = Path::new(name).extension();
    extension.is_some_and(|extension| extension.eq_ignore_ascii_case("svgz"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn neither_hidden_files_nor_ways_out_are_served() {
        for name in ["a.gif", "b/c d.mp4", "ab/notes.txt", "a.b/c..d"] {
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
            ".",
            "..",
            "a\0b",
            ".DS_Store",
            "._a.gif",
            ".incoming/x",
            ".well-known/.git/config",
            ".well-known.txt",
            &format!("ab/{id}"),
            &format!("ab/{id}.json"),
            // Regression: a store in a subfolder was served by name.
            &format!("films/store/ab/{id}"),
            &format!("films/store/ab/{id}.json"),
        ] {
            assert!(!is_served(name), "{name}");
        }
    }

    #[cfg(not(windows))]
    #[test]
    fn titles_with_the_marks_of_other_systems_were_not_served() {
        for name in [
            "Star Wars: A New Hope.mkv",
            "AC\\DC/T.N.T.mp3",
            "What? *Now*: <\"1|2\">.txt",
            "two\nlines\t\u{85}.txt",
            "a .",
            "CON",
            "...And Justice for All.mp3",
            "..and so on.mp3",
            "...",
            ".well-known/security.txt",
        ] {
            assert!(is_served(name), "{name:?}");
        }
    }

    #[test]
    fn types_of_what_players_and_pages_ask_for() {
        for (name, expected) in [
            ("a.ts", "video/mp2t"),
            ("a.M3U8", "application/vnd.apple.mpegurl"),
            ("a.m3u", "audio/x-mpegurl"),
            ("init.m4s", "video/iso.segment"),
            ("a.m4a", "audio/mp4"),
            ("a.mp4", "video/mp4"),
            ("a.mpd", "application/dash+xml"),
            ("a.cmfv", "video/mp4"),
            ("a.cmfa", "audio/mp4"),
            ("a.aac", "audio/aac"),
            ("a.vtt", "text/vtt"),
            ("a.srt", "application/x-subrip"),
            ("a.ttml", "application/ttml+xml"),
            ("a.mjs", "text/javascript"),
            ("a.svgz", "image/svg+xml"),
            ("a.woff", "font/woff"),
            ("...a.mp3", "audio/mpeg"),
            ("....mp3", "audio/mpeg"),
            ("a.key", UNKNOWN),
            ("a.unknown", UNKNOWN),
            ("a", UNKNOWN),
            ("a.", UNKNOWN),
            ("a.mp4/b", UNKNOWN),
        ] {
            assert_eq!(media_type(name), expected, "{name}");
        }
    }

    /// The package for Python has a table of its own, which differed as soon as one of the two changed.
    #[test]
    fn the_package_for_python_has_the_same_types() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let table = root.join("plugins/python/src/millpond/media_types.txt");
        let table = std::fs::read_to_string(table).unwrap();
        let lines = table.lines().filter(|line| !line.starts_with('#'));
        let theirs: BTreeMap<&str, &str> =
            lines.map(|line| line.split_once(' ').unwrap()).collect();
        for (extension, theirs) in &theirs {
            assert_eq!(
                media_type(&format!("a.{extension}")),
                *theirs,
                "{extension}"
            );
        }
        for (extension, ours) in TYPES {
            assert_eq!(theirs.get(extension), Some(&ours), "{extension}");
        }
    }

    #[test]
    fn compressible_types_are_told_by_the_type() {
        for name in [
            "a.m3u8",
            "a.m3u",
            "a.mpd",
            "a.vtt",
            "a.srt",
            "a.ttml",
            "a.gltf",
            "a.glb",
            "a.rss",
            "a.atom",
            "a.webmanifest",
            "a.jsonld",
            "a.geojson",
            "a.xhtml",
            "a.js",
            "a.ttf",
            "a.otf",
        ] {
            let found = siblings(name, media_type(name));
            assert_eq!(found.count(), 3, "{name}");
        }
        assert_eq!(siblings("a.txt", "text/plain; charset=utf-8").count(), 3);
        for name in [
            "a.mp4", "a.ts", "a.svgz", "a.SVGZ", "a.woff2", "a.jxl", "a.zip", "a.usdz", "a",
        ] {
            let found = siblings(name, media_type(name));
            assert_eq!(found.count(), 0, "{name}");
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
