//! The HTTP/1.1 driver, with hyper as the oracle: the same bytes get the same responses, however they come.

use crate::client::{raw, reset};
use crate::host::{Host, noise};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use millpond::Outcome;
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A connection that is kept, and what has come on it.
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Client {
            stream: TcpStream::connect(address).await.unwrap(),
            received: Vec::new(),
        }
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next answer, without its date. One to `HEAD` is as long as its head.
    async fn answer(&mut self, is_head: bool) -> Vec<u8> {
        loop {
            if let Some(end) = end_of_answer(&self.received, is_head) {
                let rest = self.received.split_off(end);
                return without_date(std::mem::replace(&mut self.received, rest));
            }
            let count = self.stream.read_buf(&mut self.received).await.unwrap();
            assert_ne!(count, 0, "{:?}", String::from_utf8_lossy(&self.received));
        }
    }

    async fn ask(&mut self, head: &str) -> Vec<u8> {
        self.send(head).await;
        self.answer(head.starts_with("HEAD")).await
    }
}

fn end_of_head(received: &[u8]) -> Option<usize> {
    let end = received.windows(4).position(|end| end == b"\r\n\r\n")?;
    Some(end + 4)
}

fn end_of_answer(received: &[u8], is_head: bool) -> Option<usize> {
    let end = end_of_head(received)?;
    let head = str::from_utf8(&received[..end]).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    let end = if is_head { end } else { end + length };
    (received.len() >= end).then_some(end)
}

fn head_of(answer: &[u8]) -> String {
    let end = end_of_head(answer).unwrap();
    String::from_utf8_lossy(&answer[..end]).into_owned()
}

/// Removes the value of `Date`, and the request id that millpond's own server adds.
fn without_date(mut answer: Vec<u8>) -> Vec<u8> {
    const ID: &[u8] = b"\r\nx-request-id: ";
    if let Some(begin) = answer.windows(ID.len()).position(|name| name == ID) {
        let line = &answer[begin + 2..];
        let length = line.iter().position(|byte| *byte == b'\r').unwrap();
        answer.drain(begin..begin + 2 + length);
    }
    const NAME: &[u8] = b"\r\ndate: ";
    let begin = answer.windows(NAME.len()).position(|name| name == NAME);
    let begin = begin.unwrap() + NAME.len();
    answer.drain(begin..begin + "Thu, 01 Jan 1970 00:00:00 GMT".len());
    answer
}

/// hyper, over the same service as the host.
async fn hyper_beside(host: &Host) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let millpond = host.millpond().clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let millpond = millpond.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let millpond = millpond.clone();
                async move { Ok::<_, Infallible>(millpond.serve(request).await) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.half_close(true).header_read_timeout(None);
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// Waits until the file's entity tag is a strong one: for a moment after a change, the clock cannot tell two versions apart.
async fn has_strong_tag(host: &Host, name: &str) {
    let target = format!("/media/{name}");
    while host
        .get(&target)
        .await
        .field("etag")
        .unwrap()
        .starts_with("W/")
    {}
}

/// A response by which two servers are compared: its status line, its fields in any order, and its content. Whether the
/// connection goes on is compared by the responses that follow. hyper leaves `connection: close` out in HTTP/1.0.
fn comparable(answer: &[u8]) -> (String, Vec<String>, Vec<u8>) {
    let (head, content) = answer.split_at(end_of_head(answer).unwrap());
    let mut lines = str::from_utf8(head).unwrap().lines().map(str::to_owned);
    let status = lines.next().unwrap();
    let is_compared = |line: &String| !line.is_empty() && !line.starts_with("connection:");
    let mut fields: Vec<_> = lines.filter(is_compared).collect();
    fields.sort_unstable();
    (status, fields, content.to_vec())
}

#[tokio::test]
async fn every_response_is_as_hyper_sends_it() {
    let host = Host::start().await;
    host.write("small.gif", &noise(4096));
    host.write("largest.gif", &noise(12 * 1024));
    host.write("long.gif", &noise(300_000));
    host.write("empty.txt", b"");
    host.write("page.html", b"<p>");
    let id = host.add(&noise(500));
    let media = format!("/api/media/{id}");
    // A named file that is larger has its digest later.
    let larger = format!("/api/media/{}", host.add(&noise(12 * 1024 + 1)));
    let etag = format!("if-none-match: \"{id}\"\r\n");
    for name in ["small.gif", "largest.gif", "empty.txt", "page.html"] {
        has_strong_tag(&host, name).await;
    }
    let hyper = hyper_beside(&host).await;
    let mut client = Client::connect(host.address).await;
    let mut of_hyper = Client::connect(hyper).await;
    for target in [
        "/media/small.gif",
        "/media/small.gif?download=a%20b.gif",
        "/media/largest.gif",
        larger.as_str(),
        "/media/empty.txt",
        "/media/page.html",
        "/media/missing.gif",
        "/nothing",
        media.as_str(),
        &format!("{media}/info"),
        &format!("http://a{media}"),
        &format!("/api/media/{}", "ab".repeat(32)),
    ] {
        for method in ["GET", "HEAD", "OPTIONS", "POST"] {
            for fields in [
                "",
                "range: bytes=1-2\r\n",
                "range: bytes=0-0,2-2\r\n",
                "range: bytes=99999-\r\n",
                &etag,
                "if-match: \"x\"\r\n",
                "if-none-match: *\r\n",
                "Accept-Encoding: gzip\r\naccept: image/avif,*/*\r\nuser-agent: x\r\n",
                "origin: https://a.example\r\nConnection: keep-alive\r\n",
                "want-repr-digest: sha-256=1\r\n",
                "content-length: 0\r\nexpect: 100-continue\r\n",
            ] {
                let head = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
                // Twice, so that the second response is a stored one where that is allowed.
                for turn in 0..2 {
                    let expected = comparable(&of_hyper.ask(&head).await);
                    let found = comparable(&client.ask(&head).await);
                    if fields.contains(',') && fields.starts_with("range") {
                        // Each has a boundary of its own.
                        assert_eq!((&found.0, found.2.len()), (&expected.0, expected.2.len()));
                        continue;
                    }
                    assert!(
                        found == expected,
                        "{head:?}, turn {turn}: {found:?} {expected:?}"
                    );
                }
            }
        }
    }
    drop((client, of_hyper));
    host.registry().idle().await;
}

/// Heads in any order, in both versions, with or without an end of the connection, and cut anywhere.
#[tokio::test]
async fn pipelines_get_the_responses_that_hyper_sends_however_they_are_cut() {
    const PIPELINES: usize = 200;
    let host = Host::start().await;
    // By their content, since the digest of a named file is known later.
    let [a, b] = [100, 70_000].map(|length| format!("/api/media/{}", host.add(&noise(length))));
    let hyper = hyper_beside(&host).await;
    let random = noise(PIPELINES * 64);
    let mut random = random.into_iter().map(usize::from);
    let mut pick = |count: usize| random.next().unwrap() % count;
    for _ in 0..PIPELINES {
        let mut sent = String::new();
        for _ in 0..=pick(5) {
            let method = ["GET", "HEAD", "OPTIONS"][pick(3)];
            let target = [a.as_str(), b.as_str(), "/media/c.gif"][pick(3)];
            let version = ["1.1", "1.1", "1.1", "1.0"][pick(4)];
            let fields = [
                "",
                "",
                "range: bytes=5-\r\n",
                "connection: keep-alive\r\n",
                "connection: close\r\n",
                "x:\r\n",
            ][pick(6)];
            sent += ["", "", "\r\n"][pick(3)];
            sent += &format!("{method} {target} HTTP/{version}\r\nhost: a\r\n{fields}\r\n");
            // hyper closes with bytes unread, and the response on its way may be lost by that.
            if fields.contains("close") || version == "1.0" && !fields.contains("keep-alive") {
                break;
            }
        }
        let cuts = [sent.len() * pick(100) / 100, sent.len() * pick(100) / 100];
        let found = exchange(host.address, &sent, cuts).await;
        let expected = exchange(hyper, &sent, cuts).await;
        assert!(
            found == expected,
            "{sent:?} {cuts:?}: {found:?} {expected:?}"
        );
    }
    host.registry().idle().await;
}

/// Sends bytes in chunks and closes the sending end. Returns the responses without `Date`, the request
/// id and the fields of the connection.
async fn exchange(address: SocketAddr, sent: &str, mut cuts: [usize; 2]) -> String {
    cuts.sort_unstable();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut reader, mut writer) = stream.split();
    let sending = async {
        for piece in [&sent[..cuts[0]], &sent[cuts[0]..cuts[1]], &sent[cuts[1]..]] {
            // The server may have ended the connection with a response.
            let _ = writer.write_all(piece.as_bytes()).await;
            tokio::task::yield_now().await;
        }
        let _ = writer.shutdown().await;
    };
    let mut received = Vec::new();
    let (_, read) = tokio::join!(sending, reader.read_to_end(&mut received));
    read.unwrap();
    let text: String = received.iter().map(|byte| char::from(*byte)).collect();
    let lines = text.split_inclusive("\r\n");
    let is_compared = |line: &&str| {
        let names = ["date: ", "connection: ", "x-request-id: "];
        !names.iter().any(|name| line.starts_with(name))
    };
    lines.filter(is_compared).collect()
}

/// Stored responses take their turn among others, however the heads come.
#[tokio::test]
async fn answers_come_in_the_order_of_their_requests() {
    let host = Host::start().await;
    for (name, length) in [("a.gif", 100), ("b.gif", 4096), ("c.gif", 1_000_000)] {
        host.write(name, &noise(length));
    }
    let head = |name: &str| format!("GET /media/{name} HTTP/1.1\r\nhost: a\r\n\r\n");
    let content = |answer: &[u8]| answer[end_of_head(answer).unwrap()..].to_vec();
    let mut client = Client::connect(host.address).await;
    for _ in 0..3 {
        for (name, length) in [("a.gif", 100), ("b.gif", 4096), ("c.gif", 1_000_000)] {
            let answer = client.ask(&head(name)).await;
            assert!(content(&answer) == noise(length), "{name}");
        }
        // All at once; then cut in the middle of a head, and with the end of one in the same chunk as the next.
        let all = ["a.gif", "c.gif", "b.gif", "a.gif"].map(head).concat();
        let (first, rest) = all.split_at(head("a.gif").len() + 10);
        for pieces in [vec![all.as_str()], vec![first, rest]] {
            for piece in pieces {
                client.send(piece).await;
            }
            for length in [100, 1_000_000, 4096, 100] {
                let answer = client.answer(false).await;
                assert!(content(&answer) == noise(length), "{length}");
            }
        }
    }
    host.registry().idle().await;
}

#[tokio::test]
async fn a_head_that_ends_the_connection_ends_it_after_stored_responses() {
    let host = Host::start().await;
    host.write("a.gif", &noise(100));
    let head = "GET /media/a.gif HTTP/1.1\r\nhost: a\r\n";
    for last in [
        "connection: close\r\n\r\n",
        "content-length: 5\r\n\r\nhello",
        "x: y\n\r\n",
        "transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut client = Client::connect(host.address).await;
        for _ in 0..3 {
            client.ask(&format!("{head}\r\n")).await;
        }
        client.send(&format!("{head}{last}")).await;
        let answer = client.answer(false).await;
        let head = head_of(&answer);
        assert!(
            head.contains("\r\nconnection: close\r\n"),
            "{last:?}: {head}"
        );
        assert_eq!(
            client.stream.read_buf(&mut client.received).await.unwrap(),
            0
        );
    }
    let old = raw(host.address, b"GET /media/a.gif HTTP/1.0\r\n\r\n").await;
    assert!(old.ends_with(&noise(100)), "{}", head_of(&old));
    host.registry().idle().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_though_its_response_is_stored() {
    let host = Host::start().await;
    host.write("a.gif", &noise(100));
    let head = "GET /media/a.gif HTTP/1.1\r\nhost: a\r\n";
    let large = format!("{head}cookie: {}\r\n\r\n", "a".repeat(17 * 1024));
    let mut client = Client::connect(host.address).await;
    // The more that came at once, the more is read at once.
    for _ in 0..6 {
        let answer = client.ask(&format!("{head}\r\n")).await;
        assert!(answer.ends_with(&noise(100)));
        let answer = client.ask(&large).await;
        assert_eq!(crate::client::status(&answer), Some(431));
    }
    host.registry().idle().await;
}

/// Once, a stored response was completed, and its bytes counted as sent, before the first was written.
#[tokio::test]
async fn a_response_is_completed_once_its_last_byte_is_written() {
    const REQUESTS: usize = 300;
    const LENGTH: usize = 1000;
    let host = Host::start().await;
    let target = format!("/api/media/{}", host.add(&noise(LENGTH)));
    let head = format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut client = Client::connect(host.address).await;
    while host.registry().response_cache_hits() == 0 {
        client.ask(&head).await;
    }
    let registry = host.registry();
    let (stored, before) = (
        registry.response_body_bytes(),
        registry.ended_requests(Outcome::Completed),
    );
    let socket = TcpSocket::new_v4().unwrap();
    // As little as the system allows, so that a response is seldom written at once.
    socket.set_recv_buffer_size(1).unwrap();
    let mut slow = socket.connect(host.address).await.unwrap();
    let all = head.repeat(REQUESTS);
    // The server receives no more once it cannot send.
    let sent = async {
        let _ = slow.write_all(all.as_bytes()).await;
        std::future::pending().await
    };
    let responded = async {
        while registry.ended_requests(Outcome::Completed) == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = sent => {}
        () = responded => {}
    }
    reset(slow);
    registry.idle().await;
    let completed = registry.ended_requests(Outcome::Completed) - before;
    assert!((1..REQUESTS as u64).contains(&completed), "{completed}");
    assert!(registry.ended_requests(Outcome::Aborted) <= 1);
    let sent = registry.response_body_bytes() - stored;
    let whole = completed * LENGTH as u64;
    assert!(
        (whole..whole + LENGTH as u64).contains(&sent),
        "{sent} bytes of {completed}"
    );
}

/// Once, such a head was looked at again only when twice as much had come.
#[tokio::test]
async fn a_head_in_many_pieces_is_answered_when_its_end_comes_with_more_behind_it() {
    let host = Host::start().await;
    let mut client = Client::connect(host.address).await;
    client.stream.set_nodelay(true).unwrap();
    let head = "POST /media/none HTTP/1.1\r\nhost: a\r\ncontent-length: 5";
    for byte in head.chars() {
        client.send(&byte.to_string()).await;
        tokio::task::yield_now().await;
    }
    client.send("\r\n\r\nhello").await;
    assert!(client.answer(false).await.starts_with(b"HTTP/1.1 405"));
}
