//! Malformed and unusual requests: a table with the response to each.
//!
//! A valid request follows each row, in one write. If the row leaves the connection open, that request gets a response. If it
//! closes the connection, the request never gets one, since request smuggling would need that. Rows named in capitals are
//! from the public table of Http11Probe.

use crate::client::{self, raw};
use crate::host::{Host, stop_time};
use millpond::Outcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Who answers a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// This program's own code: with JSON that says what is wrong.
    Host,
    /// The component, as for every request that reaches it.
    Guest,
}

use By::Guest;

/// State of the connection after a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Open,
    Closed,
}

use Then::{Closed, Open};

struct Row {
    name: &'static str,
    sent: &'static [u8],
    /// The statuses of all answers, in order.
    statuses: &'static [u16],
    by: By,
    then: Then,
    source: &'static str,
}

const fn row(
    name: &'static str,
    sent: &'static str,
    statuses: &'static [u16],
    by: By,
    then: Then,
    source: &'static str,
) -> Row {
    Row {
        name,
        sent: sent.as_bytes(),
        statuses,
        by,
        then,
        source,
    }
}

/// The good request behind each row, and what only its answer has.
const GOOD: &str = "GET /media/good.txt HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
const GOOD_CONTENT: &str = "the good request was answered";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Sound requests, so that nothing is refused that should not be.
    row("a plain request", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[200], Guest, Open, "RFC 9112 section 2.1"),
    row("COMP-LEADING-CRLF", "\r\n\r\nGET /media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[200], Guest, Open, "RFC 9112 section 2.2"),
    row("a port, an address", "GET /media/a.txt HTTP/1.1\r\nhost: [::1]:8080\r\n\r\n", &[200], Guest, Open, "RFC 9110 section 7.2"),
    row("an empty port", "GET /media/a.txt HTTP/1.1\r\nhost: a:\r\n\r\n", &[200], Guest, Open, "RFC 3986 section 3.2.3"),
    row("COMP-HTTP10-DEFAULT-CLOSE", "GET /media/a.txt HTTP/1.0\r\n\r\n", &[200], Guest, Closed, "RFC 9112 section 9.3"),
    row("1.0 that keeps alive", "GET /media/a.txt HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", &[200], Guest, Open, "RFC 9112 section 9.3"),
    row("COMP-CONNECTION-CLOSE", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", &[200], Guest, Closed, "RFC 9112 section 9.6"),
    row("COMP-OPTIONS-STAR", "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", &[204], Guest, Open, "RFC 9112 section 3.2.4"),
    row("absolute-form", "GET http://a/media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[200], Guest, Open, "RFC 9112 section 3.2.2"),
    row("absolute-form of another host", "GET http://b:81/media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[200], Guest, Open, "RFC 9112 section 3.2.2: it takes precedence"),
    row("COMP-UPGRADE-UNKNOWN", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", &[200], Guest, Open, "RFC 9110 section 7.8"),
    row("zero bytes of content", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", &[200], Guest, Open, "RFC 9112 section 6.2"),
    row("SMUG-CL-DOUBLE-ZERO", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 00\r\n\r\n", &[200], Guest, Open, "RFC 9110 section 8.6: the grammar allows it"),
    // The request line.
    row("RFC9112-3-MISSING-TARGET", "GET HTTP/1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 3"),
    row("RFC9112-3-MULTI-SP-REQUEST-LINE", "GET  /media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 3"),
    row("COMP-REQUEST-LINE-TAB", "GET\t/media/a.txt\tHTTP/1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 3"),
    row("RFC9112-2.3-HTTP09-REQUEST", "GET /media/a.txt\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 2.3"),
    row("RFC9112-2.3-INVALID-VERSION", "GET /media/a.txt HTTP/9.9\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 2.3; 505 would do as well"),
    row("COMP-VERSION-MISSING-MINOR", "GET /media/a.txt HTTP/1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 2.3"),
    row("COMP-VERSION-LEADING-ZEROS", "GET /media/a.txt HTTP/01.01\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 2.3"),
    row("RFC9112-3.2-FRAGMENT-IN-TARGET", "GET /media/a.txt#b HTTP/1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 3.2"),
    row("MAL-NUL-IN-URL", "GET /media/a.txt\0 HTTP/1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 3.2"),
    row("COMP-ASTERISK-WITH-GET", "GET * HTTP/1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 3.2.4"),
    row("authority-form with GET", "GET a:80 HTTP/1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 3.2.3"),
    row("a path without its slash", "GET media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 3.2.1"),
    row("absolute-form of another scheme", "GET ftp://a/media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9110 section 4.2"),
    row("absolute-form with userinfo", "GET http://u:p@a/media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9110 section 4.2.4"),
    row("COMP-METHOD-CONNECT", "CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n", &[501], By::Host, Closed, "RFC 9110 section 9.3.6"),
    row("CONNECT with a path", "CONNECT /media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[501], By::Host, Closed, "RFC 9110 section 9.3.6"),
    row("COMP-METHOD-TRACE", "TRACE /media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[405], Guest, Open, "RFC 9110 section 9.3.8"),
    row("COMP-TRACE-WITH-BODY", "TRACE /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello", &[405], Guest, Closed, "RFC 9110 section 9.3.8"),
    // Host.
    row("RFC9112-7.1-MISSING-HOST", "GET /media/a.txt HTTP/1.1\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 3.2"),
    row("absolute-form without Host", "GET http://a/media/a.txt HTTP/1.1\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 3.2"),
    row("RFC9110-5.4-DUPLICATE-HOST", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 3.2"),
    row("COMP-DUPLICATE-HOST-SAME", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 3.2"),
    row("two Host fields in 1.0", "GET /media/a.txt HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 3.2: any request message"),
    row("COMP-HOST-EMPTY-VALUE", "GET /media/a.txt HTTP/1.1\r\nhost:\r\n\r\n", &[400], By::Host, Closed, "RFC 9110 section 4.2.1"),
    row("COMP-HOST-WITH-USERINFO", "GET /media/a.txt HTTP/1.1\r\nhost: u@a\r\n\r\n", &[400], By::Host, Closed, "RFC 9110 section 7.2"),
    row("COMP-HOST-WITH-PATH", "GET /media/a.txt HTTP/1.1\r\nhost: a/b\r\n\r\n", &[400], By::Host, Closed, "RFC 9110 section 7.2"),
    row("SMUG-MULTIPLE-HOST-COMMA", "GET /media/a.txt HTTP/1.1\r\nhost: a, b\r\n\r\n", &[400], By::Host, Closed, "RFC 9110 section 7.2"),
    row("a Host with a port that is none", "GET /media/a.txt HTTP/1.1\r\nhost: a:99999\r\n\r\n", &[400], By::Host, Closed, "RFC 9110 section 7.2"),
    row("a Host of bytes that are no text", "GET /media/a.txt HTTP/1.1\r\nhost: é\r\n\r\n", &[400], By::Host, Closed, "RFC 9110 section 7.2"),
    // Lines.
    row("RFC9112-2.2-BARE-LF-REQUEST-LINE", "GET /media/a.txt HTTP/1.1\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 2.2: it may be taken, and two readers may differ"),
    row("RFC9112-2.2-BARE-LF-HEADER", "GET /media/a.txt HTTP/1.1\r\nhost: a\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 2.2"),
    row("a head that ends with two LFs", "GET /media/a.txt HTTP/1.1\nhost: a\n\n", &[400], By::Host, Closed, "RFC 9112 section 2.2"),
    row("an empty line of LF before", "\nGET /media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 2.2"),
    row("RFC9112-3-CR-ONLY-LINE-ENDING", "GET /media/a.txt HTTP/1.1\rhost: a\r\r", &[400], By::Host, Closed, "RFC 9112 section 2.2"),
    row("SMUG-BARE-CR-HEADER-VALUE", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 2.2"),
    row("RFC9112-5.1-OBS-FOLD", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 5.2"),
    row("SMUG-TE-OBS-FOLD", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n chunked\r\ncontent-length: 5\r\n\r\nhello", &[400], By::Host, Closed, "RFC 9112 section 5.2"),
    row("COMP-WHITESPACE-BEFORE-HEADERS", "GET /media/a.txt HTTP/1.1\r\n host: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 2.2"),
    row("RFC9110-5.6.2-SP-BEFORE-COLON", "GET /media/a.txt HTTP/1.1\r\nhost : a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 5.1"),
    row("NORM-TAB-IN-NAME", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nx\ty: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9110 section 5.1"),
    row("RFC9112-5-EMPTY-HEADER-NAME", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\n: b\r\n\r\n", &[400], By::Host, Closed, "RFC 9110 section 5.1"),
    row("RFC9112-5-HEADER-NO-COLON", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nx\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 5"),
    row("MAL-NUL-IN-HEADER-VALUE", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n", &[400], By::Host, Closed, "RFC 9110 section 5.5"),
    // Content-Length.
    row("SMUG-DUPLICATE-CL", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello", &[400], By::Host, Closed, "RFC 9112 section 6.3"),
    row("two of the same", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello", &[200], Guest, Closed, "RFC 9110 section 8.6: may be taken for one"),
    row("SMUG-CL-COMMA-DIFFERENT", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 5, 6\r\n\r\nhello", &[400], By::Host, Closed, "RFC 9112 section 6.3"),
    row("RFC9112-6.1-CL-NON-NUMERIC", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: abc\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.3"),
    row("RFC9112-6.1-CL-PLUS-SIGN", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nhello", &[400], By::Host, Closed, "RFC 9112 section 6.3"),
    row("SMUG-CL-NEGATIVE", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.3"),
    row("SMUG-CL-HEX-PREFIX", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 0x5\r\n\r\nhello", &[400], By::Host, Closed, "RFC 9112 section 6.3"),
    row("SMUG-CL-INTERNAL-SPACE", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 5 0\r\n\r\nhello", &[400], By::Host, Closed, "RFC 9112 section 6.3"),
    row("MAL-CL-EMPTY", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.3"),
    row("MAL-CL-OVERFLOW", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\nhello", &[400], By::Host, Closed, "RFC 9110 section 8.6"),
    // Transfer-Encoding.
    row("SMUG-CLTE-PIPELINE", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.1"),
    row("SMUG-TECL-PIPELINE", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 30\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.1"),
    row("both, and no content", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.1"),
    row("SMUG-TE-XCHUNKED", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.3"),
    row("SMUG-TE-NOT-FINAL-CHUNKED", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.3"),
    row("another coding below chunked", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.1"),
    row("SMUG-TE-DOUBLE-CHUNKED", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 7"),
    row("SMUG-TE-DUPLICATE-HEADERS", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 7"),
    row("SMUG-TE-IDENTITY", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\nhello", &[400], By::Host, Closed, "RFC 9112 section 7"),
    row("SMUG-TE-EMPTY-VALUE", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n\r\nhello", &[400], By::Host, Closed, "RFC 9112 section 6.1"),
    row("SMUG-TE-VTAB", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.1"),
    row("SMUG-TE-TRAILING-COMMA", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked,\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.1: taken at its word"),
    row("SMUG-TE-SP-BEFORE-COLON", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 5.1"),
    row("SMUG-TE-HTTP10", "POST /media/a.txt HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.1"),
    row("SMUG-TE-CASE-MISMATCH", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7"),
    // Content that nobody asked for: answered, and nothing behind it is.
    row("GET with content", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello", &[200], Guest, Closed, "RFC 9110 section 9.3.1"),
    row("content that is a request", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 38\r\n\r\nGET /media/b.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[200], Guest, Closed, "RFC 9110 section 9.3.1"),
    row("HEAD with content", "HEAD /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello", &[200], Guest, Closed, "RFC 9110 section 9.3.2"),
    row("COMP-POST-CL-BODY", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello", &[405], Guest, Closed, "RFC 9110 section 15.5.6"),
    row("COMP-CHUNKED-BODY", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1"),
    row("SMUG-CHUNK-SPILL", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello to all\r\n0\r\n\r\n", &[200], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("COMP-POST-CL-UNDERSEND", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 500\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 6.3"),
    row("MAL-POST-CL-HUGE-NO-BODY", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 999999999999\r\n\r\n", &[413], By::Host, Closed, "RFC 9110 section 15.5.14"),
    row("one byte more than is taken", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 65537\r\n\r\n", &[413], By::Host, Closed, "RFC 9110 section 15.5.14"),
    // Expect.
    row("content that waits for 100", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n", &[405], Guest, Closed, "RFC 9110 section 10.1.1: a final status in its place"),
    row("100 for too much", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 999999\r\n\r\n", &[413], By::Host, Closed, "RFC 9110 section 10.1.1"),
    row("100 for nothing", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nexpect: 100-Continue\r\n\r\n", &[200], Guest, Open, "RFC 9110 section 10.1.1"),
    row("another expectation", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nexpect: 200-ok\r\n\r\n", &[417], By::Host, Closed, "RFC 9110 section 10.1.1"),
    // Further rows of Http11Probe: the request line and lines.
    row("COMP-ACCEPT-NONSENSE", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\naccept: x/y;;q=a\r\n\r\n", &[200], Guest, Open, "RFC 9110 section 12.5.1"),
    row("COMP-HTTP12-VERSION", "GET /media/a.txt HTTP/1.2\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 2.3: 505 would do as well"),
    row("COMP-VERSION-CASE", "GET /media/a.txt http/1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 2.3"),
    row("COMP-VERSION-WHITESPACE", "GET /media/a.txt HTTP/ 1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 2.3"),
    row("COMP-SPACE-IN-TARGET", "GET /media/a.txt b HTTP/1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 3.2"),
    row("COMP-METHOD-CASE", "get /media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[405], Guest, Open, "RFC 9110 section 9.1"),
    row("COMP-UPGRADE-HTTP10", "GET /media/a.txt HTTP/1.0\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", &[200], Guest, Closed, "RFC 9110 section 7.8"),
    row("COMP-UPGRADE-MISSING-CONN", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\r\n", &[200], Guest, Open, "RFC 9110 section 7.8"),
    row("COMP-RANGE-POST", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\nrange: bytes=0-1\r\ncontent-length: 0\r\n\r\n", &[405], Guest, Open, "RFC 9110 section 14.2"),
    row("MAL-EMPTY-REQUEST, and a request behind it", "\r\n\r\n\r\n\r\nGET /media/a.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[200], Guest, Open, "RFC 9112 section 2.2"),
    row("MAL-BINARY-GARBAGE", "\x01\x02\x7f\x03\x00\x1b[31m\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 3"),
    row("MAL-WHITESPACE-ONLY-LINE", "   \r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 2.2"),
    row("MAL-NON-ASCII-HEADER-NAME", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nxé: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9110 section 5.1"),
    row("RFC9112-5-INVALID-HEADER-NAME", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nx[y]: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9110 section 5.1"),
    row("MAL-CONTROL-CHARS-HEADER", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\nx: a\x01\x07b\r\n\r\n", &[400], By::Host, Closed, "RFC 9110 section 5.5"),
    row("MAL-NON-ASCII-URL", "GET /media/é.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[404], Guest, Open, "millpond: a name in UTF-8, as curl sends it"),
    row("MAL-URL-BACKSLASH", "GET \\media\\a.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 3.2"),
    row("MAL-URL-OVERLONG-UTF8", "GET /media/%c0%ae%c0%ae/a.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[400], Guest, Open, "RFC 3629 section 3"),
    row("MAL-URL-PERCENT-NULL", "GET /media/a.txt%00 HTTP/1.1\r\nhost: a\r\n\r\n", &[400], Guest, Open, "RFC 3986 section 7.3"),
    row("MAL-URL-PERCENT-CRLF", "GET /media/a.txt%0d%0aX:%20b HTTP/1.1\r\nhost: a\r\n\r\n", &[404], Guest, Open, "RFC 3986 section 2.1: a name that no file has"),
    // Further rows of Http11Probe: Content-Length.
    row("SMUG-CL-COMMA-SAME", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 5, 5\r\n\r\nhello", &[405], Guest, Closed, "RFC 9110 section 8.6: may be taken for one"),
    row("SMUG-CL-COMMA-TRIPLE", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 5, 5, 5\r\n\r\nhello", &[405], Guest, Closed, "RFC 9110 section 8.6: may be taken for one"),
    row("SMUG-CL-LEADING-ZEROS", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 005\r\n\r\nhello", &[405], Guest, Closed, "RFC 9110 section 8.6: the grammar allows it"),
    row("SMUG-CL-OCTAL", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 0o5\r\n\r\nhello", &[400], By::Host, Closed, "RFC 9112 section 6.3"),
    row("SMUG-CL-NEGATIVE-ZERO", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: -0\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.3"),
    row("SMUG-CL-UNDERSCORE", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 1_0\r\n\r\nhello12345", &[400], By::Host, Closed, "RFC 9112 section 6.3"),
    row("SMUG-CL-TRAILING-SPACE", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 5 \r\n\r\nhello", &[405], Guest, Closed, "RFC 9110 section 5.5: not part of the value"),
    row("SMUG-CL-EXTRA-LEADING-SP", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length:   5\r\n\r\nhello", &[405], Guest, Closed, "RFC 9110 section 5.5"),
    row("MAL-CL-TAB-BEFORE-VALUE", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length:\t5\r\n\r\nhello", &[405], Guest, Closed, "RFC 9110 section 5.5"),
    row("NORM-SP-BEFORE-COLON-CL", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length : 5\r\n\r\nhello", &[400], By::Host, Closed, "RFC 9112 section 5.1"),
    row("NORM-UNDERSCORE-CL", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent_length: 5\r\n\r\n", &[200], Guest, Open, "RFC 9110 section 5.1: another field"),
    row("SMUG-CL0-BODY-POISON", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\nGET /media/b.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[405, 200], Guest, Open, "RFC 9112 section 6.3: two requests"),
    row("SMUG-DUPLICATE-CL-SMUGGLED-GET", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ncontent-length: 37\r\n\r\nGET /media/b.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.3"),
    row("SMUG-GET-CL-PREFIX-DESYNC", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nXXGET /media/b.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[200], Guest, Closed, "RFC 9112 section 9.3"),
    row("SMUG-OPTIONS-CL-BODY-DESYNC", "OPTIONS /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhelloGET /media/b.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[204], Guest, Closed, "RFC 9112 section 9.3"),
    row("SMUG-EXPECT-100-CL-DESYNC", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\nhelloGET /media/b.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[405], Guest, Closed, "RFC 9110 section 10.1.1"),
    // Further rows of Http11Probe: Transfer-Encoding.
    row("SMUG-TE-FORMFEED", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0cchunked\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9110 section 5.5"),
    row("SMUG-TE-NULL", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\0\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9110 section 5.5"),
    row("SMUG-TE-LEADING-COMMA", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: , chunked\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.1: taken at its word"),
    row("SMUG-TE-TRAILING-SPACE", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked \r\n\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9110 section 5.5"),
    row("SMUG-TE-TAB-BEFORE-VALUE", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\tchunked\r\n\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9110 section 5.5"),
    row("SMUG-CHUNKED-WITH-PARAMS", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked;x=1\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 7.1: chunked has no parameters"),
    row("COMP-UNKNOWN-TE-501", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: br\r\n\r\nhello", &[400], By::Host, Closed, "RFC 9112 section 6.1: 501 would do as well"),
    row("NORM-CASE-TE", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\nTRANSFER-ENCODING: chunked\r\n\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9110 section 5.1"),
    row("NORM-UNDERSCORE-TE", "GET /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer_encoding: chunked\r\n\r\n", &[200], Guest, Open, "RFC 9110 section 5.1: another field"),
    row("SMUG-CLTE-SMUGGLED-GET", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /media/b.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.1"),
    row("SMUG-TECL-SMUGGLED-GET", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n25\r\nGET /media/b.txt HTTP/1.1\r\nhost: a\r\n\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.1"),
    row("SMUG-CLTE-SMUGGLED-GET-TE-OBS-FOLD", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding:\r\n\tchunked\r\n\r\n0\r\n\r\nGET /media/b.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 5.2"),
    row("SMUG-CLTE-CONN-CLOSE", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n", &[400], By::Host, Closed, "RFC 9112 section 6.1"),
    // Chunks of content that is not read: the connection ends behind its response, however they are framed.
    row("COMP-CHUNKED-EXTENSION", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;x=1\r\nhello\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("COMP-CHUNKED-HEX-UPPERCASE", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nA\r\nhellohello\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("COMP-CHUNKED-TRAILER-VALID", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("COMP-CHUNKED-NO-FINAL", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("SMUG-CHUNK-BARE-SEMICOLON", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;\r\nhello\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("SMUG-CHUNK-HEX-PREFIX", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("SMUG-CHUNK-UNDERSCORE", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1_0\r\nhello\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("SMUG-CHUNK-NEGATIVE", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("SMUG-CHUNK-SIZE-PLUS", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("SMUG-CHUNK-LEADING-SP", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("SMUG-CHUNK-SIZE-TRAILING-OWS", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("SMUG-CHUNK-LF-TERM", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("SMUG-CHUNK-BARE-CR-TERM", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\rhello\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("SMUG-CHUNK-EXT-LF", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;x\nhello\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("SMUG-CHUNK-EXT-CTRL", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;x=\x01\r\nhello\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("SMUG-CHUNK-MISSING-TRAILING-CRLF", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("SMUG-CHUNK-LF-TRAILER", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("MAL-CHUNK-SIZE-OVERFLOW", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("SMUG-TRAILER-CL", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 50\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("SMUG-TRAILER-TE", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\ntransfer-encoding: chunked\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("SMUG-TRAILER-HOST", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nhost: b\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    row("SMUG-CHUNK-INVALID-SIZE-DESYNC", "POST /media/a.txt HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n+0\r\n\r\nGET /media/b.txt HTTP/1.1\r\nhost: a\r\n\r\n", &[405], Guest, Closed, "RFC 9112 section 7.1: it is not read"),
    // Behind another request.
    row("a sound one, then an unsound one", "GET /media/b.txt HTTP/1.1\r\nhost: a\r\n\r\nGET /media/a.txt HTTP/1.1\nhost: a\r\n\r\n", &[200, 400], By::Host, Closed, "RFC 9112 section 9.3.2"),
    row("a sound one, then one with content", "GET /media/b.txt HTTP/1.1\r\nhost: a\r\n\r\nGET /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n", &[200, 200], Guest, Closed, "RFC 9112 section 9.3.2"),
];

#[tokio::test]
async fn every_row_gets_its_answer_and_nothing_behind_it_is_smuggled() {
    let host = Host::start().await;
    host.write("a.txt", b"a");
    host.write("b.txt", b"b");
    host.write("good.txt", GOOD_CONTENT.as_bytes());
    let mut wrong = Vec::new();
    for row in ROWS {
        let sent = [row.sent, GOOD.as_bytes()].concat();
        let refused = host.registry().ended_requests(Outcome::Rejected);
        let answer = raw(host.address, &sent).await;
        let answer = String::from_utf8_lossy(&answer);
        let found = Found::of(&answer);
        if found != Found::expected(row) {
            let Row { name, source, .. } = row;
            wrong.push(format!("{name} ({source}): {found:?} in {answer:?}"));
        }
        host.registry().idle().await;
        if row.by != Guest {
            let refused = host.registry().ended_requests(Outcome::Rejected) - refused;
            if refused != 1 {
                wrong.push(format!("{}: {refused} counted as rejected", row.name));
            }
        }
        assert_eq!(
            host.get("/media/good.txt").await.status,
            200,
            "{}",
            row.name
        );
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        ROWS.len(),
        wrong.join("\n")
    );
}

/// Responses to a row.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    statuses: Vec<u16>,
    /// Whether the last answer is the host's own error.
    says_why: bool,
    then: Then,
}

impl Found {
    fn of(answer: &str) -> Self {
        let then = if answer.contains(GOOD_CONTENT) {
            Open
        } else {
            Closed
        };
        let mut answers: Vec<&str> = answer.split("HTTP/1.").skip(1).collect();
        if then == Open {
            answers.pop();
        }
        let last = answers.last().copied().unwrap_or_default();
        Found {
            statuses: answers
                .iter()
                .map(|answer| answer[2..5].parse().unwrap())
                .collect(),
            says_why: last.contains("connection: close\r\n")
                && last.contains("\r\n\r\n{\"error\":"),
            then,
        }
    }

    fn expected(row: &Row) -> Self {
        let closes_with_json = row.by == By::Host
            || (row.by == Guest && row.then == Closed && row.statuses.last() == Some(&405));
        Found {
            statuses: row.statuses.to_vec(),
            says_why: closes_with_json,
            then: row.then,
        }
    }
}

#[tokio::test]
async fn a_client_that_sends_all_its_content_first_still_reads_the_answer() {
    let host = Host::start().await;
    stop_time();
    host.write("a.txt", b"a");
    for (length, status) in [(60_000, 405), (1 << 20, 413)] {
        let head =
            format!("POST /media/a.txt HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
        let mut sent = head.into_bytes();
        sent.resize(sent.len() + 60_000, b'x');
        let mut stream = TcpStream::connect(host.address).await.unwrap();
        stream.write_all(&sent).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(client::status(&answer), Some(status));
    }
    host.registry().idle().await;
}

#[tokio::test]
async fn content_that_comes_after_its_answer_is_no_request() {
    let host = Host::start().await;
    host.write("a.txt", b"a");
    host.write("good.txt", GOOD_CONTENT.as_bytes());
    for framing in [
        format!("content-length: {}", GOOD.len()),
        "transfer-encoding: chunked".to_owned(),
        "content-length: 50\r\nexpect: 100-continue".to_owned(),
    ] {
        let mut stream = TcpStream::connect(host.address).await.unwrap();
        let head = format!("GET /media/a.txt HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        // The host may have closed the connection already.
        let _ = stream.write_all(GOOD.as_bytes()).await;
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{framing}: {answer}");
        assert!(!answer.contains(GOOD_CONTENT), "{framing}: {answer}");
    }
    host.registry().idle().await;
}
