//! The origin: an HTTP/1.1 server with a bounded rate and a latency, which logs all that it sends.

use super::content::Object;
use anyhow::{Context, Result};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Speed of the origin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speed {
    /// Bytes a second, of all its responses together.
    pub(crate) bytes_per_second: u64,
    /// Time from a request to the head of its response.
    pub(crate) latency: Duration,
}

/// The origin, with a thread for each connection. Dropped, it stops.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    speed: Speed,
    /// When the next byte may be sent.
    next: Mutex<Instant>,
    log: Mutex<OriginLog>,
    is_stopped: AtomicBool,
}

/// All that the origin did since it was asked last.
#[derive(Debug, Clone, Default)]
pub(crate) struct OriginLog {
    /// When each GET came.
    pub(crate) requests: Vec<Instant>,
    /// When bytes of bodies were sent, and how many.
    pub(crate) sent: Vec<(Instant, u64)>,
}

impl OriginLog {
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// Bytes that are sent at a time.
const CHUNK: usize = 64 * 1024;

/// Maximum length of a request's head, in bytes.
const HEAD_BYTES: usize = 16 * 1024;

/// Stack of a connection's thread: a thousand of them are no burden.
const STACK_BYTES: usize = 256 * 1024;

impl Origin {
    pub(crate) fn start(speed: Speed) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            speed,
            next: Mutex::new(Instant::now()),
            log: Mutex::default(),
            is_stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        spawn(move || accept(&listener, &accepting))?;
        Ok(Origin { address, shared })
    }

    /// Returns the log since the last call, and begins a new one.
    pub(crate) fn take_log(&self) -> OriginLog {
        std::mem::take(&mut self.shared.log())
    }

    /// Returns the number of bytes that it has sent since the last call of [`take_log`](Self::take_log).
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.shared.log().sent_bytes()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Release);
        // The thread that accepts sees it with the next connection.
        let _ = TcpStream::connect(self.address);
    }
}

fn spawn(act: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().stack_size(STACK_BYTES);
    thread.spawn(act).context("cannot start a thread")?;
    Ok(())
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is_stopped.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        let spawned = spawn(move || {
            // A server that leaves ends it with an error.
            let _ = shared.serve(stream);
        });
        if let Err(error) = spawned {
            eprintln!("the origin refuses a connection: {error:#}");
        }
    }
}

/// A request, as far as the origin understands it.
#[derive(Debug, PartialEq)]
struct Asked {
    is_head: bool,
    object: Option<Object>,
    range: Option<Range<u64>>,
    is_unchanged: bool,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, OriginLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut received = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            let Some(end) = end else {
                let count = stream.read(&mut buffer)?;
                if count == 0 || received.len() > HEAD_BYTES {
                    return Ok(());
                }
                received.extend_from_slice(&buffer[..count]);
                continue;
            };
            let head: Vec<u8> = received.drain(..end + 4).collect();
            self.answer(&head, &mut stream)?;
        }
    }

    fn answer(&self, head: &[u8], stream: &mut TcpStream) -> io::Result<()> {
        let asked = parse(head).ok_or(io::ErrorKind::InvalidData)?;
        if !asked.is_head {
            self.log().requests.push(Instant::now());
        }
        thread::sleep(self.speed.latency);
        let (head, range) = response(&asked);
        stream.write_all(head.as_bytes())?;
        let (Some(object), false) = (asked.object, asked.is_head) else {
            return Ok(());
        };
        let mut chunk = [0; CHUNK];
        let mut offset = range.start;
        while offset < range.end {
            // At most a chunk.
            let count = (range.end - offset).min(CHUNK as u64) as usize;
            object.fill(offset, &mut chunk[..count]);
            self.wait_for(count as u64);
            stream.write_all(&chunk[..count])?;
            self.log().sent.push((Instant::now(), count as u64));
            offset += count as u64;
        }
        Ok(())
    }

    /// Waits until so many bytes may be sent. The next ones may be sent after the time that these take.
    fn wait_for(&self, bytes: u64) {
        let nanoseconds = bytes.saturating_mul(1_000_000_000) / self.speed.bytes_per_second;
        let due = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let due = (*next).max(Instant::now());
            *next = due + Duration::from_nanos(nanoseconds);
            due
        };
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn parse(head: &[u8]) -> Option<Asked> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    request.parse(head).ok()?;
    let object = Object::at(request.path?);
    let field = |name: &str| {
        let field = request
            .headers
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(name));
        std::str::from_utf8(field?.value).ok()
    };
    let tag = object.map(entity_tag);
    let same = |value: Option<&str>| value.is_some() && value == tag.as_deref();
    let is_ranged = field("if-range").is_none() || same(field("if-range"));
    let range = field("range").filter(|_| is_ranged);
    Some(Asked {
        is_head: request.method? == "HEAD",
        object,
        range: range
            .zip(object)
            .and_then(|(range, object)| parse_range(range, object.bytes)),
        is_unchanged: same(field("if-none-match")),
    })
}

/// Reads a single range (RFC 9110 section 14.1.2) that can be satisfied. Others are ignored.
fn parse_range(value: &str, length: u64) -> Option<Range<u64>> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first, last) {
        ("", suffix) => length.saturating_sub(suffix.parse().ok()?)..length,
        (first, "") => first.parse().ok()?..length,
        (first, last) => {
            first.parse().ok()?..last.parse::<u64>().ok()?.saturating_add(1).min(length)
        }
    };
    (range.start < range.end).then_some(range)
}

fn entity_tag(object: Object) -> String {
    format!("\"{}\"", object.name)
}

/// Returns the head of a response, and the range of its body.
fn response(asked: &Asked) -> (String, Range<u64>) {
    let Some(object) = asked.object else {
        let head = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        return (head.to_owned(), 0..0);
    };
    let common = format!(
        "ETag: {}\r\nLast-Modified: Tue, 14 Nov 2023 22:13:20 GMT\r\nCache-Control: max-age=86400\r\n\
         Accept-Ranges: bytes\r\n",
        entity_tag(object)
    );
    if asked.is_unchanged {
        return (format!("HTTP/1.1 304 Not Modified\r\n{common}\r\n"), 0..0);
    }
    let range = asked.range.clone().unwrap_or(0..object.bytes);
    let (status, content_range) = match asked.range {
        None => ("200 OK", String::new()),
        Some(_) => (
            "206 Partial Content",
            format!(
                "Content-Range: bytes {}-{}/{}\r\n",
                range.start,
                range.end - 1,
                object.bytes
            ),
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\n{common}{content_range}Content-Type: {}\r\nContent-Length: {}\r\n\r\n",
        object.media_type(),
        range.end - range.start
    );
    (head, range)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FAST: Speed = Speed {
        bytes_per_second: 1_000_000_000,
        latency: Duration::ZERO,
    };

    fn ask(origin: &Origin, request: &str) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(origin.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).unwrap();
        let end = response.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let body = response.split_off(end.unwrap() + 4);
        (String::from_utf8(response).unwrap(), body)
    }

    #[test]
    fn a_range_in_the_middle_is_sent_and_logged() {
        let origin = Origin::start(FAST).unwrap();
        let request = "GET /media/10g.mp4 HTTP/1.1\r\nRange: bytes=5000000000-5000000099\r\n\r\n";
        let (head, body) = ask(&origin, request);
        assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
        assert!(head.contains("Content-Range: bytes 5000000000-5000000099/10000000000\r\n"));
        assert_eq!(body, Object::TEN_GIGABYTES.read(5_000_000_000, 100));
        let log = origin.take_log();
        assert_eq!((log.requests.len(), log.sent_bytes()), (1, 100));
        assert_eq!(origin.sent_bytes(), 0);
    }

    #[test]
    fn several_requests_are_answered_on_a_connection() {
        let origin = Origin::start(FAST).unwrap();
        let request = "HEAD /media/4k.jpg HTTP/1.1\r\n\r\nGET /media/4k.jpg HTTP/1.1\r\n\r\n";
        let (head, rest) = ask(&origin, request);
        assert!(head.contains("Content-Length: 4096\r\n"), "{head}");
        assert!(rest.ends_with(&Object::FOUR_KILOBYTES.read(0, 4096)));
        // HEAD is no GET.
        assert_eq!(origin.take_log().requests.len(), 1);
    }

    #[test]
    fn conditions_are_evaluated() {
        let origin = Origin::start(FAST).unwrap();
        let status = |fields: &str| {
            let (head, _) = ask(
                &origin,
                &format!("GET /media/4k.jpg HTTP/1.1\r\n{fields}\r\n"),
            );
            head.split(' ').nth(1).map(str::to_owned).unwrap()
        };
        assert_eq!(status("If-None-Match: \"4k.jpg\"\r\n"), "304");
        assert_eq!(status("If-None-Match: \"other\"\r\n"), "200");
        assert_eq!(status("Range: bytes=-5\r\nIf-Range: \"4k.jpg\"\r\n"), "206");
        assert_eq!(status("Range: bytes=-5\r\nIf-Range: \"other\"\r\n"), "200");
        let (missing, _) = ask(&origin, "GET /media/none HTTP/1.1\r\n\r\n");
        assert!(missing.starts_with("HTTP/1.1 404 "));
    }

    #[test]
    fn the_schedule_spaces_bytes_by_the_rate() {
        let began = Instant::now();
        let shared = Shared {
            speed: FAST,
            next: Mutex::new(began),
            log: Mutex::default(),
            is_stopped: AtomicBool::new(false),
        };
        for _ in 0..4 {
            shared.wait_for(1_000_000);
        }
        let next = *shared.next.lock().unwrap();
        assert!(next >= began + Duration::from_millis(4));
    }
}
