//! A response's head as HTTP/1.0 and 1.1 have it (RFC 9112 section 4), and the framing of its body (section 6).

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode, Version};
use httpdate::HttpDate;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a body's end is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    /// There is no body, whatever the head says of its length.
    None,
    /// Body of this length, which `Content-Length` states.
    Length(u64),
    /// Chunks, the last of which is empty (RFC 9112 section 7.1).
    Chunked,
    /// The connection ends with the body: all that HTTP/1.0 has for a body of unknown length.
    Close,
}

impl BodyFraming {
    /// The framing of the response to a request, whose body has that length where it is known.
    pub(crate) fn of(request: (&Method, Version), status: StatusCode, length: Option<u64>) -> Self {
        let has_none = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let (method, version) = request;
        match length {
            _ if has_none || method == Method::HEAD => BodyFraming::None,
            Some(length) => BodyFraming::Length(length),
            None if version == Version::HTTP_10 => BodyFraming::Close,
            None => BodyFraming::Chunked,
        }
    }
}

/// The connection after a response (RFC 9112 section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    KeepAlive,
    Close,
}

/// Writes a head. This server sets the fields about the connection and the body's framing, and leaves out those of `fields`.
/// A response without a body keeps its `Content-Length`.
pub(crate) fn encode_head(
    to: &mut Vec<u8>,
    (version, status): (Version, StatusCode),
    fields: &HeaderMap,
    framing: BodyFraming,
    persistence: Persistence,
    date: &mut DateLine,
) {
    to.extend_from_slice(match version {
        Version::HTTP_10 => b"HTTP/1.0 ",
        _ => b"HTTP/1.1 ",
    });
    to.extend_from_slice(status.as_str().as_bytes());
    to.push(b' ');
    // A status that nobody has named has no reason phrase, and keeps the space (RFC 9112 section 4).
    to.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    to.extend_from_slice(b"\r\n");
    let (mut has_length, mut has_date) = (false, false);
    for (name, value) in fields {
        if *name == header::CONTENT_LENGTH && framing != BodyFraming::None {
            if let BodyFraming::Length(length) = framing
                && !has_length
            {
                write_line(to, name.as_str().as_bytes(), length.to_string().as_bytes());
                has_length = true;
            }
            continue;
        }
        has_date |= *name == header::DATE;
        if !is_of_connection(name) {
            write_line(to, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    match framing {
        BodyFraming::Length(length) if !has_length => {
            write_line(to, b"content-length", length.to_string().as_bytes());
        }
        BodyFraming::Chunked => write_line(to, b"transfer-encoding", b"chunked"),
        BodyFraming::None | BodyFraming::Length(_) | BodyFraming::Close => {}
    }
    to.extend_from_slice(persistence_line(version, persistence));
    if has_date {
        to.extend_from_slice(b"\r\n");
    } else {
        to.extend_from_slice(date.now());
    }
}

/// The `Connection` field, where the version's default is not meant.
pub(crate) fn persistence_line(version: Version, persistence: Persistence) -> &'static [u8] {
    match (version, persistence) {
        (_, Persistence::Close) => b"connection: close\r\n",
        (Version::HTTP_10, Persistence::KeepAlive) => b"connection: keep-alive\r\n",
        (_, Persistence::KeepAlive) => b"",
    }
}

fn is_of_connection(name: &HeaderName) -> bool {
    *name == header::CONNECTION || *name == header::TRANSFER_ENCODING
}

fn write_line(to: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    to.extend_from_slice(name);
    to.extend_from_slice(b": ");
    to.extend_from_slice(value);
    to.extend_from_slice(b"\r\n");
}

/// Writes the first line of a chunk of so many bytes.
pub(crate) fn write_chunk_size(to: &mut Vec<u8>, bytes: usize) {
    // Writing to memory does not fail.
    let _ = write!(to, "{bytes:x}\r\n");
}

/// End of a chunk.
pub(crate) const CHUNK_END: &[u8] = b"\r\n";

/// The last chunk, without trailers.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The `Date` field and the end of a head, written anew when a second has passed (RFC 9110 section 6.6.1).
#[derive(Debug)]
pub(crate) struct DateLine {
    second: Duration,
    line: [u8; DATE_LINE_BYTES],
}

const DATE_LINE_BYTES: usize = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n".len();

impl DateLine {
    pub(crate) fn new() -> Self {
        DateLine {
            second: Duration::MAX,
            line: [0; DATE_LINE_BYTES],
        }
    }

    pub(crate) fn now(&mut self) -> &[u8] {
        let now = SystemTime::now();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = Duration::from_secs(since.as_secs());
        if second != self.second {
            self.second = second;
            let mut line = &mut self.line[..];
            let date = HttpDate::from(UNIX_EPOCH + second);
            // Every such date is as long, so that it fits.
            let _ = write!(line, "date: {date}\r\n\r\n");
        }
        &self.line
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn head(
        start: (Version, StatusCode),
        fields: &[(&'static str, &'static str)],
        framing: BodyFraming,
        persistence: Persistence,
    ) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, value.parse().unwrap());
        }
        let mut head = Vec::new();
        let mut date = DateLine::new();
        encode_head(&mut head, start, &map, framing, persistence, &mut date);
        String::from_utf8(head).unwrap()
    }

    #[test]
    fn heads() {
        const OK: (Version, StatusCode) = (Version::HTTP_11, StatusCode::OK);
        const OLD: (Version, StatusCode) = (Version::HTTP_10, StatusCode::OK);
        let (keep, close) = (Persistence::KeepAlive, Persistence::Close);
        let length = ("content-length", "5");
        let date = ("date", "x");
        for (start, fields, framing, persistence, expected) in [
            (
                OK,
                vec![date],
                BodyFraming::Length(5),
                keep,
                "HTTP/1.1 200 OK|date: x|content-length: 5||",
            ),
            (
                OK,
                vec![length, date],
                BodyFraming::Length(5),
                keep,
                "HTTP/1.1 200 OK|content-length: 5|date: x||",
            ),
            (
                OK,
                vec![length, date],
                BodyFraming::None,
                keep,
                "HTTP/1.1 200 OK|content-length: 5|date: x||",
            ),
            (
                OK,
                vec![date],
                BodyFraming::None,
                keep,
                "HTTP/1.1 200 OK|date: x||",
            ),
            (
                OK,
                vec![length, date],
                BodyFraming::Chunked,
                keep,
                "HTTP/1.1 200 OK|date: x|transfer-encoding: chunked||",
            ),
            (
                OLD,
                vec![length, date],
                BodyFraming::Close,
                close,
                "HTTP/1.0 200 OK|date: x|connection: close||",
            ),
            (
                OLD,
                vec![date],
                BodyFraming::Length(0),
                keep,
                "HTTP/1.0 200 OK|date: x|content-length: 0|connection: keep-alive||",
            ),
            (
                OK,
                vec![date, ("connection", "x"), ("transfer-encoding", "y")],
                BodyFraming::Length(1),
                close,
                "HTTP/1.1 200 OK|date: x|content-length: 1|connection: close||",
            ),
        ] {
            let head = head(start, &fields, framing, persistence);
            assert_eq!(head.replace("\r\n", "|"), expected);
        }
        let unnamed = StatusCode::from_u16(299).unwrap();
        let head = head(
            (Version::HTTP_11, unnamed),
            &[date],
            BodyFraming::None,
            keep,
        );
        assert_eq!(head, "HTTP/1.1 299 \r\ndate: x\r\n\r\n");
    }

    #[test]
    fn bodies() {
        let of = |method: Method, version, status: u16, length| {
            BodyFraming::of(
                (&method, version),
                StatusCode::from_u16(status).unwrap(),
                length,
            )
        };
        let (old, new) = (Version::HTTP_10, Version::HTTP_11);
        assert_eq!(of(Method::GET, new, 200, Some(3)), BodyFraming::Length(3));
        assert_eq!(of(Method::GET, new, 200, None), BodyFraming::Chunked);
        assert_eq!(of(Method::GET, old, 200, None), BodyFraming::Close);
        assert_eq!(of(Method::HEAD, new, 200, Some(0)), BodyFraming::None);
        assert_eq!(of(Method::HEAD, old, 200, None), BodyFraming::None);
        assert_eq!(of(Method::GET, new, 304, Some(0)), BodyFraming::None);
        assert_eq!(of(Method::OPTIONS, new, 204, Some(0)), BodyFraming::None);
    }

    #[test]
    fn a_date_is_the_present_one() {
        let mut line = DateLine::new();
        for _ in 0..2 {
            let line = line.now();
            let date = line.strip_prefix(b"date: ").unwrap();
            let date = str::from_utf8(date.strip_suffix(b"\r\n\r\n").unwrap()).unwrap();
            let date = httpdate::parse_http_date(date).unwrap();
            assert!(date.elapsed().unwrap() < Duration::from_secs(60));
        }
    }
}
