//! HTTP/1.0 and 1.1 (RFC 9112) on one connection: a request's head, its response, and the next one.

#[cfg(feature = "uploads")]
pub(crate) mod content;
pub(crate) mod encode;
pub(crate) mod head;
pub(crate) mod send;

use crate::client_limits::InFlight;
#[cfg(feature = "uploads")]
use crate::http1::content::{ContentDecoder, ContentFraming, Decoded};
use crate::http1::encode::{BodyFraming, DateLine, Persistence, encode_head, persistence_line};
use crate::http1::head::{HEAD_BYTES, HTTP2_PREFACE, Head, HeadError};
use crate::protocol::HttpIo;
use crate::request_id::RequestId;
use crate::transport::connection::{Connection, LINGER};
#[cfg(feature = "uploads")]
use crate::transport::content::{ChunkRequests, content};
use crate::transport::exchange::PendingRequest;
use crate::transport::timeouts::ResponseGuard;
#[cfg(feature = "uploads")]
use bytes::Bytes;
use bytes::{Buf, BytesMut};
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Request, Response, Version};
use memchr::memchr;
#[cfg(feature = "uploads")]
use millpond::CONTENT_CHUNK_BYTES;
use millpond::downstream::{Exchange, Rejection, SimpleHead, X_REQUEST_ID};
use millpond::ledger::{AccessLogEntry, Charge, LedgerHandle, LoggedHead, Outcome, Reservation};
use millpond::{CachedResponse, MediaService, ResponseBody};
use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::sleep;
use tokio_util::io::poll_read_buf;
use tokio_util::sync::CancellationToken;

/// Size of the buffer that a head is received into, in bytes. Most heads fit.
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024;

/// Maximum size of a head for which a connection's own memory has room, in bytes; for a larger one more is reserved.
const SMALL_HEAD_BYTES: usize = 8 * 1024;

/// Serves a connection to its end. Once `stop` is cancelled, the response in progress is its last. `refusal` is the response
/// to every request, where there is one.
///
/// # Errors
/// When the client has gone, or a response could not be sent whole. The connection has to be aborted then.
pub(crate) async fn serve<S: MediaService>(
    connection: &Arc<Connection>,
    io: HttpIo,
    service: &S,
    refusal: Option<HeadError>,
    stop: &CancellationToken,
) -> io::Result<()> {
    let mut driver = Http1Driver {
        io,
        connection,
        service,
        refusal,
        stop,
        received: BytesMut::new(),
        large_head: None,
        date: DateLine::new(),
        is_new: true,
    };
    while driver.serve_next().await? == Persistence::KeepAlive {}
    poll_fn(|cx| driver.io.poll_shutdown(cx)).await
}

/// One connection of HTTP/1.1, from head to head.
struct Http1Driver<'a, S> {
    io: HttpIo,
    connection: &'a Arc<Connection>,
    service: &'a S,
    refusal: Option<HeadError>,
    stop: &'a CancellationToken,
    /// Bytes that came and belong to no head yet.
    received: BytesMut,
    /// Room for a head that is larger than [`SMALL_HEAD_BYTES`].
    large_head: Option<(Reservation, Charge)>,
    date: DateLine,
    /// Whether no request has come yet.
    is_new: bool,
}

/// A head that has come, by how it is responded to.
enum Next {
    /// From the cache.
    Cached {
        response: Box<CachedResponse>,
        in_flight: Option<InFlight>,
        persistence: Persistence,
        request_id: RequestId,
    },
    /// By the service.
    Request {
        request: Box<Request<()>>,
        exchange: Arc<PendingRequest>,
        persistence: Persistence,
        /// Framing of the content, if the service reads it.
        #[cfg(feature = "uploads")]
        content: Option<ContentFraming>,
    },
    /// By this server alone, since the head makes no request.
    Malformed(HeadError),
}

impl<S: MediaService> Http1Driver<'_, S> {
    /// Receives one head and sends its response. Returns the connection's persistence after it.
    async fn serve_next(&mut self) -> io::Result<Persistence> {
        if !self.received.is_empty() {
            // Some of the next head came along with the last.
            self.connection.timer().received();
        }
        let Some(next) = self.receive_head().await? else {
            return Ok(Persistence::Close);
        };
        self.is_new = false;
        let _response = ResponseGuard::begin(self.connection.timer(), self.connection.left_bytes());
        let persistence = match next {
            Next::Cached {
                response,
                in_flight,
                persistence,
                request_id,
            } => {
                self.send_cached(*response, persistence, &request_id)
                    .await?;
                drop(in_flight);
                persistence
            }
            Next::Request {
                request,
                exchange,
                persistence,
                #[cfg(feature = "uploads")]
                content,
            } => {
                #[cfg(feature = "uploads")]
                if let Some(framing) = content {
                    // In a box, since it is rare.
                    let read = self.respond_with_content(*request, &exchange, framing);
                    return Box::pin(read).await;
                }
                self.respond(*request, &exchange, persistence).await?
            }
            Next::Malformed(error) => {
                // In a box, since it is rare: a connection that waits keeps no room for it (1.4 KB).
                Box::pin(self.refuse(error)).await?;
                Persistence::Close
            }
        };
        self.large_head = None;
        Ok(persistence)
    }

    /// Receives bytes until there is a whole head. `None` when the client sends none any more, or the server stops.
    async fn receive_head(&mut self) -> io::Result<Option<Next>> {
        /// Maximum number of reads after each of which a head is parsed. Later ones need more bytes, or the end of a line.
        const PARSES: usize = 16;
        let mut parses = 0;
        let mut parse_at = 0;
        loop {
            if self.received.len() >= parse_at && !self.received.is_empty() {
                match self.parse() {
                    Ok(Some(next)) => return Ok(Some(next)),
                    Ok(None) => {}
                    Err(error) => return Ok(Some(Next::Malformed(error))),
                }
                parses += 1;
                if parses >= PARSES {
                    parse_at = 2 * self.received.len();
                }
            }
            if self.received.len() >= HEAD_BYTES {
                return Ok(Some(Next::Malformed(HeadError::TooLarge)));
            }
            if self.received.len() >= SMALL_HEAD_BYTES && self.large_head.is_none() {
                self.large_head = self.connection.try_reserve(HEAD_BYTES);
                if self.large_head.is_none() {
                    return Ok(Some(Next::Malformed(HeadError::NoRoom)));
                }
            }
            let before = self.received.len();
            if self.receive().await? == 0 {
                return Ok(None);
            }
            // The end of a line may be the head's.
            if memchr(b'\n', &self.received[before..]).is_some() {
                parse_at = 0;
            }
        }
    }

    /// Receives bytes: none when the client sends none any more, or when the server stops between two requests. A connection
    /// that waits for a request holds no buffer.
    async fn receive(&mut self) -> io::Result<usize> {
        let (io, received) = (&mut self.io, &mut self.received);
        let (is_idle, is_new) = (received.is_empty(), self.is_new);
        let mut read = poll_fn(|cx| {
            // An empty buffer may have lost most of its capacity to heads before.
            if received.is_empty() || received.capacity() == received.len() {
                received.reserve(RECEIVE_BUFFER_BYTES.max(received.len()));
            }
            let read = poll_read_buf(Pin::new(&mut *io), cx, received);
            if read.is_pending() && received.is_empty() {
                *received = BytesMut::new();
            }
            read
        });
        if !is_idle {
            return read.await;
        }
        let stopped = async {
            self.stop.cancelled().await;
            if is_new {
                // The first request is on its way.
                sleep(LINGER).await;
            }
        };
        tokio::select! {
            biased;
            read = &mut read => return read,
            () = stopped => {}
        }
        // A request that has come meanwhile gets its response.
        if self.connection.has_unread() {
            return read.await;
        }
        Ok(0)
    }

    /// The next head of the bytes received. `None` if it has not come whole.
    ///
    /// # Errors
    /// [`HeadError`], when the head makes no request.
    fn parse(&mut self) -> Result<Option<Next>, HeadError> {
        let mut lines = head::field_lines();
        let Some(head) = head::parse(&self.received, &mut lines)? else {
            return Ok(None);
        };
        let is_simple = head.has_origin_form() && matches!(head.method, Method::GET | Method::HEAD);
        let mut target = None;
        let mut checked = self.refusal.map_or_else(|| head.check(), Err);
        let mut is_content_read = false;
        if !is_simple {
            let uri = head.uri()?;
            checked = checked.and_then(|()| head::check_uri(&head.method, &uri));
            #[cfg(feature = "uploads")]
            if checked.is_ok() {
                is_content_read = self.service.reads_content(&head.method, &uri);
            }
            target = Some(uri);
        }
        if !is_content_read {
            checked = checked.and_then(|()| head.check_content());
        }
        let is_last = checked.is_err() || head.has_content();
        let persistence = if is_last || !head.is_persistent() || self.stop.is_cancelled() {
            Persistence::Close
        } else {
            Persistence::KeepAlive
        };
        let clients = self.connection.clients();
        let admission = match checked {
            Ok(()) if clients.are_counted() => {
                let admitted = self.connection.admit(&head.forwarding_fields());
                admitted.map_err(Rejection::from)
            }
            Ok(()) => Ok(None),
            Err(error) => Err(error.into()),
        };
        let request_id = RequestId::of(head.lines(&X_REQUEST_ID));
        let may_be_cached = is_simple
            && !is_last
            && head.length <= SMALL_HEAD_BYTES
            && head.version == Version::HTTP_11
            && admission.is_ok()
            // Its bytes would be held back by a body, which a cached response has not.
            && clients.limit_rate().is_none();
        let simple_request = SimpleRequest {
            head: &head,
            connection: self.connection,
            request_id: &request_id,
        };
        if may_be_cached && let Some(response) = self.service.try_cached(&simple_request) {
            let length = head.length;
            self.received.advance(length);
            return Ok(Some(Next::Cached {
                response: Box::new(response),
                in_flight: admission.ok().flatten(),
                persistence,
                request_id,
            }));
        }
        let target = match target {
            Some(target) => target,
            None => head.uri()?,
        };
        #[cfg(feature = "uploads")]
        let content = is_content_read.then(|| head.content_framing());
        let (length, places) = (head.length, head.places(&self.received));
        let bytes = self.received.split_to(length).freeze();
        let mut request = places.request(target, &bytes)?;
        let exchange = PendingRequest::new(self.connection, admission, request_id);
        let of_request = Exchange(Arc::clone(&exchange) as _);
        request.extensions_mut().insert(of_request);
        Ok(Some(Next::Request {
            request: Box::new(request),
            exchange,
            persistence,
            #[cfg(feature = "uploads")]
            content,
        }))
    }

    async fn send_cached(
        &mut self,
        response: CachedResponse,
        persistence: Persistence,
        request_id: &RequestId,
    ) -> io::Result<()> {
        let CachedResponse {
            head,
            content,
            mut log_entry,
            ..
        } = response;
        self.connection.tracker().begin_request(log_entry.route());
        self.io
            .socket()
            .begin_response(Some(log_entry.ledger().handle()));
        let connection = persistence_line(Version::HTTP_11, persistence);
        let parts = send::Parts {
            before: &[&head, request_id.line(), connection, self.date.now()],
            body: &content,
            after: &[],
        };
        let sent = send::write_all(&mut self.io, parts, false, |bytes| {
            log_entry.add_body_bytes(bytes)
        })
        .await;
        if sent.is_ok() {
            log_entry.finish(Outcome::Completed);
        }
        drop(log_entry);
        self.io.socket().end_response();
        sent
    }

    /// Has the service respond to a request.
    async fn respond(
        &mut self,
        request: Request<()>,
        exchange: &PendingRequest,
        persistence: Persistence,
    ) -> io::Result<Persistence> {
        let start = (request.method().clone(), request.version());
        // In a box, so that a connection that waits has no room for it.
        let response = Box::pin(self.service.serve(request)).await;
        let (id, ledger) = (exchange.id(), exchange.ledger());
        self.send(response, id, start, ledger, persistence).await
    }

    /// Has the service respond to a request while it reads the content. It is the last request of the connection, so that
    /// nothing behind content is taken for a request.
    #[cfg(feature = "uploads")]
    async fn respond_with_content(
        &mut self,
        request: Request<()>,
        exchange: &PendingRequest,
        framing: ContentFraming,
    ) -> io::Result<Persistence> {
        let start = (request.method().clone(), request.version());
        let is_continue_expected =
            start.1 == Version::HTTP_11 && request.headers().contains_key(header::EXPECT);
        let (requests, content) = content();
        let service = self.service;
        let mut serving = Box::pin(service.serve_with_content(request.map(|()| content)));
        self.connection.timer().begin_content();
        let receiving = self.receive_content(framing, is_continue_expected, requests);
        let response = tokio::select! {
            biased;
            response = serving.as_mut() => {
                self.connection.leave_content();
                response
            }
            received = receiving => {
                received?;
                self.connection.timer().end_content();
                serving.await
            }
        };
        self.connection.timer().end_content();
        let (id, ledger) = (exchange.id(), exchange.ledger());
        self.send(response, id, start, ledger, Persistence::Close)
            .await
    }

    /// Reads content as the service polls for it, to the end or an error. Sends `100 Continue` first if the client waits
    /// for that (RFC 9110 section 10.1.1).
    #[cfg(feature = "uploads")]
    async fn receive_content(
        &mut self,
        framing: ContentFraming,
        mut is_continue_expected: bool,
        mut requests: ChunkRequests,
    ) -> io::Result<()> {
        let mut decoder = ContentDecoder::new(framing);
        while let Some(reply) = requests.next().await {
            if std::mem::take(&mut is_continue_expected) && self.received.is_empty() {
                let parts = send::Parts {
                    before: &[b"HTTP/1.1 100 Continue\r\n\r\n"],
                    body: &[],
                    after: &[],
                };
                send::write_all(&mut self.io, parts, false, |_| ()).await?;
            }
            let chunk = self.receive_chunk(&mut decoder).await.transpose();
            let is_last = !matches!(chunk, Some(Ok(_)));
            // The service may not wait any more.
            let _ = reply.send(chunk);
            if is_last {
                return Ok(());
            }
        }
        // The service has dropped the content, and responds.
        std::future::pending().await
    }

    /// Receives the next bytes of content. `None` at its end.
    #[cfg(feature = "uploads")]
    async fn receive_chunk(&mut self, decoder: &mut ContentDecoder) -> io::Result<Option<Bytes>> {
        loop {
            match decoder.decode(&mut self.received)? {
                Decoded::Bytes(bytes) => {
                    self.connection.timer().content_received(bytes.len());
                    return Ok(Some(bytes));
                }
                Decoded::End => return Ok(None),
                Decoded::Incomplete => {}
            }
            let (io, received) = (&mut self.io, &mut self.received);
            received.reserve(CONTENT_CHUNK_BYTES);
            let read = poll_fn(|cx| poll_read_buf(Pin::new(&mut *io), cx, received));
            if read.await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Responds to a head that makes no request.
    async fn refuse(&mut self, error: HeadError) -> io::Result<()> {
        let millpond = self.service.millpond();
        let (method, target) = request_line(&self.received);
        let request_id = RequestId::random();
        let logged_head = LoggedHead {
            client: Some(self.connection.peer()),
            request_id: Some(request_id.as_str()),
            ..LoggedHead::new(&target)
        };
        let mut log_entry = AccessLogEntry::new(
            &method,
            &logged_head,
            millpond.registry(),
            millpond.limits().request_memory_bytes,
        );
        // A preface of HTTP/2 in the middle of a connection gets no response: its client would not understand it.
        if self.received.starts_with(HTTP2_PREFACE) {
            log_entry.finish_with(Outcome::Rejected, error.to_string());
            return Ok(());
        }
        let ledger = log_entry.ledger().handle();
        let response = millpond.reject(error.into(), log_entry);
        let start = (method, Version::HTTP_11);
        let sent = self.send(
            response,
            &request_id,
            start,
            Some(ledger),
            Persistence::Close,
        );
        sent.await.map(drop)
    }

    /// Sends the response to a request of that id, method and version. Returns the connection's persistence after it.
    async fn send(
        &mut self,
        response: Response<impl ResponseBody>,
        request_id: &RequestId,
        (method, version): (Method, Version),
        ledger: Option<LedgerHandle>,
        persistence: Persistence,
    ) -> io::Result<Persistence> {
        let (mut head, mut body) = response.into_parts();
        head.headers.insert(X_REQUEST_ID, request_id.into());
        let length = body.size_hint().exact();
        let framing = BodyFraming::of((&method, version), head.status, length);
        let is_last =
            says_close(&head.headers) || framing == BodyFraming::Close || self.stop.is_cancelled();
        let persistence = if is_last {
            Persistence::Close
        } else {
            persistence
        };
        let mut encoded = Vec::with_capacity(RESPONSE_HEAD_BYTES);
        let start = (version, head.status);
        let date = &mut self.date;
        encode_head(
            &mut encoded,
            start,
            &head.headers,
            framing,
            persistence,
            date,
        );
        drop(head);
        self.io.socket().begin_response(ledger);
        let sent = send::send(&mut self.io, encoded, &mut body, framing).await;
        drop(body);
        self.io.socket().end_response();
        sent.map(|()| persistence)
    }
}

/// A request's head, for the cache.
struct SimpleRequest<'a, 'head> {
    head: &'a Head<'head>,
    connection: &'a Connection,
    request_id: &'a RequestId,
}

impl<'parsed, 'head> SimpleHead for SimpleRequest<'parsed, 'head> {
    fn method(&self) -> &Method {
        &self.head.method
    }

    fn target(&self) -> &str {
        self.head.target
    }

    fn version(&self) -> Version {
        self.head.version
    }

    fn client(&self) -> IpAddr {
        self.connection.client_by(|| self.head.forwarding_fields())
    }

    fn request_id(&self) -> &str {
        self.request_id.as_str()
    }

    fn lines<'a>(
        &'a self,
        name: &HeaderName,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a, 'parsed, 'head> {
        self.head.lines(name)
    }

    fn held_bytes(&self) -> usize {
        self.head.held_bytes()
    }
}

/// Bytes that most response heads fit into.
const RESPONSE_HEAD_BYTES: usize = 1024;

/// Whether the service ends the connection with its response.
fn says_close(fields: &HeaderMap) -> bool {
    let mut options = fields.get_all(header::CONNECTION).iter();
    options.any(|option| option.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// Method and target of a head that is no sound one, as far as it has them; each is `-` where it has not.
fn request_line(head: &[u8]) -> (Method, Cow<'_, str>) {
    const NONE: &str = "-";
    /// No method that there is has as many.
    const MOST_METHOD_BYTES: usize = 24;
    // Empty lines before it are ignored (RFC 9112 section 2.2).
    let mut head = head;
    while let Some(after) = head.strip_prefix(b"\r\n") {
        head = after;
    }
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
            // Found by fuzzing: the response to this HEAD had content.
            ("\r\n\r\nHEAD /a b\r\nx", "HEAD", "/a"),
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
