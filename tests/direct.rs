//! What is answered at once is what the HTTP library would answer, byte for byte, in whatever company it comes.

use crate::client::raw;
use crate::host::{Host, noise};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that is kept, and what has come on it.
struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    async fn connect(host: &Host) -> Self {
        Client {
            stream: TcpStream::connect(host.address).await.unwrap(),
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

fn without_date(mut answer: Vec<u8>) -> Vec<u8> {
    const NAME: &[u8] = b"\r\ndate: ";
    let begin = answer.windows(NAME.len()).position(|name| name == NAME);
    let begin = begin.unwrap() + NAME.len();
    answer.drain(begin..begin + "Thu, 01 Jan 1970 00:00:00 GMT".len());
    answer
}

/// A field that changes nothing but that the library has to look at it.
const FOR_THE_LIBRARY: &str = "content-length: 0\r\n";

#[tokio::test]
async fn every_answer_is_the_librarys_to_the_byte() {
    let host = Host::start().await;
    host.write("small.gif", &noise(4096));
    host.write("largest.gif", &noise(12 * 1024));
    host.write("empty.txt", b"");
    host.write("page.html", b"<p>");
    let id = host.add(&noise(500));
    let media = format!("/api/media/{id}");
    // Of named files, what is larger has its digest told later.
    let larger = format!("/api/media/{}", host.add(&noise(12 * 1024 + 1)));
    let etag = format!("if-none-match: \"{id}\"\r\n");
    let mut client = Client::connect(&host).await;
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
        &format!("/api/media/{}", "ab".repeat(32)),
    ] {
        for method in ["GET", "HEAD"] {
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
            ] {
                let head = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}");
                let mut first = None;
                for turn in 0..3 {
                    let at_once = client.ask(&format!("{head}\r\n")).await;
                    let library_s = client.ask(&format!("{head}{FOR_THE_LIBRARY}\r\n")).await;
                    let first = first.get_or_insert_with(|| library_s.clone());
                    if fields.contains(',') && fields.starts_with("range") {
                        // Each has a boundary of its own.
                        assert_eq!(first.len(), library_s.len());
                        continue;
                    }
                    for answer in [&at_once, &library_s] {
                        let is_same = answer == first;
                        assert!(is_same, "{head:?}, turn {turn}: {}", head_of(answer));
                    }
                }
            }
        }
    }
    assert!(host.registry().response_cache_hits() > 200);
    drop(client);
    host.registry().idle().await;
}

/// What is answered at once takes its turn among what is not, however the heads come.
#[tokio::test]
async fn answers_come_in_the_order_of_their_requests() {
    let host = Host::start().await;
    for (name, length) in [("a.gif", 100), ("b.gif", 4096), ("c.gif", 1_000_000)] {
        host.write(name, &noise(length));
    }
    let head = |name: &str| format!("GET /media/{name} HTTP/1.1\r\nhost: a\r\n\r\n");
    let content = |answer: &[u8]| answer[end_of_head(answer).unwrap()..].to_vec();
    let mut client = Client::connect(&host).await;
    for _ in 0..3 {
        for (name, length) in [("a.gif", 100), ("b.gif", 4096), ("c.gif", 1_000_000)] {
            let answer = client.ask(&head(name)).await;
            assert!(content(&answer) == noise(length), "{name}");
        }
        // All at once; then cut in the middle of a head, and with the end of one in the same piece as the next.
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
async fn a_head_that_ends_the_connection_ends_it_after_answers_given_at_once() {
    let host = Host::start().await;
    host.write("a.gif", &noise(100));
    let head = "GET /media/a.gif HTTP/1.1\r\nhost: a\r\n";
    for last in [
        "connection: close\r\n\r\n",
        "content-length: 5\r\n\r\nhello",
        "x: y\n\r\n",
        "transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut client = Client::connect(&host).await;
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
async fn a_head_that_is_too_large_is_refused_though_its_answer_is_known() {
    let host = Host::start().await;
    host.write("a.gif", &noise(100));
    let head = "GET /media/a.gif HTTP/1.1\r\nhost: a\r\n";
    let large = format!("{head}cookie: {}\r\n\r\n", "a".repeat(17 * 1024));
    let mut client = Client::connect(&host).await;
    // The more that came at once, the more is read at once.
    for _ in 0..6 {
        let answer = client.ask(&format!("{head}\r\n")).await;
        assert!(answer.ends_with(&noise(100)));
        let answer = client.ask(&large).await;
        assert_eq!(crate::client::status(&answer), Some(431));
    }
    host.registry().idle().await;
}
