//! Answers that are given again and are in memory go to the socket at once, and the HTTP library never learns of the request.
//!
//! That is what most requests for small media come to, and then parsing into a map, a service, a body of parts and writing
//! the same head anew is most of the work. So each head is looked at as it is read: where it is as plain as most are, the
//! only thing that has come, and its answer is known and holds, that answer is written. Everything else is the library's,
//! with the bytes as they came.

use crate::http1::head::is_host;
use crate::protocol::HttpIo;
use crate::transport::connection::{Connection, SMALL_HEAD_BYTES};
use crate::transport::exchange::Http1Response;
use http::Method;
use http::header::HeaderName;
use httpdate::HttpDate;
use millpond::downstream::SimpleHead;
use millpond::head_size::head_memory_bytes;
use millpond::ledger::Outcome;
use millpond::{CachedResponse, MediaService};
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection of HTTP/1.1 as the library sees it: without the requests that were answered at once.
pub(crate) struct Direct<S> {
    plaintext: HttpIo,
    connection: Arc<Connection>,
    service: S,
    turn: Turn,
    sending: Option<Sending>,
    date: DateLine,
}

/// Whose the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nobody's yet.
    Open,
    /// The library has a request, or some of one, and may have something to write.
    Library,
}

impl<S: MediaService> Direct<S> {
    pub(crate) fn new(plaintext: HttpIo, connection: Arc<Connection>, service: S) -> Self {
        Direct {
            plaintext,
            connection,
            service,
            turn: Turn::Open,
            sending: None,
            date: DateLine::new(),
        }
    }

    /// The answer to what has come, if it is one request and can be answered at once.
    fn answer(&self, came: &[u8]) -> Option<Given> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let head = PlainHead::parse(came, &mut fields)?;
        // Who reads along has to agree that it is one, and that it is all.
        let may_be_answered = self.connection.is_unlimited() && self.connection.has_one_request();
        if !may_be_answered {
            return None;
        }
        let cached = self.service.try_cached(&head)?;
        Some(Given::new(cached, &self.connection))
    }

    /// Sends what is on its way, to its end.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(sending) = &mut self.sending {
            let mut pieces = sending.pieces();
            let mut rest = &mut pieces[..];
            IoSlice::advance_slices(&mut rest, sending.sent_bytes);
            if rest.is_empty() {
                ready!(Pin::new(&mut self.plaintext).poll_flush(cx))?;
                self.sending = None;
                break;
            }
            let plaintext = Pin::new(&mut self.plaintext);
            match ready!(plaintext.poll_write_vectored(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => sending.sent_bytes += count,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: MediaService> AsyncRead for Direct<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            ready!(this.poll_send(cx))?;
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.plaintext).poll_read(cx, buffer))?;
            let came = &buffer.filled()[before..];
            if this.turn == Turn::Library {
                return Poll::Ready(Ok(()));
            }
            match this.answer(came) {
                Some(given) => {
                    let date = this.date.now();
                    this.sending = Some(Sending::new(given, date));
                    buffer.set_filled(before);
                }
                None => {
                    this.turn = Turn::Library;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<S: MediaService> AsyncWrite for Direct<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().plaintext).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().plaintext).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The library flushes when it has written all that it has, so that this is when its turn may end.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.plaintext).poll_flush(cx))?;
        if this.turn == Turn::Library && this.connection.is_between_requests() {
            this.turn = Turn::Open;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // It knows nothing of what is on its way here.
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.plaintext).poll_shutdown(cx)
    }
}

/// Most fields of a head that is looked at: browsers send some fifteen.
const MOST_FIELDS: usize = 32;

/// A request's head that means no more than it says: no content, nothing about the connection, one host.
pub(crate) struct PlainHead<'a> {
    /// `GET` or `HEAD`.
    method: Method,
    /// The target, in origin-form.
    target: &'a str,
    fields: &'a [httparse::Header<'a>],
}

impl<'a> PlainHead<'a> {
    fn parse(bytes: &'a [u8], fields: &'a mut [httparse::Header<'a>; MOST_FIELDS]) -> Option<Self> {
        // What is larger has to have room, and may be too large.
        if bytes.len() > SMALL_HEAD_BYTES {
            return None;
        }
        let mut request = httparse::Request::new(fields);
        if request.parse(bytes).ok()? != httparse::Status::Complete(bytes.len()) {
            return None;
        }
        let method = match request.method? {
            "GET" => Method::GET,
            "HEAD" => Method::HEAD,
            _ => return None,
        };
        let target = request.path.filter(|target| target.starts_with('/'))?;
        let fields: &[httparse::Header<'_>] = request.headers;
        let mut hosts = fields.iter().filter(|field| is(field, "host"));
        let (host, None) = (hosts.next()?, hosts.next()) else {
            return None;
        };
        let is_plain = request.version == Some(1)
            && is_host(host.value)
            && fields.iter().all(means_no_more_than_it_says);
        is_plain.then_some(PlainHead {
            method,
            target,
            fields,
        })
    }
}

impl<'head> SimpleHead for PlainHead<'head> {
    fn method(&self) -> &Method {
        &self.method
    }

    fn target(&self) -> &str {
        self.target
    }

    fn lines<'a>(&'a self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a, 'head> {
        let name = name.clone();
        let lines = self
            .fields
            .iter()
            .filter(move |field| is(field, name.as_str()));
        lines.map(|field| field.value)
    }

    /// As much as if the library had read it.
    fn held_bytes(&self) -> usize {
        let fields = self.fields.iter();
        let fields = fields.map(|field| field.name.len() + field.value.len());
        head_memory_bytes(self.target, self.fields.len(), fields.sum())
    }
}

fn is(field: &httparse::Header<'_>, name: &str) -> bool {
    field.name.eq_ignore_ascii_case(name)
}

/// Whether a field changes nothing about the connection, the content, or how the answer is sent.
fn means_no_more_than_it_says(field: &httparse::Header<'_>) -> bool {
    const OTHERS: [&str; 6] = [
        "content-length",
        "transfer-encoding",
        "expect",
        "upgrade",
        "te",
        "trailer",
    ];
    if is(field, "connection") {
        return field.value.eq_ignore_ascii_case(b"keep-alive");
    }
    !OTHERS.iter().any(|name| is(field, name))
}

/// An answer that is given at once, and what it holds until it has been sent.
pub(crate) struct Given {
    cached: CachedResponse,
    _response: Http1Response,
}

impl Given {
    /// The response begins with this.
    fn new(mut cached: CachedResponse, connection: &Arc<Connection>) -> Self {
        let (record, content) = (&mut cached.log_entry, &cached.content);
        let ledger = record.ledger().handle();
        let response = Http1Response::begin(Arc::clone(connection), record.route(), &ledger);
        record.add_body_bytes(content.len());
        record.finish(Outcome::Completed);
        Given {
            cached,
            _response: response,
        }
    }
}

/// An answer on its way.
struct Sending {
    given: Given,
    date: [u8; DATE_LINE_BYTES],
    sent_bytes: usize,
}

impl Sending {
    fn new(given: Given, date: [u8; DATE_LINE_BYTES]) -> Self {
        Sending {
            given,
            date,
            sent_bytes: 0,
        }
    }

    fn pieces(&self) -> [IoSlice<'_>; 3] {
        let CachedResponse { head, content, .. } = &self.given.cached;
        [head, &self.date[..], content].map(IoSlice::new)
    }
}

/// The `Date` field and the end of a head, made anew when a second has passed (RFC 9110 section 6.6.1).
#[derive(Debug)]
struct DateLine {
    second: Duration,
    line: [u8; DATE_LINE_BYTES],
}

const DATE_LINE_BYTES: usize = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n".len();

impl DateLine {
    fn new() -> Self {
        DateLine {
            second: Duration::MAX,
            line: [0; DATE_LINE_BYTES],
        }
    }

    fn now(&mut self) -> [u8; DATE_LINE_BYTES] {
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
        self.line
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::client_limits::{ClientLimits, Clients};
    use crate::incoming::Listeners;
    use futures_util::poll;
    use millpond::store::{Folder, Importer, MediaStore};
    use millpond::{Config, Limits, Millpond, Source};
    use std::net::Ipv4Addr;
    use std::pin::pin;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};

    /// A host that has media of so many bytes and knows the answer to a request for it, and a connection on which that
    /// request has come. However slow the machine is, the answer holds: by content it does for an hour, and the kernel,
    /// which need not tell at once what lies at a path, is asked no more once the file is kept.
    async fn connect(length: usize) -> (Millpond, Direct<Millpond>, TcpStream, String) {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::write(&source, vec![7; length]).unwrap();
        let adder = Importer::open(folder.path()).unwrap();
        let target = format!("/api/media/{}", adder.add(&source, |_| ()).unwrap().id);
        let asked = format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
        let store = Folder::open(folder.path()).unwrap();
        let store = store.with_open_file_cache_valid(Duration::from_secs(24 * 3600));
        let limits = Limits::default();
        let millpond = Millpond::new(
            &Source::embedded(),
            store.clone(),
            &Config::default(),
            limits,
        );
        let millpond = millpond.unwrap();
        while store.cache_usage().used_bytes == 0 || millpond.registry().response_cache_hits() == 0
        {
            let request = http::Request::get(&target).header("host", "a");
            millpond.serve(request.body(()).unwrap()).await;
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        // As little as the system allows, so that what is not read soon fills it.
        socket.set_recv_buffer_size(1).unwrap();
        let client = socket.connect(listener.local_addr().unwrap()).await;
        let mut client = client.unwrap();
        client.write_all(asked.as_bytes()).await.unwrap();
        let incoming = Listeners::from(listener).accept().await.unwrap();
        let clients = Clients::new(&ClientLimits::default());
        let (registry, budget) = (millpond.registry(), millpond.budget());
        let connection =
            Connection::open(incoming, &clients, registry, budget, &Arc::default()).unwrap();
        let (plaintext, _) = HttpIo::open(&connection, None).await.unwrap();
        let direct = Direct::new(plaintext, connection, millpond.clone());
        (millpond, direct, client, asked)
    }

    /// As many answers as there is room for on the way, each to a request that came alone. What the library sees then is
    /// the request that it has to answer, and nothing else.
    #[tokio::test]
    async fn a_reader_that_waits_gets_all_that_was_answered_and_the_library_sees_none_of_it() {
        const LENGTH: usize = 10_000;
        const OTHER: &str = "POST / HTTP/1.1\r\nhost: a\r\n\r\n";
        let (millpond, mut direct, mut client, asked) = connect(LENGTH).await;
        let before = millpond.registry().response_cache_hits();
        let mut buffer = [0; 1024];
        let mut answers = 1;
        loop {
            let answered = millpond.registry().response_cache_hits() - before;
            assert!(poll!(pin!(direct.read(&mut buffer))).is_pending());
            if answered < answers {
                tokio::task::yield_now().await;
            } else if direct.sending.is_none() {
                client.write_all(asked.as_bytes()).await.unwrap();
                answers += 1;
            } else {
                break;
            }
        }
        // Some of the last is on its way.
        let mut received = Vec::new();
        let whole = async {
            let is_whole = |received: &[u8]| {
                let heads = received.windows(4).filter(|end| end == b"\r\n\r\n").count();
                let bytes = received.iter().filter(|byte| **byte == 7).count();
                heads as u64 == answers && bytes as u64 == answers * LENGTH as u64
            };
            while !is_whole(&received) {
                assert_ne!(client.read_buf(&mut received).await.unwrap(), 0);
            }
            client.write_all(OTHER.as_bytes()).await.unwrap();
        };
        let (count, ()) = tokio::join!(direct.read(&mut buffer), whole);
        assert_eq!(&buffer[..count.unwrap()], OTHER.as_bytes());
        let answer = &received[..received.len() / usize::try_from(answers).unwrap()];
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(
            received
                .chunks(answer.len())
                .all(|other| other.len() == answer.len())
        );
        drop(direct);
        millpond.registry().idle().await;
    }

    #[tokio::test]
    async fn a_client_that_leaves_with_an_answer_on_its_way_holds_nothing() {
        let (millpond, mut direct, client, _) = connect(12_000).await;
        drop(client);
        let mut buffer = [0; 1024];
        // The end of the stream, or that the answer could not be sent.
        let ended = direct.read(&mut buffer).await;
        assert!(!matches!(ended, Ok(1..)));
        drop(direct);
        millpond.registry().idle().await;
        assert_eq!(millpond.registry().snapshot().total().total(), 0);
    }

    #[test]
    fn a_head_is_plain_or_it_is_the_librarys() {
        let parse = |head: &str| {
            let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
            PlainHead::parse(head.as_bytes(), &mut fields).is_some()
        };
        for plain in [
            "GET /media/a.gif HTTP/1.1\r\nhost: a\r\n\r\n",
            "HEAD /a?b HTTP/1.1\r\nHost: a:80\r\nConnection: Keep-Alive\r\nx:\r\n\r\n",
            "GET / HTTP/1.1\r\nrange: bytes=0-1\r\naccept: */*\r\nhost: [::1]\r\n\r\n",
        ] {
            assert!(parse(plain), "{plain:?}");
        }
        let long = format!(
            "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
            "y".repeat(SMALL_HEAD_BYTES)
        );
        let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(32));
        for other in [
            "",
            "GET / HTTP/1.1\r\nhost: a\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
            "GET / HTTP/1.0\r\nhost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nConnection: keep-alive, x\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\r\nGET",
            &many,
            &long,
        ] {
            assert!(!parse(other), "{other:?}");
        }
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
