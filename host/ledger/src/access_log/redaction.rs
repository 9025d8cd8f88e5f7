//! Text of clients in the log: on one line, and without secrets.

use std::fmt;

/// A URL or a request's target for the log, in which the values of secrets are replaced.
///
/// [`RedactedUrl::parts`] returns all there is to log. `Display` writes it on one line, with special characters escaped as
/// in Rust, and in quotation marks if it has a space.
#[derive(Debug, Clone, Copy)]
pub struct RedactedUrl<'a>(&'a [u8]);

/// Replacement of a secret in the log.
const REDACTED: &[u8] = b"[redacted]";

impl<'a> RedactedUrl<'a> {
    /// Redacts a URL or a target, in whichever form.
    #[must_use]
    pub fn new(url: &'a [u8]) -> Self {
        RedactedUrl(url)
    }

    /// Returns the redacted bytes, in parts to be joined. A client chose them, so they may be any bytes.
    pub fn parts(self) -> impl Iterator<Item = &'a [u8]> {
        let query = self.0.iter().position(|byte| *byte == b'?');
        let (path, query) = self.0.split_at(query.unwrap_or(self.0.len()));
        // Each pair of the query keeps the separator before it.
        let mut rest = query;
        let pairs = std::iter::from_fn(move || {
            let (_, after) = rest.split_first()?;
            let end = after.iter().position(|byte| *byte == b'&');
            let (pair, next) = rest.split_at(1 + end.unwrap_or(after.len()));
            rest = next;
            Some(pair)
        });
        std::iter::once([path, b""])
            .chain(pairs.map(redacted))
            .flatten()
    }
}

/// Returns a pair of a query, with a separator before it, in two parts.
fn redacted(pair: &[u8]) -> [&[u8]; 2] {
    let end_of_name = pair.iter().position(|byte| *byte == b'=');
    match end_of_name.map(|end| pair.split_at(end + 1)) {
        Some((name, value)) if !value.is_empty() && is_secret(&name[1..name.len() - 1]) => {
            [name, REDACTED]
        }
        _ => [pair, b""],
    }
}

/// Returns whether a query parameter is a secret. `sig` is millpond's own. The other names occur in signed URLs of
/// other programs (`X-Amz-Signature`, `access_token`), because a component may come from anyone.
fn is_secret(name: &[u8]) -> bool {
    let ends_with = |word: &str| {
        let start = name.len().checked_sub(word.len());
        let end = start.and_then(|start| name.get(start..));
        end.is_some_and(|end| end.eq_ignore_ascii_case(word.as_bytes()))
    };
    name.eq_ignore_ascii_case(b"sig")
        || ["signature", "token", "password", "secret"]
            .into_iter()
            .any(ends_with)
}

impl RedactedUrl<'_> {
    /// Writes the URL as `Display` does.
    ///
    /// # Errors
    /// The error of the writer.
    pub fn write_to(self, writer: &mut impl fmt::Write) -> fmt::Result {
        let mark = if self.0.contains(&b' ') { "\"" } else { "" };
        writer.write_str(mark)?;
        self.parts()
            .try_for_each(|part| write_escaped(part, writer))?;
        writer.write_str(mark)
    }
}

impl fmt::Display for RedactedUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_to(f)
    }
}

/// Text that a client sent, for the log. It may be any bytes.
///
/// `Display` writes it on one line. Text with a space or a special character is in quotation marks, and escaped as in Rust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientText<'a>(pub &'a [u8]);

impl ClientText<'_> {
    /// Writes the text as `Display` does.
    ///
    /// # Errors
    /// The error of the writer.
    pub fn write_to(self, writer: &mut impl fmt::Write) -> fmt::Result {
        let is_bare = |byte: &u8| *byte != b' ' && is_plain(byte);
        let is_bare = !self.0.is_empty() && self.0.iter().all(is_bare);
        let mark = if is_bare { "" } else { "\"" };
        writer.write_str(mark)?;
        write_escaped(self.0, writer)?;
        writer.write_str(mark)
    }
}

impl fmt::Display for ClientText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_to(f)
    }
}

/// Returns whether a byte is written as it is.
fn is_plain(byte: &u8) -> bool {
    (b' '..=b'~').contains(byte) && !matches!(byte, b'"' | b'\'' | b'\\')
}

/// Writes bytes on one line: special characters escaped as in Rust, and bytes that are no UTF-8 as `\xff`.
fn write_escaped(mut bytes: &[u8], writer: &mut impl fmt::Write) -> fmt::Result {
    // Most text is plain, and is written in runs.
    while !bytes.is_empty() {
        let special = bytes.iter().position(|byte| !is_plain(byte));
        let (plain, rest) = bytes.split_at(special.unwrap_or(bytes.len()));
        // Plain bytes are ASCII.
        writer.write_str(std::str::from_utf8(plain).unwrap_or_default())?;
        let end = rest.iter().position(is_plain);
        let (special, rest) = rest.split_at(end.unwrap_or(rest.len()));
        for chunk in special.utf8_chunks() {
            write!(writer, "{}", chunk.valid().escape_debug())?;
            for byte in chunk.invalid() {
                write!(writer, "\\x{byte:02x}")?;
            }
        }
        bytes = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_logged_escaped() {
        for target in [
            "/a.gif?b=c&d",
            "*",
            "/a\"b",
            "/a'b",
            "/a\\b",
            "/\u{e4}",
            "/\n\u{1b}[1m",
            "",
        ] {
            assert_eq!(
                RedactedUrl::new(target.as_bytes()).to_string(),
                target.escape_debug().to_string()
            );
        }
        assert_eq!(RedactedUrl::new(b"/\xff\xe4a").to_string(), "/\\xff\\xe4a");
    }

    #[test]
    fn text_that_could_be_taken_for_another_field_is_quoted() {
        for (text, logged) in [
            (&b"curl/8.5.0"[..], "curl/8.5.0"),
            (b"", "\"\""),
            (b"a status=200", "\"a status=200\""),
            (b"a\" b", "\"a\\\" b\""),
            (b"\r\n\xff\x1b", "\"\\r\\n\\xff\\u{1b}\""),
            ("\u{e4}".as_bytes(), "\"\u{e4}\""),
        ] {
            assert_eq!(ClientText(text).to_string(), logged);
        }
        let referrer = RedactedUrl::new(b"/a status=200?sig=x");
        assert_eq!(referrer.to_string(), "\"/a status=200?sig=[redacted]\"");
    }

    #[test]
    fn a_signature_that_can_be_used_is_not_logged() {
        for (target, logged) in [
            (
                "/api/media/ab?exp=1&key=k1&ip=10.0.0.1&sig=c2VjcmV0",
                "/api/media/ab?exp=1&key=k1&ip=10.0.0.1&sig=[redacted]",
            ),
            ("/a?sig=c2Vj&download=b", "/a?sig=[redacted]&download=b"),
            (
                "/a?sig=x&SIG=y&sig=\"z",
                "/a?sig=[redacted]&SIG=[redacted]&sig=[redacted]",
            ),
            ("/a?sig=x=y?z&b", "/a?sig=[redacted]&b"),
            (
                "/a?X-Amz-Signature=x&access_token=y",
                "/a?X-Amz-Signature=[redacted]&access_token=[redacted]",
            ),
            ("/a?\u{e4}=b&sig=x", "/a?\u{e4}=b&sig=[redacted]"),
            (
                "https://a.example/p?sig=x#f",
                "https://a.example/p?sig=[redacted]",
            ),
            ("/a?sig=", "/a?sig="),
            ("/a?", "/a?"),
            ("/a?sig&sign=x&design=y&?&&", "/a?sig&sign=x&design=y&?&&"),
            ("/sig=x/a", "/sig=x/a"),
        ] {
            assert_eq!(RedactedUrl::new(target.as_bytes()).to_string(), logged);
        }
    }
}
