//! Content addresses.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Address of media: the SHA-256 of its bytes, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentId([u8; 32]);

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a content id: it has to be 64 lower-case hexadecimal digits")]
pub struct ParseContentIdError;

impl ContentId {
    /// Makes the id of content with this SHA-256.
    #[must_use]
    pub fn from_digest(sha256: [u8; 32]) -> Self {
        ContentId(sha256)
    }

    /// SHA-256 of the content.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.0
    }

    /// Path of the content, relative to the store's root.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let id = self.to_string();
        PathBuf::from(&id[..2]).join(id)
    }

    /// Path of the record, relative to the store's root.
    #[must_use]
    pub fn record_path(&self) -> PathBuf {
        let id = self.to_string();
        PathBuf::from(&id[..2]).join(format!("{id}.json"))
    }
}

impl FromStr for ContentId {
    type Err = ParseContentIdError;

    fn from_str(text: &str) -> Result<Self, ParseContentIdError> {
        let mut digest = [0; 32];
        match base16ct::lower::decode(text, &mut digest) {
            Ok(decoded) if decoded.len() == 32 => Ok(ContentId(digest)),
            _ => Err(ParseContentIdError),
        }
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base16ct::lower::encode_string(&self.0))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
            assert_eq!(
                text.parse::<ContentId>(),
                Err(ParseContentIdError),
                "{text}"
            );
        }
    }
}
