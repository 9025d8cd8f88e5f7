//! Load of plain clients that count each request, and whether its response was whole and right.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// Number of clients of each kind.
pub(crate) struct Clients {
    /// Each request has a connection of its own. None may fail.
    pub(crate) closing: usize,
    /// Requests share a connection. One that the server closes before any byte of a response is repeated on another
    /// connection, as RFC 9112 section 9.3.1 allows, and counted.
    pub(crate) persistent: usize,
}

impl Default for Clients {
    fn default() -> Self {
        Clients {
            closing: 3,
            persistent: 3,
        }
    }
}

/// Result of a load.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    /// Requests on a persistent connection that the server closed as they came.
    pub(crate) retried: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "failed {} of {} requests, {} repeated on another connection",
            self.failed, self.requests, self.retried
        )
    }
}

/// A running load.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    address: SocketAddr,
    target: String,
    content: Vec<u8>,
    is_over: AtomicBool,
    requests: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    first_failure: Mutex<Option<String>>,
    progress: (Mutex<()>, Condvar),
}

impl Load {
    /// Starts clients that request one target over and over.
    pub(crate) fn start(address: &str, target: &str, content: &[u8], clients: Clients) -> Self {
        let shared = Arc::new(Shared {
            address: address.parse().unwrap(),
            target: target.to_owned(),
            content: content.to_vec(),
            is_over: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            first_failure: Mutex::default(),
            progress: Default::default(),
        });
        let kinds = [(clients.closing, false), (clients.persistent, true)];
        let threads = kinds.into_iter().flat_map(|(count, is_persistent)| {
            let shared = &shared;
            (0..count).map(move |_| {
                let shared = Arc::clone(shared);
                std::thread::spawn(move || shared.run(is_persistent))
            })
        });
        let threads = threads.collect();
        Load { shared, threads }
    }

    /// Waits until the clients have made that many requests more.
    pub(crate) fn wait_for_requests(&self, count: u64) {
        let wanted = self.shared.requests.load(Ordering::Relaxed) + count;
        let (lock, progress) = &self.shared.progress;
        let mut guard = lock.lock().unwrap();
        while self.shared.requests.load(Ordering::Relaxed) < wanted {
            guard = progress.wait(guard).unwrap();
        }
    }

    /// Ends the load, and returns its result. Prints the first failure.
    pub(crate) fn stop(self) -> Counts {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        if let Some(failure) = self.shared.first_failure.lock().unwrap().as_ref() {
            println!("the first failure: {failure}");
        }
        Counts {
            requests: self.shared.requests.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
            retried: self.shared.retried.load(Ordering::Relaxed),
        }
    }
}

/// The end of a request without its response.
enum Failure {
    /// The server closed a connection that had been used before any byte of the response.
    Closed,
    Other(String),
}

impl Shared {
    fn run(&self, is_persistent: bool) {
        let mut connection = None;
        while !self.is_over.load(Ordering::Relaxed) {
            let mut result = self.request(&mut connection, is_persistent);
            if let Err(Failure::Closed) = result {
                self.retried.fetch_add(1, Ordering::Relaxed);
                result = self.request(&mut connection, is_persistent);
            }
            match result {
                Ok(()) => {}
                Err(failure) => {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    let mut first = self.first_failure.lock().unwrap();
                    first.get_or_insert(match failure {
                        Failure::Closed => "closed again".to_owned(),
                        Failure::Other(text) => format!("{text}, persistent: {is_persistent}"),
                    });
                }
            }
            self.requests.fetch_add(1, Ordering::Relaxed);
            let _guard = self.progress.0.lock().unwrap();
            self.progress.1.notify_all();
        }
    }

    /// Makes one request, and checks its response.
    fn request(&self, slot: &mut Option<TcpStream>, is_persistent: bool) -> Result<(), Failure> {
        let is_reused = slot.is_some();
        let other = |what: &str, error: io::Error| Failure::Other(format!("{what}: {error}"));
        let mut stream = match slot.take() {
            Some(stream) => stream,
            None => TcpStream::connect(self.address).map_err(|error| other("connect", error))?,
        };
        let option = if is_persistent { "keep-alive" } else { "close" };
        let head = format!(
            "GET {} HTTP/1.1\r\nhost: a\r\nconnection: {option}\r\n\r\n",
            self.target
        );
        let mut received = Vec::new();
        let exchanged = stream
            .write_all(head.as_bytes())
            .and_then(|()| read_response(&mut stream, &mut received));
        match exchanged {
            Err(_) if is_reused && received.is_empty() => return Err(Failure::Closed),
            Err(error) => {
                let received = String::from_utf8_lossy(&received).into_owned();
                return Err(other(&format!("after {received:?}"), error));
            }
            Ok(()) => {}
        }
        if !received.starts_with(b"HTTP/1.1 200") || !received.ends_with(&self.content) {
            let received = String::from_utf8_lossy(&received).into_owned();
            return Err(Failure::Other(received));
        }
        let closes = field(&received, "connection") == Some("close");
        if is_persistent && !closes {
            *slot = Some(stream);
        }
        Ok(())
    }
}

/// Reads a response with `Content-Length`.
fn read_response(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        received.extend_from_slice(&buffer[..count]);
        let head = received.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let Some(head) = head else { continue };
        let length = field(received, "content-length").and_then(|length| length.parse().ok());
        let length: usize = length.ok_or(io::ErrorKind::InvalidData)?;
        if received.len() >= head + 4 + length {
            return Ok(());
        }
    }
}

/// Value of a field of a head.
fn field<'a>(response: &'a [u8], name: &str) -> Option<&'a str> {
    let lines = response.split(|byte| *byte == b'\n');
    let mut lines = lines.filter_map(|line| str::from_utf8(line).ok()?.trim().split_once(':'));
    let (_, value) = lines.find(|(found, _)| found.eq_ignore_ascii_case(name))?;
    Some(value.trim())
}
