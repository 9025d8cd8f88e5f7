//! HTTP/1.1 (RFC 9112) on one connection: one request after the other.

pub(crate) mod fast_path;
pub(crate) mod framing;
pub(crate) mod head;

use crate::http1::fast_path::Direct;
use crate::http2::field_section::{HEAD_BYTES, PREFACE};
use crate::protocol::HttpIo;
use crate::transport::connection::Connection;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use millpond::downstream::Exchange;
use millpond::ledger::{AccessLogEntry, Outcome};
use millpond::{MediaService, Millpond};
use std::borrow::Cow;
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Serves a connection to its end. When `stopping` says so, the answer in progress is its last.
pub(crate) async fn serve<S: MediaService>(
    connection: &Arc<Connection>,
    io: HttpIo,
    service: &S,
    stopping: impl Future<Output = ()>,
) -> hyper::Result<()> {
    let answer = service_fn(|request: Request<Incoming>| {
        // No content is ever used.
        let mut request = request.map(drop);
        let exchange = Exchange(Arc::clone(connection) as _);
        request.extensions_mut().insert(exchange);
        let answered = service.serve(request);
        async { Ok::<_, Infallible>(answered.await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    // The connection's clock sees to time, for the head as for the rest. A client that has sent its last request may
    // close its end and still gets every answer (RFC 9112 section 9.6); one that is gone ends the connection by itself.
    http.header_read_timeout(None)
        .max_buf_size(HEAD_BYTES)
        .half_close(true);
    let io = Direct::new(io, Arc::clone(connection), service.clone());
    let mut served = http.serve_connection(TokioIo::new(io), answer);
    let ended = tokio::select! {
        biased;
        ended = &mut served => Some(ended),
        () = stopping => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            Pin::new(&mut served).graceful_shutdown();
            (&mut served).await
        }
    };
    if let Err(error) = &ended
        && error.is_parse()
    {
        record_unparsed(service.millpond(), &served.into_parts().read_buf, error);
    }
    ended
}

/// Logs and counts a head that the parser has refused by itself, as the requests that reach us are.
fn record_unparsed(millpond: &Millpond, head: &[u8], error: &hyper::Error) {
    let (method, target) = request_line(head);
    let mut record = AccessLogEntry::new(
        &method,
        &target,
        Arc::clone(millpond.registry()),
        millpond.limits().request_memory_bytes,
    );
    // To a preface of HTTP/2 in the middle of a connection nothing is said.
    if !head.starts_with(PREFACE) {
        record.set_status(if error.is_parse_too_large() {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        } else {
            StatusCode::BAD_REQUEST
        });
    }
    let why = error.source().map(ToString::to_string);
    let reason = why.map_or_else(|| error.to_string(), |why| format!("{error}: {why}"));
    record.finish_with(Outcome::Rejected, reason);
}

/// Method and target of a head that is no sound one, as far as it has them; each is `-` where it has not.
fn request_line(head: &[u8]) -> (Method, Cow<'_, str>) {
    const NONE: &str = "-";
    /// No method that there is has as many.
    const MOST_METHOD_BYTES: usize = 24;
    let end = head.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let mut words = head[..end.unwrap_or(head.len())].split(|byte| *byte == b' ');
    let mut word = || words.next().unwrap_or_default();
    let method = Some(word()).filter(|method| method.len() <= MOST_METHOD_BYTES);
    let method = method.and_then(|method| Method::from_bytes(method).ok());
    let target = Some(word()).filter(|target| target.starts_with(b"/"));
    (
        // It is a token, and so a method in form (RFC 9110 section 9.1).
        method.unwrap_or_else(|| Method::from_bytes(NONE.as_bytes()).unwrap_or_default()),
        target.map_or(NONE.into(), String::from_utf8_lossy),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_is_none_is_told_by_what_there_is_of_it() {
        let long = "A".repeat(100);
        for (head, method, target) in [
            ("GET /a b\r\nx", "GET", "/a"),
            ("GET /a", "GET", "/a"),
            ("BREW /\n/", "BREW", "/"),
            ("GET a HTTP/1.1\r\n", "GET", "-"),
            ("\u{16}\u{3} /a\r\n", "-", "/a"),
            (&long, "-", "-"),
            ("\r\n", "-", "-"),
            ("", "-", "-"),
        ] {
            let found = request_line(head.as_bytes());
            assert_eq!((found.0.as_str(), &*found.1), (method, target), "{head:?}");
        }
    }
}
