//! The token that an upload needs (RFC 6750).

use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq;

/// Token that a client sends with an upload, as `Authorization: Bearer <token>`. `Debug` and errors do not show it.
///
/// It has the characters of RFC 6750 section 2.1: letters, digits, `-`, `.`, `_`, `~`, `+`, `/`, and `=` at the end.
#[derive(Clone)]
pub struct UploadToken {
    /// Digests of tokens have one length, so a comparison takes the same time for each.
    digest: [u8; 32],
}

/// The error of a text that is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an upload token has {TOKEN_CHARACTERS} characters or more: letters, digits, `-`, `.`, `_`, `~`, `+`, `/`, and \
     `=` at the end"
)]
pub struct InvalidUploadToken;

/// Minimum length of a token. A random token of that many characters has 96 bits in Base64.
pub const TOKEN_CHARACTERS: usize = 16;

impl FromStr for UploadToken {
    type Err = InvalidUploadToken;

    fn from_str(text: &str) -> Result<Self, InvalidUploadToken> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
        let is_valid = text.trim_end_matches('=').chars().all(is_plain);
        if !is_valid || text.len() < TOKEN_CHARACTERS {
            return Err(InvalidUploadToken);
        }
        Ok(UploadToken {
            digest: Sha256::digest(text).into(),
        })
    }
}

impl UploadToken {
    /// Returns whether a client presented this token. The time does not depend on the presented bytes.
    pub(super) fn is(&self, presented: &[u8]) -> bool {
        let presented: [u8; 32] = Sha256::digest(presented).into();
        presented.ct_eq(&self.digest).into()
    }
}

impl fmt::Debug for UploadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UploadToken")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens() {
        let token: UploadToken = "0123456789abcdef==".parse().unwrap();
        assert!(token.is(b"0123456789abcdef=="));
        for other in ["", "0123456789abcdef=", "0123456789ABCDEF=="] {
            assert!(!token.is(other.as_bytes()), "{other}");
        }
        for text in [
            "",
            "short",
            "0123456789 abcdef",
            "0123456789=abcdef",
            "0123456789abcde\u{e9}",
        ] {
            assert_eq!(text.parse::<UploadToken>().unwrap_err(), InvalidUploadToken);
        }
        assert!(!format!("{token:?}").contains("0123"));
    }
}
