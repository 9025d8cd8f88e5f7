//! From a request's target to what it names: a media id, its description, or a named file.

use crate::imports::Key;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// What a target names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/api/media/<id>`: the media itself.
    Media(MediaId),
    /// `/api/media/<id>/info`: its description in JSON.
    Info(MediaId),
    /// `<files-at>/<path>`: a file by its name.
    Named(FileName),
}

/// Why a target names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteError {
    /// Its percent-encoding is broken, or it decodes to what no path can hold: 400.
    Malformed,
    /// It stands where media stands, but cannot be the name of any: 404.
    NoSuchMedia,
    /// It is no path that is served here: 404.
    NoSuchRoute,
}

/// The address of media by content: 64 lower-case hexadecimal digits, the SHA-256 of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaId(String);

/// A relative path of plain segments, decoded: nothing in it climbs or ends early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName(String);

const MEDIA_PREFIX: &str = "/api/media/";
const INFO_SUFFIX: &str = "/info";

impl Route {
    /// Reads a target in origin-form, where named files are served under `files_at`.
    ///
    /// # Errors
    /// [`RouteError`], each with its own status.
    pub fn parse(target: &str, files_at: &str) -> Result<Self, RouteError> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        if has_broken_escape(path) {
            return Err(RouteError::Malformed);
        }
        if let Some(rest) = path.strip_prefix(MEDIA_PREFIX) {
            return match rest.strip_suffix(INFO_SUFFIX) {
                Some(id) => MediaId::parse(id).map(Route::Info),
                None => MediaId::parse(rest).map(Route::Media),
            }
            .ok_or(RouteError::NoSuchMedia);
        }
        let below = match path.strip_prefix(files_at.trim_end_matches('/')) {
            // The original's legacy form: `/media?id=<name>`.
            Some("") => query.and_then(legacy_name),
            Some(rest) => rest.strip_prefix('/').map(Cow::Borrowed),
            None => None,
        };
        let below = below.ok_or(RouteError::NoSuchRoute)?;
        FileName::parse(&below).map(Route::Named)
    }
}

impl MediaId {
    /// Reads an id; anything but 64 lower-case hexadecimal digits is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_id =
            text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_id.then(|| MediaId(text.to_owned()))
    }

    /// The 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key under which a store has it.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::Content(self.0.clone())
    }
}

impl FileName {
    /// Reads a percent-encoded relative path.
    ///
    /// # Errors
    /// [`RouteError::Malformed`] when it is not UTF-8 or holds U+0000 once decoded, [`RouteError::NoSuchMedia`] when a
    /// segment is empty, `.` or `..`, or holds an encoded `/` (the name of no file). What else may stand in a name is
    /// for the store to say, which knows its system.
    pub fn parse(encoded: &str) -> Result<Self, RouteError> {
        if has_broken_escape(encoded) {
            return Err(RouteError::Malformed);
        }
        let mut decoded = String::with_capacity(encoded.len());
        for segment in encoded.split('/') {
            let segment = percent_decode_str(segment)
                .decode_utf8()
                .map_err(|_| RouteError::Malformed)?;
            if segment.contains('\0') {
                return Err(RouteError::Malformed);
            }
            if matches!(&*segment, "" | "." | "..") || segment.contains('/') {
                return Err(RouteError::NoSuchMedia);
            }
            if !decoded.is_empty() {
                decoded.push('/');
            }
            decoded.push_str(&segment);
        }
        Ok(FileName(decoded))
    }

    /// The decoded path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key under which a store has it.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::Named(self.0.clone())
    }

    /// The content coding that a file of that name and type has (RFC 9110 section 8.4.1): `.svgz` is SVG in gzip, and
    /// to be sent so (SVG 2, appendix P). None for every other.
    #[must_use]
    pub fn content_coding(&self, media_type: &str) -> Option<&'static str> {
        let (_, extension) = self.0.rsplit_once('.')?;
        let is_svgz =
            extension.eq_ignore_ascii_case("svgz") && media_type.starts_with("image/svg+xml");
        is_svgz.then_some("gzip")
    }
}

/// The `id` of a query, in which a `/` may stand encoded, as forms write it.
fn legacy_name(query: &str) -> Option<Cow<'_, str>> {
    let name = query.split('&').find_map(|pair| pair.strip_prefix("id="))?;
    Some(if name.contains('%') {
        Cow::Owned(name.replace("%2F", "/").replace("%2f", "/"))
    } else {
        Cow::Borrowed(name)
    })
}

/// Whether a `%` stands without two hexadecimal digits behind it (RFC 3986 section 2.1). The decoder takes
/// such a `%` for itself; a name that two servers read differently is better refused.
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

    fn parse(target: &str) -> Result<Route, RouteError> {
        Route::parse(target, "/media")
    }

    fn named(name: &str) -> Result<Route, RouteError> {
        Ok(Route::Named(FileName(name.into())))
    }

    #[test]
    fn targets() {
        use RouteError::*;
        let id = MediaId(ID.into());
        let upper = format!("/api/media/{}", ID.to_uppercase());
        let media = format!("/api/media/{ID}");
        let query = format!("/api/media/{ID}?download=1");
        let info = format!("/api/media/{ID}/info");
        let slash = format!("/api/media/{ID}/");
        let short = format!("/api/media/{}", &ID[1..]);
        let encoded = format!("/api/media/%30{}", &ID[1..]);
        for (target, expected) in [
            (media.as_str(), Ok(Route::Media(id.clone()))),
            (&query, Ok(Route::Media(id.clone()))),
            (&info, Ok(Route::Info(id))),
            (&slash, Err(NoSuchMedia)),
            (&short, Err(NoSuchMedia)),
            (&upper, Err(NoSuchMedia)),
            (&encoded, Err(NoSuchMedia)),
            ("/api/media/", Err(NoSuchMedia)),
            ("/api/media/../../etc/passwd", Err(NoSuchMedia)),
            ("/api/media", Err(NoSuchRoute)),
            ("/media/a.gif", named("a.gif")),
            ("/media/a%20b/%C3%A9.gif", named("a b/é.gif")),
            ("/media/a.gif?v=1", named("a.gif")),
            ("/media?id=a.gif", named("a.gif")),
            ("/media?v=1&id=b/a.gif", named("b/a.gif")),
            ("/media?id=b%2Fa%20b.gif", named("b/a b.gif")),
            ("/media?id=../../etc/passwd", Err(NoSuchMedia)),
            ("/media?id=%2e%2e%2fetc/passwd", Err(NoSuchMedia)),
            ("/media?id=%zz", Err(Malformed)),
            ("/media", Err(NoSuchRoute)),
            ("/media/", Err(NoSuchMedia)),
            ("/media/dir/", Err(NoSuchMedia)),
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
            ("/mediax/a.gif", Err(NoSuchRoute)),
            ("/", Err(NoSuchRoute)),
            ("*", Err(NoSuchRoute)),
        ] {
            assert_eq!(parse(target), expected, "{target}");
        }
    }

    #[test]
    fn files_at_the_root() {
        let at_root = |target| Route::parse(target, "/");
        assert_eq!(at_root("/a.gif"), named("a.gif"));
        assert_eq!(at_root("/media/a.gif"), named("media/a.gif"));
        assert_eq!(at_root("/"), Err(RouteError::NoSuchMedia));
        assert_eq!(at_root("*"), Err(RouteError::NoSuchRoute));
        let media = format!("/api/media/{ID}");
        assert!(matches!(at_root(&media), Ok(Route::Media(_))));
    }

    proptest! {
        #[test]
        fn no_target_climbs_or_panics(target in "(/media)?[/.%a-f0-9\\\\ -~é]{0,40}") {
            if let Ok(Route::Named(name)) = parse(&target) {
                for segment in name.as_str().split('/') {
                    prop_assert!(!matches!(segment, "" | "." | ".."));
                    prop_assert!(!segment.contains('\0'));
                }
            }
        }
    }
}
