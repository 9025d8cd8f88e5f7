//! Watches the bytes of request heads as they come, for what two readers could understand differently.
//!
//! Request smuggling lives on that: one reader sees one request where the next sees two. The parser behind this takes
//! a bare LF for a line's end, and keeps quiet about a `Content-Length` that a `Transfer-Encoding` overrides. Here
//! both make a head unsound; and behind a head that is unsound, or that announces content, nothing is ever taken
//! for a request: the connection ends with its answer.

use memchr::{memchr2, memchr3};

/// What a request's head says about where it ends and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// It ends where everyone sees it end, and the next request follows.
    NoBody,
    /// Content follows.
    Body,
    /// It is not to be trusted.
    Invalid(FramingError),
}

/// Why a head is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FramingError {
    /// RFC 9112 section 2.2 lets a recipient take it for a line's end, and does not ask it to.
    #[error("a line ends with LF alone")]
    BareLf,
    /// RFC 9112 section 2.2.
    #[error("a CR stands alone")]
    BareCr,
    /// RFC 9112 section 6.1.
    #[error("both Content-Length and Transfer-Encoding")]
    TwoLengths,
    /// RFC 9112 section 3.2.
    #[error("a fragment in the target")]
    Fragment,
    /// Nothing of what comes so is answered, since its client believes that nobody reads along.
    #[error("plain HTTP where TLS is spoken")]
    Plain,
}

/// Reads along, head after head, until one that is the connection's last.
#[derive(Debug, Default)]
pub(crate) struct FramingScanner {
    /// Heads that have ended and are sound.
    sound: u64,
    /// Heads that have been asked about.
    asked: u64,
    /// What the head after the sound ones is, once it is known to be the last.
    last: Option<Framing>,
    head: Head,
}

impl FramingScanner {
    /// Takes these bytes into account. They may begin and end anywhere.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) {
        while self.last.is_none() {
            bytes = self.head.skip(bytes);
            let Some((&byte, rest)) = bytes.split_first() else {
                return;
            };
            bytes = rest;
            self.read_byte(byte);
        }
    }

    fn read_byte(&mut self, byte: u8) {
        match self.head.read(byte) {
            Ok(None) => {}
            Ok(Some(Framing::NoBody)) => {
                self.sound += 1;
                self.head = Head::default();
            }
            Ok(Some(last)) => self.last = Some(last),
            Err(fault) => self.last = Some(Framing::Invalid(fault)),
        }
    }

    /// No head is to be trusted, whatever comes.
    pub(crate) fn refuse(&mut self, fault: FramingError) {
        self.last = Some(Framing::Invalid(fault));
    }

    /// Whether there is a sound head that nobody has asked about yet, the only one, and nothing has come behind it.
    pub(crate) fn has_one_head(&self) -> bool {
        self.has_ended(self.asked + 1)
    }

    /// Whether all that has come has been asked about, and more may come.
    pub(crate) fn is_between_heads(&self) -> bool {
        self.has_ended(self.asked)
    }

    fn has_ended(&self, heads: u64) -> bool {
        self.last.is_none() && self.sound == heads && self.head.is_empty()
    }

    /// What the next request's head is. To be asked once for each request, in their order.
    pub(crate) fn next(&mut self) -> Framing {
        self.asked += 1;
        if self.asked <= self.sound {
            return Framing::NoBody;
        }
        // The parser has seen a whole head here, so there is a last one. Were there none, the two would differ
        // about where heads end, and that alone is reason enough to go no further.
        self.last.unwrap_or(Framing::Body)
    }
}

/// A head of which some has come.
#[derive(Debug, Default)]
struct Head {
    /// Lines that have ended; empty ones before the first do not count (RFC 9112 section 2.2).
    lines: usize,
    line: Line,
    after_cr: bool,
    has_length: bool,
    has_coding: bool,
    has_content: bool,
}

impl Head {
    fn is_empty(&self) -> bool {
        self.lines == 0 && self.line.length == 0 && !self.after_cr
    }

    /// Leaves out what makes no difference: most of a line, once it is known which field it is.
    fn skip<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.after_cr || !self.line.is_known() {
            return bytes;
        }
        let next = match self.lines {
            0 => memchr3(b'\r', b'\n', b'#', bytes),
            _ => memchr2(b'\r', b'\n', bytes),
        };
        let skipped = next.unwrap_or(bytes.len());
        self.line.length += skipped;
        &bytes[skipped..]
    }

    /// The head's framing, once it has ended.
    fn read(&mut self, byte: u8) -> Result<Option<Framing>, FramingError> {
        match byte {
            b'\n' if self.after_cr => {
                self.after_cr = false;
                return self.end_line();
            }
            b'\n' => return Err(FramingError::BareLf),
            _ if self.after_cr => return Err(FramingError::BareCr),
            b'\r' => self.after_cr = true,
            b'#' if self.lines == 0 => return Err(FramingError::Fragment),
            _ => self.line.read(byte),
        }
        Ok(None)
    }

    fn end_line(&mut self) -> Result<Option<Framing>, FramingError> {
        let line = std::mem::take(&mut self.line);
        if line.length == 0 {
            return if self.lines == 0 {
                Ok(None)
            } else {
                self.end()
            };
        }
        self.lines += 1;
        match line.field {
            Field::Length { is_zero } => {
                self.has_length = true;
                self.has_content |= !is_zero;
            }
            Field::Coding => self.has_coding = true,
            Field::Other => {}
        }
        Ok(None)
    }

    fn end(&self) -> Result<Option<Framing>, FramingError> {
        match (self.has_length, self.has_coding) {
            (true, true) => Err(FramingError::TwoLengths),
            (_, true) => Ok(Some(Framing::Body)),
            _ if self.has_content => Ok(Some(Framing::Body)),
            _ => Ok(Some(Framing::NoBody)),
        }
    }
}

/// A line of which some has come.
#[derive(Debug, Default)]
struct Line {
    length: usize,
    /// The beginning, which is as long as the longest name that matters.
    start: [u8; TRANSFER_ENCODING.len()],
    field: Field,
}

const CONTENT_LENGTH: &str = "content-length";
const TRANSFER_ENCODING: &str = "transfer-encoding";

/// The fields that matter here.
#[derive(Debug, Default, Clone, Copy)]
enum Field {
    #[default]
    Other,
    Length {
        is_zero: bool,
    },
    Coding,
}

impl Line {
    /// Whether it is a field that does not matter, whatever comes.
    fn is_known(&self) -> bool {
        self.length > self.start.len() && matches!(self.field, Field::Other | Field::Coding)
    }

    fn read(&mut self, byte: u8) {
        if let Field::Length { is_zero } = &mut self.field {
            *is_zero &= matches!(byte, b'0' | b' ' | b'\t');
        }
        if byte == b':' {
            // A name that is longer does not fit, and one that is shorter is followed by zeros: neither is equal.
            let name = self.start.get(..self.length).unwrap_or_default();
            if name.eq_ignore_ascii_case(CONTENT_LENGTH.as_bytes()) {
                self.field = Field::Length { is_zero: true };
            } else if name.eq_ignore_ascii_case(TRANSFER_ENCODING.as_bytes()) {
                self.field = Field::Coding;
            }
        }
        if let Some(place) = self.start.get_mut(self.length) {
            *place = byte;
        }
        self.length += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the first request after the sound ones is, and how many those are.
    fn last(text: &str) -> (u64, Option<Framing>) {
        let mut whole = FramingScanner::default();
        whole.read(text.as_bytes());
        let mut by_byte = FramingScanner::default();
        for byte in text.bytes() {
            if by_byte.last.is_none() {
                by_byte.read_byte(byte);
            }
        }
        assert_eq!(
            (whole.sound, whole.last),
            (by_byte.sound, by_byte.last),
            "however it is cut: {text:?}"
        );
        (whole.sound, whole.last)
    }

    #[test]
    fn sound_heads_follow_each_other() {
        let head = "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nx: content-length: 5\r\n\r\n";
        assert_eq!(last(&head.repeat(3)), (3, None));
        assert_eq!(last(&format!("\r\n\r\n{head}")), (1, None));
        assert_eq!(
            last("GET / HTTP/1.1\r\nx-content-length: 5\r\n\r\n"),
            (1, None)
        );
        assert_eq!(
            last("GET / HTTP/1.1\r\ntransfer-encodings: 5\r\n\r\n"),
            (1, None)
        );
    }

    #[test]
    fn the_last_head_is_known_by_what_it_says() {
        let two = Framing::Invalid(FramingError::TwoLengths);
        for (fields, framing) in [
            ("Content-Length:5\r\n", Framing::Body),
            ("content-length: 5, 5\r\n", Framing::Body),
            ("TRANSFER-Encoding: chunked\r\n", Framing::Body),
            ("transfer-encoding: x\r\ncontent-length: 0\r\n", two),
            ("content-length: 5\r\ntransfer-encoding: x\r\n", two),
            ("x: a\n", Framing::Invalid(FramingError::BareLf)),
            ("x: a\rb\r\n", Framing::Invalid(FramingError::BareCr)),
        ] {
            let text = format!("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n{fields}\r\n\n\n\r");
            assert_eq!(last(&text), (1, Some(framing)), "{fields:?}");
        }
        let fragment = Framing::Invalid(FramingError::Fragment);
        assert_eq!(last("GET /#a HTTP/1.1\r\n\r\n"), (0, Some(fragment)));
    }

    proptest! {
        #[test]
        fn it_makes_no_difference_how_heads_are_cut(
            text in "(GET /|a: #|content-length|transfer-encoding|:| 0|[1#]|x{1,40}|\r\n|\r|\n){0,40}",
        ) {
            last(&text);
        }
    }

    #[test]
    fn each_request_is_told_its_own() {
        let mut scan = FramingScanner::default();
        scan.read(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\ncontent-length: 1\r\n\r\n");
        assert_eq!(scan.next(), Framing::NoBody);
        assert_eq!(scan.next(), Framing::Body);
    }

    #[test]
    fn nothing_is_sound_once_all_is_refused() {
        let mut scan = FramingScanner::default();
        scan.refuse(FramingError::Plain);
        scan.read(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        assert!(!scan.has_one_head() && !scan.is_between_heads());
        assert_eq!(scan.next(), Framing::Invalid(FramingError::Plain));
    }
}
