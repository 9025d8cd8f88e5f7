//! Preconditions of an upload to a name (RFC 9110 section 13).

use super::error::UploadError;
use crate::store::ObjectVersion;
use http::HeaderMap;
use http::header::{self, HeaderName};
use std::time::SystemTime;

/// Preconditions of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    if_unmodified_since: Option<SystemTime>,
}

/// Entity tags of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    /// `*`: any file.
    Any,
    /// Whether each tag is weak, and its text without quotes.
    List(Vec<(bool, String)>),
}

/// File that has the name before the upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CurrentFile {
    /// Version, of which the entity tag is made.
    pub(super) version: Option<ObjectVersion>,
    /// Modification time.
    pub(super) modified: Option<SystemTime>,
}

impl Conditions {
    /// Parses the fields.
    ///
    /// # Errors
    /// [`UploadError::MalformedField`] if a field of entity tags is malformed. A date that is none is ignored (RFC 9110
    /// section 13.1.4).
    pub(super) fn parse(headers: &HeaderMap) -> Result<Self, UploadError> {
        let date = headers.get(header::IF_UNMODIFIED_SINCE);
        let date = date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let if_match = Tags::parse(headers, &header::IF_MATCH);
        let if_none_match = Tags::parse(headers, &header::IF_NONE_MATCH);
        Ok(Conditions {
            if_match: if_match.ok_or(UploadError::MalformedField("if-match"))?,
            if_none_match: if_none_match.ok_or(UploadError::MalformedField("if-none-match"))?,
            if_unmodified_since: date,
        })
    }

    /// Returns whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        *self == Conditions::default()
    }

    /// Evaluates the preconditions for the file that has the name (RFC 9110 section 13.2.2).
    ///
    /// # Errors
    /// [`UploadError::Precondition`].
    pub(super) fn check(&self, current: Option<&CurrentFile>) -> Result<(), UploadError> {
        let is_met = match (&self.if_match, self.if_unmodified_since) {
            (Some(tags), _) => tags.matches(current, TagComparison::Strong),
            // A file without a modification time has no such condition.
            (None, Some(date)) => current
                .and_then(|current| current.modified)
                .is_none_or(|modified| whole_seconds(modified) <= whole_seconds(date)),
            (None, None) => true,
        };
        let none_match = self.if_none_match.as_ref();
        if is_met && none_match.is_none_or(|tags| !tags.matches(current, TagComparison::Weak)) {
            return Ok(());
        }
        Err(UploadError::Precondition)
    }
}

/// TagComparison of entity tags (RFC 9110 section 8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum TagComparison {
    Strong,
    Weak,
}

impl Tags {
    /// Parses the lines of a field. `None` if they are malformed, `Some(None)` if there is none.
    fn parse(headers: &HeaderMap, name: &HeaderName) -> Option<Option<Self>> {
        if !headers.contains_key(name) {
            return Some(None);
        }
        let mut tags = Vec::new();
        for line in headers.get_all(name) {
            let mut rest = line.to_str().ok()?.trim();
            if rest == "*" {
                return Some(Some(Tags::Any));
            }
            while !rest.is_empty() {
                let weak = rest.strip_prefix("W/");
                let (tag, after) = weak.unwrap_or(rest).strip_prefix('"')?.split_once('"')?;
                tags.push((weak.is_some(), tag.to_owned()));
                rest = after.trim_start();
                if !rest.is_empty() {
                    rest = rest.strip_prefix(',')?.trim_start();
                }
            }
        }
        Some(Some(Tags::List(tags)))
    }

    fn matches(&self, current: Option<&CurrentFile>, comparison: TagComparison) -> bool {
        let Some(current) = current else {
            return false;
        };
        let Tags::List(tags) = self else {
            return true;
        };
        let (is_weak, version) = match &current.version {
            Some(ObjectVersion::Strong(version)) => (false, version),
            Some(ObjectVersion::Weak(version)) => (true, version),
            None => return false,
        };
        tags.iter().any(|(tag_is_weak, tag)| {
            let is_comparable = comparison == TagComparison::Weak || !(is_weak || *tag_is_weak);
            is_comparable && tag == version
        })
    }
}

/// Returns a time in whole seconds, as a date of HTTP has it.
fn whole_seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::HeaderValue;
    use std::time::Duration;

    fn check(name: &'static str, value: &str, current: Option<&CurrentFile>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        Conditions::parse(&headers).unwrap().check(current).is_ok()
    }

    #[test]
    fn preconditions() {
        let strong = CurrentFile {
            version: Some(ObjectVersion::Strong("a,b".into())),
            modified: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_500)),
        };
        let weak = CurrentFile {
            version: Some(ObjectVersion::Weak("a".into())),
            modified: None,
        };
        for (name, value, is_met_by) in [
            ("if-none-match", "*", [true, false, false]),
            ("if-none-match", "\"a,b\"", [true, false, true]),
            ("if-none-match", "W/\"x\", W/\"a\"", [true, true, false]),
            ("if-match", "*", [false, true, true]),
            ("if-match", "\"x\", \"a,b\"", [false, true, false]),
            ("if-match", "W/\"a,b\"", [false, false, false]),
            ("if-match", "\"a\"", [false, false, false]),
            (
                "if-unmodified-since",
                "Thu, 01 Jan 1970 00:16:40 GMT",
                [true; 3],
            ),
            (
                "if-unmodified-since",
                "Thu, 01 Jan 1970 00:16:39 GMT",
                [true, false, true],
            ),
            ("if-unmodified-since", "never", [true; 3]),
        ] {
            let met = [None, Some(&strong), Some(&weak)];
            let met = met.map(|current| check(name, value, current));
            assert_eq!(met, is_met_by, "{name}: {value}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MATCH, HeaderValue::from_static("a"));
        let error = Conditions::parse(&headers).unwrap_err();
        assert_eq!(error, UploadError::MalformedField("if-match"));
        assert!(Conditions::parse(&HeaderMap::new()).unwrap().is_empty());
    }
}
