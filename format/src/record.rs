//! The record beside each stored file.

use crate::ContentId;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// Metadata of stored media. Media whose record is missing or corrupt is not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Media type, detected from the content when it was added.
    pub media_type: String,
    /// Length, in bytes.
    pub size: u64,
    /// Time when it was added.
    #[serde(with = "rfc3339")]
    pub created: SystemTime,
    /// Clients that may read it.
    pub access: Access,
    /// Other formats or codings of the same media, each stored under its own content id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variants: Vec<Variant>,
}

/// Another format or coding of the same media.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// Content id.
    pub id: ContentId,
    /// Media type.
    pub media_type: String,
    /// Content coding (RFC 9110 section 8.4.1), if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_coding: Option<String>,
}

/// Maximum number of variants of one record: formats times codings.
pub const MAX_VARIANTS: usize = 16;

/// Clients that may read stored media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Every client.
    Public,
    /// Clients with a signed URL.
    Private,
}

/// Maximum length of a record, in bytes. A typical record has 150.
pub const RECORD_BYTES: u64 = 16 * 1024;

impl Record {
    /// Parses a record as it is stored. Returns `None` if it is corrupt.
    ///
    /// A media type or coding that is no valid header value counts as corruption.
    #[must_use]
    pub fn parse(json: &[u8]) -> Option<Self> {
        let record: Record = serde_json::from_slice(json).ok()?;
        let is_value = |text: &str| http::HeaderValue::from_str(text).is_ok();
        let are_valid = record.variants.len() <= MAX_VARIANTS
            && record.variants.iter().all(|variant| {
                let coding = variant.content_coding.as_deref();
                is_value(&variant.media_type) && is_value(coding.unwrap_or_default())
            });
        (is_value(&record.media_type) && are_valid).then_some(record)
    }
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
    fn corrupt_records_are_none() {
        let whole = r#"{"media_type":"image/gif","size":3,"created":"2026-01-02T03:04:05Z","access":"public"}"#;
        assert!(Record::parse(whole.as_bytes()).is_some());
        for corrupt in [
            "",
            "{}",
            &whole[..40],
            &whole.replace("public", "privat"),
            &whole.replace("3,", "-3,"),
            &whole.replace("2026-01", "2026-13"),
            &whole.replace("image/gif", "image/gif\\r\\nx: y"),
        ] {
            assert_eq!(Record::parse(corrupt.as_bytes()), None, "{corrupt}");
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
