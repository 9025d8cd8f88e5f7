//! A request's head in HTTP/1.0 and 1.1: parsed in the buffer that it was received into, and checked.
//!
//! Request smuggling lives on heads that two recipients understand differently. So a head has to be one that RFC 9110 and
//! RFC 9112 allow a response to, and one that every recipient reads alike. After a head that is not, or that announces
//! content, nothing on the connection is taken for a request.

#[cfg(feature = "uploads")]
use crate::http1::content::ContentFraming;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{Method, Request, StatusCode, Uri, Version};
use memchr::memchr_iter;
use millpond::head_size::{FIELD_LINES, head_memory_bytes};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Maximum size of a request's head, in bytes. It is well above [`millpond::head_size::TARGET_BYTES`], so that most
/// targets that are too long get a 414.
pub(crate) const HEAD_BYTES: usize = 32 * 1024;

/// The connection preface of HTTP/2 (RFC 9113 section 3.4), which is no request of HTTP/1.1.
pub(crate) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Maximum content that a request may announce, in bytes: 413 beyond. Only uploads have content that is used, and they
/// have a limit of their own. The server reads other content only after the response, so that the client sees the response.
pub(crate) const CONTENT_BYTES: usize = 64 * 1024;

/// Places for the field lines of a head.
pub(crate) type FieldLines<'a> = [MaybeUninit<httparse::Header<'a>>; FIELD_LINES];

/// Places that hold nothing yet.
pub(crate) fn field_lines<'a>() -> FieldLines<'a> {
    [const { MaybeUninit::uninit() }; FIELD_LINES]
}

/// A head whose syntax is sound.
pub(crate) struct Head<'a> {
    pub(crate) method: Method,
    /// The target, in whichever form it came.
    pub(crate) target: &'a str,
    pub(crate) version: Version,
    pub(crate) fields: &'a [httparse::Header<'a>],
    summary: FieldSummary,
    /// Its length in bytes.
    pub(crate) length: usize,
    has_bare_lf: bool,
}

/// Parses the head at the beginning of these bytes. `None` if they have no end of one.
///
/// # Errors
/// [`HeadError::Syntax`] and [`HeadError::Fields`].
pub(crate) fn parse<'a>(
    bytes: &'a [u8],
    lines: &'a mut FieldLines<'a>,
) -> Result<Option<Head<'a>>, HeadError> {
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, lines) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::Fields),
        Err(error) => return Err(HeadError::Syntax(error)),
    };
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Ok(None);
    };
    let method = Method::from_bytes(method.as_bytes());
    let fields: &'a [httparse::Header<'a>] = request.headers;
    let mut summary = FieldSummary::default();
    for field in fields {
        summary.add(field.name, field.value);
    }
    let head = &bytes[..length];
    let mut line_ends = memchr_iter(b'\n', head);
    Ok(Some(Head {
        method: method.map_err(|_| HeadError::Syntax(httparse::Error::Token))?,
        target,
        version: match version {
            0 => Version::HTTP_10,
            _ => Version::HTTP_11,
        },
        fields,
        summary,
        length,
        has_bare_lf: line_ends.any(|end| end == 0 || head[end - 1] != b'\r'),
    }))
}

impl Head<'_> {
    /// Checks the head, but for the form of its target, which is for [`check_uri`].
    ///
    /// # Errors
    /// [`HeadError`]. The connection ends with the response.
    pub(crate) fn check(&self) -> Result<(), HeadError> {
        if self.has_bare_lf {
            return Err(HeadError::BareLf);
        }
        if self.target.contains('#') {
            return Err(HeadError::Fragment);
        }
        self.summary.check(self.version)
    }

    /// Whether the target is in origin-form (RFC 9112 section 3.2.1).
    pub(crate) fn has_origin_form(&self) -> bool {
        self.target.starts_with('/')
    }

    /// Checks that no more content is announced than the server reads after the response.
    ///
    /// # Errors
    /// [`HeadError::Content`].
    pub(crate) fn check_content(&self) -> Result<(), HeadError> {
        self.summary.check_content()
    }

    /// Framing of the content. Without fields about it, there is none (RFC 9112 section 6.3).
    #[cfg(feature = "uploads")]
    pub(crate) fn content_framing(&self) -> ContentFraming {
        match (self.summary.coding, self.summary.length) {
            (Coding::Chunked, _) => ContentFraming::Chunked,
            (_, Length::Bytes(bytes)) => ContentFraming::Length(bytes),
            _ => ContentFraming::Length(0),
        }
    }

    /// Whether content follows, of which nothing is read as a request.
    pub(crate) fn has_content(&self) -> bool {
        self.summary.coding != Coding::None || matches!(self.summary.length, Length::Bytes(1..))
    }

    /// Whether the client wants the connection to go on after the response (RFC 9112 section 9.3).
    pub(crate) fn is_persistent(&self) -> bool {
        match self.version {
            Version::HTTP_10 => self.summary.keep_alive && !self.summary.close,
            _ => !self.summary.close,
        }
    }

    /// The target as a URI.
    ///
    /// # Errors
    /// [`HeadError::Target`].
    pub(crate) fn uri(&self) -> Result<Uri, HeadError> {
        Uri::try_from(self.target).map_err(|_| HeadError::Target)
    }

    /// The fields that say which client it is where a proxy sends the request.
    pub(crate) fn forwarding_fields(&self) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for field in self.fields {
            let name = if is(field, "forwarded") {
                http::header::FORWARDED
            } else if is(field, "x-forwarded-for") {
                HeaderName::from_static("x-forwarded-for")
            } else {
                continue;
            };
            if let Ok(value) = HeaderValue::from_bytes(field.value) {
                fields.append(name, value);
            }
        }
        fields
    }

    /// Where each part of the head lies in its bytes.
    pub(crate) fn places(&self, bytes: &[u8]) -> Places {
        let place = |part: &[u8]| {
            let start = part.as_ptr().addr() - bytes.as_ptr().addr();
            start..start + part.len()
        };
        let fields = self.fields.iter();
        Places {
            method: self.method.clone(),
            version: self.version,
            fields: fields
                .map(|field| (place(field.name.as_bytes()), place(field.value)))
                .collect(),
        }
    }
}

/// Where each part of a head lies, as ranges of its bytes.
pub(crate) struct Places {
    method: Method,
    version: Version,
    fields: Vec<(Range<usize>, Range<usize>)>,
}

impl Places {
    /// The head as a request, whose values are slices of its bytes.
    ///
    /// # Errors
    /// Never, as things are: what the parser takes for a field is one.
    pub(crate) fn request(self, target: Uri, bytes: &Bytes) -> Result<Request<()>, HeadError> {
        let mut request = Request::new(());
        *request.method_mut() = self.method;
        *request.version_mut() = self.version;
        *request.uri_mut() = target;
        let mut fields = HeaderMap::with_capacity(self.fields.len());
        for (name, value) in self.fields {
            let name = HeaderName::from_bytes(&bytes[name]);
            let value = HeaderValue::from_maybe_shared(bytes.slice(value));
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(HeadError::Syntax(httparse::Error::HeaderValue));
            };
            fields.append(name, value);
        }
        *request.headers_mut() = fields;
        Ok(request)
    }
}

impl<'head> Head<'head> {
    /// Returns the lines of a field, in order.
    pub(crate) fn lines<'a>(
        &'a self,
        name: &HeaderName,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a, 'head> {
        let name = name.clone();
        let fields = self.fields.iter();
        let lines = fields.filter(move |field| is(field, name.as_str()));
        lines.map(|field| field.value)
    }

    /// Bytes that the request is charged for its head.
    pub(crate) fn held_bytes(&self) -> usize {
        let fields = self.fields.iter();
        let fields = fields.map(|field| field.name.len() + field.value.len());
        head_memory_bytes(self.target, self.fields.len(), fields.sum())
    }
}

fn is(field: &httparse::Header<'_>, name: &str) -> bool {
    field.name.eq_ignore_ascii_case(name)
}

/// Checks the head of a request of HTTP/2, whose frames say where it ends. `is_content_read` says that the service reads
/// the content, however much there is.
///
/// # Errors
/// [`HeadError`].
pub(crate) fn check_parts(head: &Parts, is_content_read: bool) -> Result<(), HeadError> {
    let mut summary = FieldSummary::default();
    for (name, value) in &head.headers {
        summary.add(name.as_str(), value.as_bytes());
    }
    summary.check(head.version)?;
    if !is_content_read {
        summary.check_content()?;
    }
    check_uri(&head.method, &head.uri)
}

/// A request head that no component answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// Its syntax is not that of RFC 9112, or its bytes are no text.
    #[error("malformed request head: {0}")]
    Syntax(httparse::Error),
    /// It has more field lines than a head may.
    #[error("the request head has more than {FIELD_LINES} field lines")]
    Fields,
    /// It does not end within the size of a head.
    #[error("the request head is larger than {HEAD_BYTES} bytes")]
    TooLarge,
    #[error("there is no room for a large request head")]
    NoRoom,
    /// RFC 9112 section 2.2 lets a recipient take a bare LF for a line's end, and does not ask it to. Two recipients could
    /// see two heads.
    #[error("malformed request head: a line ends with LF alone")]
    BareLf,
    /// RFC 9112 section 6.1. Two recipients could see two lengths.
    #[error("malformed request head: both Content-Length and Transfer-Encoding")]
    TwoLengths,
    /// RFC 9112 section 3.2.
    #[error("malformed request head: a fragment in the target")]
    Fragment,
    /// Its client believes that nobody reads along.
    #[error("malformed request head: plain HTTP where TLS is spoken")]
    Plaintext,
    #[error("malformed request head: invalid Content-Length")]
    Length,
    #[error("Transfer-Encoding is not chunked")]
    Coding,
    #[error("there is not exactly one Host field")]
    HostCount,
    #[error("the Host field is not a host")]
    Host,
    #[error("the request target does not fit the method")]
    Target,
    #[error("CONNECT is not supported")]
    Connect,
    #[error("unknown expectation")]
    Expectation,
    #[error("the request content is larger than {CONTENT_BYTES} bytes")]
    Content,
}

impl HeadError {
    /// The status, and what a client is told.
    pub(crate) fn status(self) -> (StatusCode, &'static str) {
        match self {
            HeadError::Plaintext => (
                StatusCode::BAD_REQUEST,
                "A plain HTTP request was sent to an HTTPS port",
            ),
            HeadError::NoRoom => (StatusCode::SERVICE_UNAVAILABLE, "Server is busy"),
            HeadError::Fields | HeadError::TooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "Header fields too large",
            ),
            HeadError::Syntax(_)
            | HeadError::BareLf
            | HeadError::TwoLengths
            | HeadError::Fragment
            | HeadError::Length
            | HeadError::Coding => (StatusCode::BAD_REQUEST, "Malformed request"),
            HeadError::HostCount | HeadError::Host => {
                (StatusCode::BAD_REQUEST, "Missing or invalid Host field")
            }
            HeadError::Target => (StatusCode::BAD_REQUEST, "Invalid request target"),
            HeadError::Connect => (StatusCode::NOT_IMPLEMENTED, "CONNECT is not supported"),
            HeadError::Expectation => (StatusCode::EXPECTATION_FAILED, "Unknown expectation"),
            HeadError::Content => (StatusCode::PAYLOAD_TOO_LARGE, "Content too large"),
        }
    }
}

/// The fields of a head that say where the request ends, whose it is, and what becomes of the connection.
#[derive(Debug, Default)]
struct FieldSummary {
    hosts: usize,
    has_invalid_host: bool,
    length: Length,
    coding: Coding,
    has_unknown_expectation: bool,
    close: bool,
    keep_alive: bool,
}

/// `Content-Length` (RFC 9110 section 8.6).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Length {
    #[default]
    None,
    Bytes(u64),
    Invalid,
}

/// `Transfer-Encoding`: `chunked`, once, or nothing. Other codings may mean another length to a recipient before us
/// (RFC 9112 sections 6.1 and 7).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Coding {
    #[default]
    None,
    Chunked,
    Other,
}

impl FieldSummary {
    fn add(&mut self, name: &str, value: &[u8]) {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        // Most fields are none of these by their length alone.
        match name.len() {
            4 if is("host") => {
                self.hosts += 1;
                self.has_invalid_host |= !is_host(value);
            }
            6 if is("expect") => {
                // Nobody waits for content here, so it gets the final status (RFC 9110 section 10.1.1).
                self.has_unknown_expectation |= !value.eq_ignore_ascii_case(b"100-continue");
            }
            10 if is("connection") => {
                for option in value.split(|byte| *byte == b',') {
                    let option = option.trim_ascii();
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if is("content-length") => self.add_length(value),
            17 if is("transfer-encoding") => {
                self.coding = match self.coding {
                    Coding::None if value.eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
                    _ => Coding::Other,
                };
            }
            _ => {}
        }
    }

    /// One number, or the same several times, as a proxy may have joined them (RFC 9110 section 8.6).
    fn add_length(&mut self, value: &[u8]) {
        for number in value.split(|byte| *byte == b',') {
            let number = number.trim_ascii();
            let is_number = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
            let bytes = str::from_utf8(number).ok().filter(|_| is_number);
            let bytes = bytes.and_then(|number| number.parse().ok());
            self.length = match (self.length, bytes) {
                (Length::None, Some(bytes)) => Length::Bytes(bytes),
                (Length::Bytes(before), Some(bytes)) if before == bytes => self.length,
                _ => Length::Invalid,
            };
        }
    }

    fn check(&self, version: Version) -> Result<(), HeadError> {
        match (self.length, self.coding) {
            (Length::Invalid, _) => return Err(HeadError::Length),
            (Length::Bytes(_), Coding::Chunked | Coding::Other) => {
                return Err(HeadError::TwoLengths);
            }
            (_, Coding::Other) => return Err(HeadError::Coding),
            // HTTP/1.0 has no codings, so a recipient may not see one (RFC 9112 section 6.1).
            (_, Coding::Chunked) if version < Version::HTTP_11 => return Err(HeadError::Coding),
            _ => {}
        }
        // Only HTTP/1.0 may leave out the host (RFC 9112 section 3.2).
        match self.hosts {
            1 if self.has_invalid_host => return Err(HeadError::Host),
            1 => {}
            0 if version < Version::HTTP_11 => {}
            _ => return Err(HeadError::HostCount),
        }
        if self.has_unknown_expectation {
            return Err(HeadError::Expectation);
        }
        Ok(())
    }

    /// Announced content is no more than is read after the response (RFC 9110 section 15.5.14).
    fn check_content(&self) -> Result<(), HeadError> {
        match self.length {
            Length::Bytes(bytes) if bytes > CONTENT_BYTES as u64 => Err(HeadError::Content),
            _ => Ok(()),
        }
    }
}

/// Whether it is `uri-host [ ":" port ]` (RFC 9110 section 7.2), and the host not empty (section 4.2.1).
pub(crate) fn is_host(value: &[u8]) -> bool {
    is_plain_host(value) || is_any_host(value)
}

/// Whether it is letters, digits, `.` and `-`, with a port or without: what most are.
fn is_plain_host(value: &[u8]) -> bool {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let end = value.iter().position(|byte| !is_of_name(byte));
    let (name, rest) = value.split_at(end.unwrap_or(value.len()));
    // Four digits are a port, whatever they are.
    let is_port = |port: &[u8]| match port {
        [b'1'..=b'5', rest @ ..] | rest => rest.len() <= 4 && rest.iter().all(u8::is_ascii_digit),
    };
    !name.is_empty() && (rest.is_empty() || rest.strip_prefix(b":").is_some_and(is_port))
}

fn is_any_host(value: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(value) else {
        return false;
    };
    let port = authority.as_str().strip_prefix(authority.host());
    let port = port.map(|rest| rest.strip_prefix(':').unwrap_or(rest));
    // `user@host` has no such prefix.
    !authority.host().is_empty()
        && port.is_some_and(|port| port.is_empty() || authority.port_u16().is_some())
}

/// The forms of RFC 9112 section 3.2: origin-form, absolute-form, and `*` for `OPTIONS`. The authority of an
/// absolute-form takes precedence over `Host`; since one set of media is served whatever the host, neither matters
/// beyond being well-formed.
pub(crate) fn check_uri(method: &Method, target: &Uri) -> Result<(), HeadError> {
    if method == Method::CONNECT {
        return Err(HeadError::Connect);
    }
    match (target.scheme(), target.authority()) {
        (None, None) if target.path() == "*" => (method == Method::OPTIONS)
            .then_some(())
            .ok_or(HeadError::Target),
        (None, None) if target.path().starts_with('/') => Ok(()),
        (Some(scheme), Some(authority))
            if (*scheme == Scheme::HTTP || *scheme == Scheme::HTTPS)
                && !authority.as_str().contains('@') =>
        {
            Ok(())
        }
        _ => Err(HeadError::Target),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// Result of all checks of a head.
    fn checked(text: &str) -> Result<(), HeadError> {
        let mut lines = field_lines();
        let head = parse(text.as_bytes(), &mut lines)?.unwrap();
        assert_eq!(head.length, text.len());
        head.check()?;
        head.check_content()?;
        check_uri(&head.method, &head.uri()?)
    }

    #[test]
    fn heads_that_two_recipients_may_read_differently_are_refused() {
        let syntax = HeadError::Syntax;
        for (fields, expected) in [
            ("", Ok(())),
            ("content-length: 0\r\n", Ok(())),
            ("content-length: 5, 5\r\nContent-Length: 5\r\n", Ok(())),
            ("x-content-length: y\r\nx: content-length: y\r\n", Ok(())),
            ("Transfer-Encoding: Chunked\r\n", Ok(())),
            ("Expect: 100-Continue\r\n", Ok(())),
            ("content-length: 5, 6\r\n", Err(HeadError::Length)),
            (
                "content-length: 5\r\ncontent-length: 6\r\n",
                Err(HeadError::Length),
            ),
            ("content-length: +5\r\n", Err(HeadError::Length)),
            ("content-length:\r\n", Err(HeadError::Length)),
            (
                "content-length: 18446744073709551616\r\n",
                Err(HeadError::Length),
            ),
            (
                "content-length: 5\r\ntransfer-encoding: chunked\r\n",
                Err(HeadError::TwoLengths),
            ),
            (
                "transfer-encoding: x\r\ncontent-length: 0\r\n",
                Err(HeadError::TwoLengths),
            ),
            (
                "transfer-encoding: gzip, chunked\r\n",
                Err(HeadError::Coding),
            ),
            (
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
                Err(HeadError::Coding),
            ),
            (
                "transfer-encoding: \x0bchunked\r\n",
                Err(syntax(httparse::Error::HeaderValue)),
            ),
            ("x: a\n", Err(HeadError::BareLf)),
            ("x: a\rb\r\n", Err(syntax(httparse::Error::HeaderValue))),
            ("x : a\r\n", Err(syntax(httparse::Error::HeaderName))),
            ("x: a\r\n b\r\n", Err(syntax(httparse::Error::HeaderName))),
            ("host: b\r\n", Err(HeadError::HostCount)),
            ("expect: x\r\n", Err(HeadError::Expectation)),
            ("content-length: 65537\r\n", Err(HeadError::Content)),
        ] {
            let text = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
            assert_eq!(checked(&text), expected, "{fields:?}");
        }
    }

    #[test]
    fn targets_have_the_form_that_fits_their_method() {
        for (line, expected) in [
            ("GET /a?b HTTP/1.1", Ok(())),
            ("GET http://a/ HTTP/1.1", Ok(())),
            ("OPTIONS * HTTP/1.1", Ok(())),
            ("GET * HTTP/1.1", Err(HeadError::Target)),
            ("GET a HTTP/1.1", Err(HeadError::Target)),
            ("GET ftp://a/ HTTP/1.1", Err(HeadError::Target)),
            ("GET http://u@a/ HTTP/1.1", Err(HeadError::Target)),
            ("CONNECT a:80 HTTP/1.1", Err(HeadError::Connect)),
            ("CONNECT /a HTTP/1.1", Err(HeadError::Connect)),
            ("GET /#a HTTP/1.1", Err(HeadError::Fragment)),
        ] {
            assert_eq!(
                checked(&format!("{line}\r\nhost: a\r\n\r\n")),
                expected,
                "{line}"
            );
        }
    }

    #[test]
    fn a_connection_goes_on_as_the_version_and_the_client_have_it() {
        for (version, fields, expected) in [
            ("1.1", "", true),
            ("1.1", "connection: close\r\n", false),
            ("1.1", "connection: x, Close\r\n", false),
            ("1.1", "connection: keep-alive\r\n", true),
            ("1.0", "", false),
            ("1.0", "connection: Keep-Alive\r\n", true),
            (
                "1.0",
                "connection: keep-alive\r\nconnection: close\r\n",
                false,
            ),
        ] {
            let text = format!("GET / HTTP/{version}\r\nhost: a\r\n{fields}\r\n");
            let mut lines = field_lines();
            let head = parse(text.as_bytes(), &mut lines).unwrap().unwrap();
            assert_eq!(head.is_persistent(), expected, "{version} {fields:?}");
        }
    }

    #[test]
    fn a_request_has_the_parts_of_its_head() {
        let text = "\r\nBREW /a HTTP/1.0\r\nX: 1\r\nx:  \u{e4} \r\ny:\r\n\r\nGET";
        let mut lines = field_lines();
        let head = parse(text.as_bytes(), &mut lines).unwrap().unwrap();
        let bytes = Bytes::copy_from_slice(&text.as_bytes()[..head.length]);
        let places = head.places(text.as_bytes());
        let request = places.request(head.uri().unwrap(), &bytes).unwrap();
        assert_eq!(request.method(), "BREW");
        assert_eq!(
            (request.uri(), request.version()),
            (&Uri::from_static("/a"), Version::HTTP_10)
        );
        let values = request
            .headers()
            .get_all("x")
            .iter()
            .map(HeaderValue::as_bytes);
        assert_eq!(values.collect::<Vec<_>>(), [b"1", "\u{e4}".as_bytes()]);
        assert_eq!(request.headers()["y"], "");
    }

    #[test]
    fn hosts() {
        for host in ["a", "a.b-c_d:80", "a:", "127.0.0.1", "[::1]", "[::1]:80"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "", ":80", "u@a", "u:p@a:80", "a/b", "a b", "a,b c", "a:b", "a:99999", "a:80:80",
            "::1", "[::1", "a?b", "a#b", "http://a",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_host_is_a_host(text in "[a-z0-9.-]{0,4}(:[0-9]{0,6})?|[a:/@.1\\[-]{0,6}") {
            prop_assert!(!is_plain_host(text.as_bytes()) || is_any_host(text.as_bytes()));
        }
    }
}
