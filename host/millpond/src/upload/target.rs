//! Targets of uploads: the store of media by content, named files, and folders.

use super::error::UploadError;
use http::{Method, Uri};
use millpond_format::names;
use percent_encoding::percent_decode_str;

/// Resource that an upload is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UploadTarget {
    /// A file that the upload creates or replaces.
    File(FileTarget),
    /// `<mount-path>/<path>/`: a folder, which a form uploads files to. The path is decoded, and empty for the folder of
    /// all files.
    Folder(String),
}

/// File that an upload creates or replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileTarget {
    /// `/api/media`: media by its content, whose id is known at its end.
    Content,
    /// `<mount-path>/<path>`: a named file. The name is decoded, and one that is served.
    Named(String),
}

impl UploadTarget {
    /// Parses the target of a request. `None` if the request is no upload.
    ///
    /// # Errors
    /// [`UploadError::MalformedTarget`] and [`UploadError::Name`].
    pub(super) fn parse(
        method: &Method,
        uri: &Uri,
        mount_path: &str,
    ) -> Option<Result<Self, UploadError>> {
        let is_form = match *method {
            Method::PUT => false,
            Method::POST => true,
            _ => return None,
        };
        let path = uri.path();
        if path == "/api/media" {
            return (!is_form).then_some(Ok(UploadTarget::File(FileTarget::Content)));
        }
        // Media has its id from its content, so nothing is put there.
        if path.starts_with("/api/media/") {
            return None;
        }
        let below = path.strip_prefix(mount_path.trim_end_matches('/'))?;
        let name = below.strip_prefix('/')?;
        if !is_form {
            let name = decode(name).and_then(file_name);
            return Some(name.map(|name| UploadTarget::File(FileTarget::Named(name))));
        }
        if name.is_empty() {
            return Some(Ok(UploadTarget::Folder(String::new())));
        }
        let folder = name.strip_suffix('/')?;
        Some(decode(folder).map(UploadTarget::Folder))
    }
}

/// Returns the name of a file in a folder, from the name that a form has for it. Some clients send a path, of which the
/// last segment counts (RFC 7578 section 4.2).
///
/// # Errors
/// [`UploadError::Name`], by the rules of named files. A form has no names with control characters besides.
pub(super) fn name_in(folder: &str, given: &str) -> Result<String, UploadError> {
    let segment = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let name = match folder {
        "" => segment.to_owned(),
        folder => format!("{folder}/{segment}"),
    };
    if segment.contains(char::is_control) || !names::is_served(&name) {
        return Err(UploadError::Name);
    }
    file_name(name)
}

/// Decodes a relative path. The guest decodes the target of a `GET` by the same rules, so an uploaded file is found.
fn decode(encoded: &str) -> Result<String, UploadError> {
    let mut segments = Vec::new();
    for segment in encoded.split('/') {
        let escapes = segment.split('%').skip(1);
        let has_digits = |after: &str| {
            let digits = after.as_bytes().get(..2);
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        };
        if !escapes.into_iter().all(has_digits) {
            return Err(UploadError::MalformedTarget);
        }
        let decoded = percent_decode_str(segment).decode_utf8();
        let decoded = decoded.map_err(|_| UploadError::MalformedTarget)?;
        if decoded.contains('\0') {
            return Err(UploadError::MalformedTarget);
        }
        if decoded.contains('/') {
            return Err(UploadError::Name);
        }
        segments.push(decoded);
    }
    let name = segments.join("/");
    if !names::is_served(&name) {
        return Err(UploadError::Name);
    }
    Ok(name)
}

/// Returns the name if a file may have it.
fn file_name(name: String) -> Result<String, UploadError> {
    match is_content_folder(&name) {
        true => Err(UploadError::Name),
        false => Ok(name),
    }
}

/// Returns whether a file of that name would be in the place of a folder of media by content.
fn is_content_folder(name: &str) -> bool {
    name.len() == 2
        && name
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn parse(target: &str, mount_path: &str) -> Option<Result<UploadTarget, UploadError>> {
        UploadTarget::parse(&Method::PUT, &target.parse().unwrap(), mount_path)
    }

    #[test]
    fn targets() {
        let file = |target| Some(Ok(UploadTarget::File(target)));
        let named = |name: &str| file(FileTarget::Named(name.into()));
        let id = "ab".repeat(32);
        let (of_store, record) = (format!("/media/ab/{id}"), format!("/media/s/ab/{id}.json"));
        let media = format!("/api/media/{id}");
        for (target, expected) in [
            ("/api/media", file(FileTarget::Content)),
            ("/api/media?x", file(FileTarget::Content)),
            ("/api/media/", None),
            (&media, None),
            ("/media/a.gif", named("a.gif")),
            ("/media/a%20b/%C3%A9.gif?x=1", named("a b/\u{e9}.gif")),
            ("/media/ab/x.gif", named("ab/x.gif")),
            ("/media/ab", Some(Err(UploadError::Name))),
            ("/media/", Some(Err(UploadError::Name))),
            ("/media/a/", Some(Err(UploadError::Name))),
            ("/media/.env", Some(Err(UploadError::Name))),
            ("/media/.incoming/x", Some(Err(UploadError::Name))),
            ("/media/a/%2e%2e/b", Some(Err(UploadError::Name))),
            ("/media/../b", Some(Err(UploadError::Name))),
            ("/media/a%2fb", Some(Err(UploadError::Name))),
            (&of_store, Some(Err(UploadError::Name))),
            (&record, Some(Err(UploadError::Name))),
            ("/media/a%00", Some(Err(UploadError::MalformedTarget))),
            ("/media/%ff", Some(Err(UploadError::MalformedTarget))),
            ("/media/a%2", Some(Err(UploadError::MalformedTarget))),
            ("/media", None),
            ("/mediax/a", None),
            ("/", None),
            ("*", None),
        ] {
            assert_eq!(parse(target, "/media"), expected, "{target}");
        }
        assert_eq!(parse("/a.gif", "/"), named("a.gif"));
        assert_eq!(parse(&media, "/"), None);
        let get = UploadTarget::parse(&Method::GET, &Uri::from_static("/media/a"), "/media");
        assert_eq!(get, None);
    }

    #[test]
    fn forms_are_for_folders() {
        let parse = |target: &str, mount_path| {
            UploadTarget::parse(&Method::POST, &target.parse().unwrap(), mount_path)
        };
        let folder = |name: &str| Some(Ok(UploadTarget::Folder(name.into())));
        let content = format!("/media/ab/{}/", "ab".repeat(32));
        for (target, expected) in [
            ("/media/", folder("")),
            ("/media/?sort=name", folder("")),
            ("/media/a%20b/c/", folder("a b/c")),
            ("/media/ab/", folder("ab")),
            ("/media/.git/", Some(Err(UploadError::Name))),
            ("/media//", Some(Err(UploadError::Name))),
            ("/media/../", Some(Err(UploadError::Name))),
            ("/media/a%2fb/", Some(Err(UploadError::Name))),
            (&content, Some(Err(UploadError::Name))),
            ("/media/%zz/", Some(Err(UploadError::MalformedTarget))),
            ("/media", None),
            ("/media/a.txt", None),
            ("/api/media", None),
            ("/api/media/", None),
            ("/", None),
        ] {
            assert_eq!(parse(target, "/media"), expected, "{target}");
        }
        assert_eq!(parse("/", "/"), folder(""));
        // It would be the location of the response, and lead to another host.
        assert_eq!(parse("//b.example/", "/"), Some(Err(UploadError::Name)));
    }

    #[test]
    fn names_of_forms_are_last_segments() {
        for (folder, given, expected) in [
            ("", "a.txt", Ok("a.txt")),
            ("b c", "a.txt", Ok("b c/a.txt")),
            ("", "C:\\photos\\a.txt", Ok("a.txt")),
            ("", "../../a.txt", Ok("a.txt")),
            ("", "..", Err(UploadError::Name)),
            ("", "a/", Err(UploadError::Name)),
            ("", ".env", Err(UploadError::Name)),
            ("", "ab", Err(UploadError::Name)),
            ("x", "ab", Ok("x/ab")),
            ("", "a\u{85}b", Err(UploadError::Name)),
            ("", "a\tb", Err(UploadError::Name)),
            ("ab", &"ab".repeat(32), Err(UploadError::Name)),
        ] {
            let expected = expected.map(str::to_owned);
            assert_eq!(name_in(folder, given), expected, "{folder} {given:?}");
        }
    }

    proptest! {
        #[test]
        fn no_target_climbs_or_panics(path in "[/.%a-f0-9\\\\~]{0,40}") {
            if let Ok(name) = decode(&path) {
                for segment in name.split('/') {
                    prop_assert!(!matches!(segment, "" | "." | ".."));
                }
            }
        }
    }
}
