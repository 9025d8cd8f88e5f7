//! The clients of a herd: one thread that polls a thousand connections, and compares each byte with the right one.

use anyhow::{Context, Result};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Clients that request the same object at once.
pub(crate) struct Crowd<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) target: &'a str,
    pub(crate) clients: usize,
    /// The right bytes.
    pub(crate) expected: &'a [u8],
    /// Time after which a client gives up.
    pub(crate) patience: Duration,
}

/// Results of a crowd.
pub(crate) struct Served {
    /// When all requests were sent.
    pub(crate) began: Instant,
    pub(crate) clients: Vec<ClientOutcome>,
}

/// Result of a client.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientOutcome {
    /// Time to the first byte of the body, in seconds.
    pub(crate) first_byte: Option<f64>,
    /// Time to the last byte of the body, in seconds. `None` if not all came, or a wrong one.
    pub(crate) last_byte: Option<f64>,
    /// Reason why not all came.
    pub(crate) failure: Option<&'static str>,
}

/// Bytes of a receive buffer in the kernel. A thousand of the default size would fill the memory that the kernel has for
/// sockets.
const RECEIVE_BYTES: usize = 256 * 1024;

/// Bytes that one client reads before it is the next one's turn.
const TURN_BYTES: usize = 256 * 1024;

/// Maximum length of a response's head, in bytes.
const HEAD_BYTES: usize = 16 * 1024;

impl Crowd<'_> {
    /// Connects all clients, sends all requests, and reads until each client has all or gives up.
    pub(crate) fn run(&self) -> Result<Served> {
        let mut poll = Poll::new()?;
        let mut clients = Vec::with_capacity(self.clients);
        for number in 0..self.clients {
            let stream = std::net::TcpStream::connect(self.address)
                .with_context(|| format!("client {number} cannot connect"))?;
            rustix::net::sockopt::set_socket_recv_buffer_size(&stream, RECEIVE_BYTES)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            let interest = Interest::READABLE;
            poll.registry()
                .register(&mut stream, Token(number), interest)?;
            clients.push(Client::new(stream));
        }
        let request = format!("GET {} HTTP/1.1\r\nHost: media.test\r\n\r\n", self.target);
        let began = Instant::now();
        for client in &mut clients {
            // A request fits into an empty send buffer.
            client.stream.write_all(request.as_bytes())?;
        }
        self.read(&mut poll, &mut clients, began)?;
        let clients = clients.into_iter().map(|client| client.outcome).collect();
        Ok(Served { began, clients })
    }

    fn read(&self, poll: &mut Poll, clients: &mut [Client], began: Instant) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; TURN_BYTES];
        // Clients with something to read, in the order of their turns.
        let mut ready = VecDeque::new();
        let mut waiting = clients.len();
        while waiting > 0 {
            let left = self.patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                for client in clients.iter_mut().filter(|client| !client.is_over) {
                    client.fail("gave up");
                }
                return Ok(());
            }
            let timeout = if ready.is_empty() {
                left
            } else {
                Duration::ZERO
            };
            match poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                polled => polled?,
            }
            for event in &events {
                let client = &mut clients[event.token().0];
                if !client.is_over && !std::mem::replace(&mut client.is_ready, true) {
                    ready.push_back(event.token().0);
                }
            }
            for _ in 0..ready.len() {
                let Some(number) = ready.pop_front() else {
                    break;
                };
                let client = &mut clients[number];
                match client.turn(&mut buffer, self.expected, began) {
                    Turn::Unfinished => ready.push_back(number),
                    Turn::NothingToRead => client.is_ready = false,
                    Turn::Over => {
                        client.is_over = true;
                        waiting -= 1;
                    }
                }
            }
        }
        Ok(())
    }
}

struct Client {
    stream: TcpStream,
    head: Vec<u8>,
    /// Number of right bytes of the body so far. `None` before the end of the head.
    position: Option<usize>,
    is_ready: bool,
    is_over: bool,
    outcome: ClientOutcome,
}

/// End of a client's turn.
enum Turn {
    /// There may be more to read.
    Unfinished,
    NothingToRead,
    /// The client has all, or cannot get it.
    Over,
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        Client {
            stream,
            head: Vec::new(),
            position: None,
            is_ready: false,
            is_over: false,
            outcome: ClientOutcome::default(),
        }
    }

    fn fail(&mut self, why: &'static str) -> Turn {
        self.outcome.failure = Some(why);
        Turn::Over
    }

    fn turn(&mut self, buffer: &mut [u8], expected: &[u8], began: Instant) -> Turn {
        let count = match self.stream.read(buffer) {
            Ok(0) => return self.fail("closed by the server"),
            Ok(count) => count,
            Err(error) => {
                return match error.kind() {
                    ErrorKind::WouldBlock => Turn::NothingToRead,
                    ErrorKind::Interrupted => Turn::Unfinished,
                    _ => self.fail("reset by the server"),
                };
            }
        };
        let received = &buffer[..count];
        let Some(position) = self.position else {
            self.head.extend_from_slice(received);
            return match parse_head(&self.head, expected.len()) {
                Ok(None) if self.head.len() < HEAD_BYTES => Turn::Unfinished,
                Ok(None) => self.fail("too long a head"),
                Ok(Some(end)) => {
                    let body = self.head.split_off(end);
                    self.body(0, &body, expected, began)
                }
                Err(why) => self.fail(why),
            };
        };
        self.body(position, received, expected, began)
    }

    fn body(&mut self, position: usize, body: &[u8], expected: &[u8], began: Instant) -> Turn {
        let end = position + body.len();
        if expected.get(position..end) != Some(body) {
            return self.fail("wrong bytes");
        }
        self.position = Some(end);
        let now = || Some(began.elapsed().as_secs_f64());
        if !body.is_empty() && self.outcome.first_byte.is_none() {
            self.outcome.first_byte = now();
        }
        if end < expected.len() {
            return Turn::Unfinished;
        }
        self.outcome.last_byte = now();
        Turn::Over
    }
}

/// Returns the length of the head of a response with the whole object. `None` if not all of it has come.
fn parse_head(bytes: &[u8], length: usize) -> Result<Option<usize>, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let end = match response.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err("no HTTP"),
    };
    match response.code {
        Some(200) => {}
        Some(500..) => return Err("status 5xx"),
        _ => return Err("another status than 200"),
    }
    let field = response
        .headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let stated: Option<usize> =
        field.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
    match stated {
        Some(stated) if length == stated => Ok(Some(end)),
        Some(_) => Err("wrong length"),
        None => Err("no length"),
    }
}

/// Requests a range on a connection of its own, and returns status and body. The time is that of all of it.
pub(crate) fn request_range(
    address: SocketAddr,
    target: &str,
    range: (u64, u64),
    patience: Duration,
) -> Result<Option<(u16, Vec<u8>)>> {
    let deadline = Instant::now() + patience;
    let mut stream = std::net::TcpStream::connect(address)?;
    let (first, last) = range;
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: media.test\r\nRange: bytes={first}-{last}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let wanted = usize::try_from(last - first)? + 1;
    let mut response = Vec::new();
    let mut buffer = vec![0; TURN_BYTES];
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut fields);
        if let httparse::Status::Complete(end) = parsed.parse(&response)? {
            let status = parsed.code.context("a response has a status")?;
            let body = &response[end..];
            // More than the range is not read.
            if body.len() >= wanted || status >= 400 {
                return Ok(Some((status, body.to_vec())));
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => anyhow::bail!("the server closed the connection"),
            Ok(count) => response.extend_from_slice(&buffer[..count]),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    let kinds = [
        ErrorKind::WouldBlock,
        ErrorKind::TimedOut,
        ErrorKind::Interrupted,
    ];
    kinds.contains(&error.kind())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::herd::content::Object;
    use crate::herd::origin::{Origin, Speed};

    const SPEED: Speed = Speed {
        bytes_per_second: 10_000_000_000,
        latency: Duration::ZERO,
    };

    fn crowd<'a>(origin: &Origin, target: &'a str, expected: &'a [u8]) -> Crowd<'a> {
        Crowd {
            address: origin.address,
            target,
            clients: 20,
            expected,
            patience: Duration::from_secs(60),
        }
    }

    #[test]
    fn all_clients_get_the_right_bytes() {
        let origin = Origin::start(SPEED).unwrap();
        let object = Object::HALF_MEGABYTE;
        let expected = object.read(0, 500_000);
        let served = crowd(&origin, &object.target(), &expected).run().unwrap();
        assert_eq!(served.clients.len(), 20);
        for client in served.clients {
            assert_eq!(client.failure, None);
            assert!(client.first_byte.unwrap() <= client.last_byte.unwrap());
        }
        assert_eq!(origin.take_log().requests.len(), 20);
    }

    #[test]
    fn a_wrong_byte_is_seen() {
        let origin = Origin::start(SPEED).unwrap();
        let object = Object::HALF_MEGABYTE;
        let mut expected = object.read(0, 500_000);
        expected[499_999] ^= 1;
        let served = crowd(&origin, &object.target(), &expected).run().unwrap();
        for client in served.clients {
            assert_eq!(
                (client.failure, client.last_byte),
                (Some("wrong bytes"), None)
            );
        }
    }

    #[test]
    fn heads_of_other_responses_are_failures() {
        let parse = |head: &str| parse_head(head.as_bytes(), 5);
        assert_eq!(parse("HTTP/1.1 200 OK\r\n"), Ok(None));
        let right = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(parse(right), Ok(Some(right.len())));
        for (head, why) in [
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n",
                "wrong length",
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                "no length",
            ),
            (
                "HTTP/1.1 503 Busy\r\ncontent-length: 5\r\n\r\n",
                "status 5xx",
            ),
            (
                "HTTP/1.1 206 Part\r\ncontent-length: 5\r\n\r\n",
                "another status than 200",
            ),
            ("nothing\r\n\r\n", "no HTTP"),
        ] {
            assert_eq!(parse(head), Err(why));
        }
    }

    #[test]
    fn a_range_is_requested_alone() {
        let origin = Origin::start(SPEED).unwrap();
        let object = Object::TEN_GIGABYTES;
        let patience = Duration::from_secs(60);
        let answer = request_range(origin.address, &object.target(), (7, 106), patience);
        let (status, body) = answer.unwrap().unwrap();
        assert_eq!((status, body), (206, object.read(7, 100)));
    }
}
