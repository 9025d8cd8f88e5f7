//! Request id: taken from `X-Request-Id`, or made. The response and the log line have it.

use http::HeaderValue;
use std::fmt;

/// Maximum length of a request id that is taken from a request, in bytes. A UUID has 36.
const REQUEST_ID_BYTES: usize = 64;

/// Length of the field's name, the colon and the space before the id.
const NAME_BYTES: usize = "x-request-id: ".len();

/// Id of a request, as the line of the response's field. It needs no allocation.
#[derive(Clone, Copy)]
pub(crate) struct RequestId {
    line: [u8; NAME_BYTES + REQUEST_ID_BYTES + 2],
    /// Length of the id.
    length: usize,
}

impl RequestId {
    /// Returns the id of a request with these lines of `X-Request-Id`. A single line with a plain token is taken. Else a
    /// new id is made, of 128 random bits.
    pub(crate) fn of<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> Self {
        match (lines.next(), lines.next()) {
            (Some(id), None) if is_plain_token(id) => RequestId::from_token(id),
            _ => RequestId::random(),
        }
    }

    /// Makes a new id.
    pub(crate) fn random() -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bits = rand::random::<u128>();
        let digits: [u8; 32] =
            std::array::from_fn(|place| DIGITS[(bits >> (4 * place)) as usize & 15]);
        RequestId::from_token(&digits)
    }

    fn from_token(id: &[u8]) -> Self {
        let mut line = [0; NAME_BYTES + REQUEST_ID_BYTES + 2];
        line[..NAME_BYTES].copy_from_slice(b"x-request-id: ");
        line[NAME_BYTES..][..id.len()].copy_from_slice(id);
        line[NAME_BYTES + id.len()..][..2].copy_from_slice(b"\r\n");
        RequestId {
            line,
            length: id.len(),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        let id = &self.line[NAME_BYTES..][..self.length];
        // A token is ASCII.
        std::str::from_utf8(id).unwrap_or_default()
    }

    /// The id as a field line of HTTP/1.1.
    pub(crate) fn line(&self) -> &[u8] {
        &self.line[..NAME_BYTES + self.length + 2]
    }
}

/// Returns whether a token can be logged, and sent back, as it is.
fn is_plain_token(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~+/=:@".contains(byte);
    (1..=REQUEST_ID_BYTES).contains(&id.len()) && id.iter().all(is_plain)
}

impl From<&RequestId> for HeaderValue {
    fn from(id: &RequestId) -> Self {
        // A token is a field value.
        HeaderValue::from_str(id.as_str()).unwrap_or(HeaderValue::from_static(""))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond::downstream::X_REQUEST_ID;

    #[test]
    fn a_plain_token_is_taken_and_all_else_is_replaced() {
        let longest = "x".repeat(REQUEST_ID_BYTES);
        for taken in [
            "1",
            "0192f0c1-5d2c-7c39-a6d5-6c2f5ed7d0a1",
            "Root=1-67891233-abcdef012345678912345678",
            &longest,
        ] {
            let id = RequestId::of([taken.as_bytes()].into_iter());
            assert_eq!(id.as_str(), taken);
            assert_eq!(id.line(), format!("{X_REQUEST_ID}: {taken}\r\n").as_bytes());
        }
        let too_long = "x".repeat(REQUEST_ID_BYTES + 1);
        for lines in [
            &[][..],
            &["", "a"],
            &["a", "a"],
            &[""],
            &["a b"],
            &["a\tb"],
            &["a\"b"],
            &["a,b"],
            &["\u{e4}"],
            &[too_long.as_str()],
        ] {
            let id = RequestId::of(lines.iter().map(|line| line.as_bytes()));
            assert_eq!(id.as_str().len(), 32, "{lines:?}");
            assert!(id.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()));
            assert_eq!(HeaderValue::from(&id), id.as_str());
        }
    }

    #[test]
    fn no_two_ids_are_equal() {
        let ids: std::collections::HashSet<String> = (0..1000)
            .map(|_| RequestId::random().as_str().to_owned())
            .collect();
        assert_eq!(ids.len(), 1000);
    }
}
