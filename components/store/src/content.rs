//! Content addresses, and the record that lies beside each stored file.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;

/// The address of media: the SHA-256 of its bytes, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentId([u8; 32]);

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a content id: it has to be 64 lower-case hexadecimal digits")]
pub struct NotAContentId;

impl ContentId {
    /// The id of content with that SHA-256.
    #[must_use]
    pub fn from_digest(sha256: [u8; 32]) -> Self {
        ContentId(sha256)
    }

    /// Where the content lies, from the store's root.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let id = self.to_string();
        PathBuf::from(&id[..2]).join(id)
    }

    /// Where its record lies, from the store's root.
    #[must_use]
    pub fn record_path(&self) -> PathBuf {
        let id = self.to_string();
        PathBuf::from(&id[..2]).join(format!("{id}.json"))
    }
}

impl FromStr for ContentId {
    type Err = NotAContentId;

    fn from_str(text: &str) -> Result<Self, NotAContentId> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(NotAContentId);
        }
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).map_err(|_| NotAContentId)?;
        Ok(ContentId(digest))
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for ContentId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is recorded of stored media. Media whose record is missing or damaged is served to nobody: the original
/// served it to anyone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Media type, sniffed from the content when it was added.
    pub media_type: String,
    /// Length, in bytes.
    pub size: u64,
    /// When it was added.
    #[serde(with = "rfc3339")]
    pub created: SystemTime,
    /// Who may have it.
    pub access: Access,
    /// The same media in other formats or codings, each stored by its own content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<Variant>,
}

/// The same media in another format or coding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// Its address.
    pub id: ContentId,
    /// Its media type.
    pub media_type: String,
    /// Its content coding (RFC 9110 section 8.4.1), where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_coding: Option<String>,
}

/// Most variants of one media: formats times codings.
pub const VARIANTS: usize = 16;

/// Who may have stored media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Everybody.
    Public,
    /// Whoever shows a signature.
    Private,
}

/// Largest record that is read, in bytes; a real one has some 150.
pub const RECORD_BYTES: u64 = 16 * 1024;

impl Record {
    /// Reads a record as it lies in the store; `None` where it is damaged. A media type that could not
    /// stand in a field is damage too.
    #[must_use]
    pub fn parse(json: &[u8]) -> Option<Self> {
        let record: Record = serde_json::from_slice(json).ok()?;
        let is_value = |text: &str| http::HeaderValue::from_str(text).is_ok();
        let are_sound = record.variants.len() <= VARIANTS
            && record.variants.iter().all(|variant| {
                let coding = variant.content_coding.as_deref();
                is_value(&variant.media_type) && is_value(coding.unwrap_or_default())
            });
        (is_value(&record.media_type) && are_sound).then_some(record)
    }
}

/// A point in time as the interface has it: nanoseconds since 1970, and 0 for what was before (`timestamp-ns` of
/// `wit/media-store.wit`).
#[must_use]
pub fn timestamp_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use std::time::SystemTime;

    pub(super) fn serialize<S: Serializer>(
        time: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_nanos(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn ids() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(id.parse::<ContentId>().unwrap().to_string(), id);
        for text in [
            &id[1..],
            &id.to_uppercase(),
            &format!("{id}0"),
            &id.replace('a', "g"),
            "",
        ] {
            assert_eq!(text.parse::<ContentId>(), Err(NotAContentId), "{text}");
        }
    }

    #[test]
    fn damaged_records_are_none() {
        let whole = r#"{"media_type":"image/gif","size":3,"created":"2026-01-02T03:04:05Z","access":"public"}"#;
        assert!(Record::parse(whole.as_bytes()).is_some());
        for damaged in [
            "",
            "{}",
            &whole[..40],
            &whole.replace("public", "privat"),
            &whole.replace("3,", "-3,"),
            &whole.replace("2026-01", "2026-13"),
            &whole.replace("image/gif", "image/gif\\r\\nx: y"),
        ] {
            assert_eq!(Record::parse(damaged.as_bytes()), None, "{damaged}");
        }
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(size: u64, seconds in 0..253_402_300_799_u64, nanos in 0..1_000_000_000_u32) {
            let record = Record {
                media_type: "video/mp4".into(),
                size,
                created: SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos),
                access: Access::Public,
                variants: Vec::new(),
            };
            let json = serde_json::to_vec(&record).unwrap();
            prop_assert_eq!(Record::parse(&json), Some(record));
        }
    }
}
