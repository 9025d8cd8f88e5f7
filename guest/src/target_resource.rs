//! Target resources (RFC 9110 section 7.1): the resources that request targets name.

use crate::imports::Key;
use millpond_format::ContentId;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// The resource that a target names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TargetResource {
    /// `/api/media/<id>`: media by its content id.
    Media(ContentId),
    /// `/api/media/<id>/info`: a description of the media in JSON.
    Info(ContentId),
    /// `<mount-path>/<path>`: a named file, or a folder whose target lacks the `/` at its end.
    Named(FileName),
    /// `<mount-path>/<path>/`: a folder.
    Folder(FolderName),
    /// `/` or `<mount-path>` without a `/` at its end: the folder of all named files is elsewhere.
    Root,
    /// `/api/gallery.css` or `/api/gallery.js`: what the pages of folders need.
    Asset(Asset),
}

/// A file that the pages of folders need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asset {
    /// The style sheet.
    Css,
    /// The script.
    Js,
}

/// Reason why a target names no resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetError {
    /// The percent-encoding is malformed, or the decoded path contains U+0000: 400.
    Malformed,
    /// The target is in the place of media, but no media can have that name: 404.
    NoSuchMedia,
    /// The path is not served: 404.
    NoSuchResource,
}

/// A decoded relative path of plain segments: none is empty, `.` or `..`, or contains `/` or U+0000.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileName(String);

/// A decoded relative path of plain segments, as [`FileName`], or empty for the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FolderName(String);

const MEDIA_PREFIX: &str = "/api/media/";
const INFO_SUFFIX: &str = "/info";

impl TargetResource {
    /// Parses a target in origin-form. Named files are served under `mount_path`.
    ///
    /// # Errors
    /// [`TargetError`].
    pub(crate) fn parse(target: &str, mount_path: &str) -> Result<Self, TargetError> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        if has_broken_escape(path) {
            return Err(TargetError::Malformed);
        }
        if let Some(rest) = path.strip_prefix(MEDIA_PREFIX) {
            return match rest.strip_suffix(INFO_SUFFIX) {
                Some(id) => id.parse().map(TargetResource::Info),
                None => rest.parse().map(TargetResource::Media),
            }
            .map_err(|_| TargetError::NoSuchMedia);
        }
        match path {
            "/api/gallery.css" => return Ok(TargetResource::Asset(Asset::Css)),
            "/api/gallery.js" => return Ok(TargetResource::Asset(Asset::Js)),
            _ => {}
        }
        let below = match path.strip_prefix(mount_path.trim_end_matches('/')) {
            // Legacy form: `/media?id=<name>`.
            Some("") => {
                return match query.and_then(legacy_name) {
                    Some(name) => FileName::parse(&name).map(TargetResource::Named),
                    None => Ok(TargetResource::Root),
                };
            }
            Some(rest) => rest.strip_prefix('/'),
            None if path == "/" => return Ok(TargetResource::Root),
            None => None,
        };
        let below = below.ok_or(TargetError::NoSuchResource)?;
        match below.strip_suffix('/') {
            _ if below.is_empty() => Ok(TargetResource::Folder(FolderName(String::new()))),
            Some(folder) => {
                FileName::parse(folder).map(|name| TargetResource::Folder(FolderName(name.0)))
            }
            None => FileName::parse(below).map(TargetResource::Named),
        }
    }
}

impl FileName {
    /// Parses a percent-encoded relative path. Further rules for names depend on the system, so the store checks them.
    ///
    /// # Errors
    /// - [`TargetError::Malformed`] if the decoded path is not UTF-8 or contains U+0000.
    /// - [`TargetError::NoSuchMedia`] if a segment is empty, `.` or `..`, or contains an encoded `/`.
    pub(crate) fn parse(encoded: &str) -> Result<Self, TargetError> {
        if has_broken_escape(encoded) {
            return Err(TargetError::Malformed);
        }
        let mut decoded = String::with_capacity(encoded.len());
        for segment in encoded.split('/') {
            let segment = percent_decode_str(segment)
                .decode_utf8()
                .map_err(|_| TargetError::Malformed)?;
            if segment.contains('\0') {
                return Err(TargetError::Malformed);
            }
            if matches!(&*segment, "" | "." | "..") || segment.contains('/') {
                return Err(TargetError::NoSuchMedia);
            }
            if !decoded.is_empty() {
                decoded.push('/');
            }
            decoded.push_str(&segment);
        }
        Ok(FileName(decoded))
    }

    /// Decoded path.
    #[cfg(test)]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Last segment: the name of the file in its folder.
    #[must_use]
    pub(crate) fn last_segment(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Key of the file in a store.
    #[must_use]
    pub(crate) fn key(&self) -> Key {
        Key::Named(self.0.clone())
    }

    /// Returns the content coding of a file with this name and a media type (RFC 9110 section 8.4.1).
    ///
    /// A file with the extension `.svgz` is SVG in gzip, and sent with that coding (SVG 2, appendix P).
    #[must_use]
    pub(crate) fn content_coding(&self, media_type: &str) -> Option<&'static str> {
        let (_, extension) = self.0.rsplit_once('.')?;
        let is_svgz =
            extension.eq_ignore_ascii_case("svgz") && media_type.starts_with("image/svg+xml");
        is_svgz.then_some("gzip")
    }
}

impl FolderName {
    /// Decoded path; empty for the root.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the key of a file in the folder.
    #[must_use]
    pub(crate) fn file(&self, name: &str) -> FileName {
        match self.0.as_str() {
            "" => FileName(name.to_owned()),
            folder => FileName(format!("{folder}/{name}")),
        }
    }
}

impl From<&FileName> for FolderName {
    fn from(name: &FileName) -> Self {
        FolderName(name.0.clone())
    }
}

/// Returns the `id` of a query. Forms encode a `/` in it.
fn legacy_name(query: &str) -> Option<Cow<'_, str>> {
    let name = query.split('&').find_map(|pair| pair.strip_prefix("id="))?;
    Some(if name.contains('%') {
        Cow::Owned(name.replace("%2F", "/").replace("%2f", "/"))
    } else {
        Cow::Borrowed(name)
    })
}

/// Returns whether a `%` is not followed by two hexadecimal digits (RFC 3986 section 2.1).
///
/// The decoder leaves such a `%` as it is. Two servers could read the name differently, so it is rejected.
fn has_broken_escape(encoded: &str) -> bool {
    encoded.split('%').skip(1).any(|after| {
        let digits = after.as_bytes();
        digits.len() < 2 || !digits[..2].iter().all(u8::is_ascii_hexdigit)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn parse(target: &str) -> Result<TargetResource, TargetError> {
        TargetResource::parse(target, "/media")
    }

    fn named(name: &str) -> Result<TargetResource, TargetError> {
        Ok(TargetResource::Named(FileName(name.into())))
    }

    fn folder(name: &str) -> Result<TargetResource, TargetError> {
        Ok(TargetResource::Folder(FolderName(name.into())))
    }

    #[test]
    fn targets() {
        use TargetError::*;
        let id: ContentId = ID.parse().unwrap();
        let upper = format!("/api/media/{}", ID.to_uppercase());
        let media = format!("/api/media/{ID}");
        let query = format!("/api/media/{ID}?download=1");
        let info = format!("/api/media/{ID}/info");
        let slash = format!("/api/media/{ID}/");
        let short = format!("/api/media/{}", &ID[1..]);
        let encoded = format!("/api/media/%30{}", &ID[1..]);
        for (target, expected) in [
            (media.as_str(), Ok(TargetResource::Media(id))),
            (&query, Ok(TargetResource::Media(id))),
            (&info, Ok(TargetResource::Info(id))),
            (&slash, Err(NoSuchMedia)),
            (&short, Err(NoSuchMedia)),
            (&upper, Err(NoSuchMedia)),
            (&encoded, Err(NoSuchMedia)),
            ("/api/media/", Err(NoSuchMedia)),
            ("/api/media/../../etc/passwd", Err(NoSuchMedia)),
            ("/api/media", Err(NoSuchResource)),
            ("/media/a.gif", named("a.gif")),
            ("/media/a%20b/%C3%A9.gif", named("a b/é.gif")),
            ("/media/a.gif?v=1", named("a.gif")),
            ("/media?id=a.gif", named("a.gif")),
            ("/media?v=1&id=b/a.gif", named("b/a.gif")),
            ("/media?id=b%2Fa%20b.gif", named("b/a b.gif")),
            ("/media?id=../../etc/passwd", Err(NoSuchMedia)),
            ("/media?id=%2e%2e%2fetc/passwd", Err(NoSuchMedia)),
            ("/media?id=%zz", Err(Malformed)),
            ("/media", Ok(TargetResource::Root)),
            ("/media?v=1", Ok(TargetResource::Root)),
            ("/media/", folder("")),
            ("/media/dir/", folder("dir")),
            ("/media/a%20b/c/?q=1", folder("a b/c")),
            ("/media/dir//", Err(NoSuchMedia)),
            ("/media/%2f/", Err(NoSuchMedia)),
            ("/media/../", Err(NoSuchMedia)),
            ("/media/%ff/", Err(Malformed)),
            ("/api/gallery.js", Ok(TargetResource::Asset(Asset::Js))),
            (
                "/api/gallery.css?v=1",
                Ok(TargetResource::Asset(Asset::Css)),
            ),
            ("/media//a.gif", Err(NoSuchMedia)),
            ("/media/./a.gif", Err(NoSuchMedia)),
            ("/media/../a.gif", Err(NoSuchMedia)),
            ("/media/%2e%2e/a.gif", Err(NoSuchMedia)),
            ("/media/..%2fa.gif", Err(NoSuchMedia)),
            ("/media/..%5ca.gif", named("..\\a.gif")),
            ("/media/a:%20b%5cc.gif", named("a: b\\c.gif")),
            ("/media/...a.gif", named("...a.gif")),
            ("/media/a%00.gif", Err(Malformed)),
            ("/media/a%0d%0ab", named("a\r\nb")),
            ("/media/%ff.gif", Err(Malformed)),
            ("/media/%c0%ae%c0%ae/a", Err(Malformed)),
            ("/media/%zz", Err(Malformed)),
            ("/media/a%", Err(Malformed)),
            ("/media/a%2", Err(Malformed)),
            ("/mediax/a.gif", Err(NoSuchResource)),
            ("/", Ok(TargetResource::Root)),
            ("*", Err(NoSuchResource)),
        ] {
            assert_eq!(parse(target), expected, "{target}");
        }
    }

    #[test]
    fn files_mounted_at_the_root() {
        let at_root = |target| TargetResource::parse(target, "/");
        assert_eq!(at_root("/a.gif"), named("a.gif"));
        assert_eq!(at_root("/media/a.gif"), named("media/a.gif"));
        assert_eq!(at_root("/"), folder(""));
        assert_eq!(at_root("/media/"), folder("media"));
        assert_eq!(at_root("*"), Err(TargetError::NoSuchResource));
        let media = format!("/api/media/{ID}");
        assert!(matches!(at_root(&media), Ok(TargetResource::Media(_))));
    }

    proptest! {
        #[test]
        fn no_target_climbs_or_panics(target in "(/media)?[/.%a-f0-9\\\\ -~é]{0,40}") {
            if let Ok(TargetResource::Named(name)) = parse(&target) {
                for segment in name.as_str().split('/') {
                    prop_assert!(!matches!(segment, "" | "." | ".."));
                    prop_assert!(!segment.contains('\0'));
                }
            }
        }
    }
}
