//! `Repr-Digest` and `Content-Digest` of an upload (RFC 9530).

use super::error::UploadError;
use base64ct::{Base64, Encoding};
use http::HeaderMap;
use millpond_format::ContentId;

/// Digests that the client has sent with an upload. Both fields are about the same bytes, since an upload has neither a
/// content coding nor a range. Algorithms other than `sha-256` are ignored (RFC 9530 section 2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DigestFields(Vec<(&'static str, ContentId)>);

impl DigestFields {
    /// Parses the fields.
    ///
    /// # Errors
    /// [`UploadError::MalformedField`].
    pub(super) fn parse(headers: &HeaderMap) -> Result<Self, UploadError> {
        let mut digests = Vec::new();
        for name in ["repr-digest", "content-digest"] {
            let malformed = || UploadError::MalformedField(name);
            for line in headers.get_all(name) {
                let line = line.to_str().map_err(|_| malformed())?;
                for member in line.split(',') {
                    let (key, value) = member.trim().split_once('=').ok_or_else(malformed)?;
                    let value = value
                        .strip_prefix(':')
                        .and_then(|rest| rest.strip_suffix(':'));
                    let value = value.ok_or_else(malformed)?;
                    if key != "sha-256" {
                        continue;
                    }
                    let mut digest = [0; 32];
                    let decoded = Base64::decode(value, &mut digest).map_err(|_| malformed())?;
                    if decoded.len() != digest.len() {
                        return Err(malformed());
                    }
                    digests.push((name, ContentId::from_digest(digest)));
                }
            }
        }
        Ok(DigestFields(digests))
    }

    /// Compares the digests with the one of the content.
    ///
    /// # Errors
    /// [`UploadError::Digest`].
    pub(super) fn check(&self, content: &ContentId) -> Result<(), UploadError> {
        let mut digests = self.0.iter();
        match digests.find(|(_, digest)| digest != content) {
            Some((name, _)) => Err(UploadError::Digest(name)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::HeaderValue;
    use sha2::{Digest, Sha256};

    fn fields(values: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn digests_are_compared() {
        let digest: [u8; 32] = Sha256::digest("content").into();
        let (id, other) = (
            ContentId::from_digest(digest),
            ContentId::from_digest([0; 32]),
        );
        let value = format!("sha-256=:{}:", Base64::encode_string(&digest));
        for value in [value.clone(), format!("sha-512=:YQ==:, {value}")] {
            for name in ["repr-digest", "content-digest"] {
                let fields = DigestFields::parse(&fields(&[(name, &value)])).unwrap();
                assert_eq!(fields.check(&id), Ok(()));
                assert_eq!(fields.check(&other), Err(UploadError::Digest(name)));
            }
        }
        let none = DigestFields::parse(&fields(&[("repr-digest", "sha-512=:YQ==:")])).unwrap();
        assert_eq!(none.check(&id), Ok(()));
    }

    #[test]
    fn malformed_digests_are_refused() {
        for value in [
            "",
            "sha-256",
            "sha-256=abc",
            "sha-256=:YQ==:",
            "sha-256=:?:",
            "sha-256=:",
        ] {
            let error = DigestFields::parse(&fields(&[("content-digest", value)])).unwrap_err();
            assert_eq!(
                error,
                UploadError::MalformedField("content-digest"),
                "{value}"
            );
        }
    }
}
