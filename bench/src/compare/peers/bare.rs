//! `bare`: the least that a server can do. It reads to the end of each request's head and writes the same bytes as
//! millpond does. No server can be faster over this machine's sockets.

use super::{Body, Peer, Place, Series, Settings};
use anyhow::{Context, Result};
use clap::Args;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustix::fs::sendfile;
use rustix::net::{SendFlags, send};
use std::env;
use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

/// Gives every request the same answer.
#[derive(Debug, Args)]
pub(crate) struct Bare {
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,

    /// A file with the answer's head.
    #[arg(long, value_name = "FILE")]
    head: PathBuf,

    /// The file that the body is of.
    #[arg(long, value_name = "FILE")]
    body: PathBuf,

    /// Where in that file the body begins.
    #[arg(long, value_name = "BYTE", default_value_t = 0)]
    from: u64,

    /// Where it ends.
    #[arg(long, value_name = "BYTE")]
    to: u64,

    /// Has the kernel send the file, rather than the bytes from memory.
    #[arg(long)]
    sendfile: bool,
}

/// Bytes of requests that are read at once; none here is larger.
const REQUEST_BYTES: usize = 16 * 1024;

/// Events that are taken at once.
const EVENTS: usize = 256;

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

struct Answer {
    head: Vec<u8>,
    body: Source,
}

enum Source {
    Memory(Vec<u8>),
    File { file: File, from: u64, to: u64 },
}

impl Bare {
    pub(crate) fn run(self) -> Result<()> {
        let head = fs::read(&self.head).context("cannot read the head")?;
        let file = File::open(&self.body).context("cannot open the body")?;
        let body = if self.sendfile {
            Source::File {
                file,
                from: self.from,
                to: self.to,
            }
        } else {
            let mut body = vec![0; usize::try_from(self.to.saturating_sub(self.from))?];
            file.read_exact_at(&mut body, self.from)
                .context("the body is not there")?;
            Source::Memory(body)
        };
        let answer = Answer { head, body };
        answer.serve(TcpListener::bind(self.listen)?)
    }
}

/// A client, and how far its answer is.
struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    /// Bytes of the answer that are written; none while a request is awaited.
    written: Option<u64>,
}

const LISTENER: Token = Token(usize::MAX);

impl Answer {
    /// One thread for all connections, as nginx has it: a thread for each costs a switch for each request.
    fn serve(&self, mut listener: TcpListener) -> Result<()> {
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(EVENTS);
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let mut connections: Vec<Option<Connection>> = Vec::new();
        let mut piece = vec![0; REQUEST_BYTES];
        loop {
            poll.poll(&mut events, None)?;
            for event in &events {
                if event.token() == LISTENER {
                    accept(&listener, &poll, &mut connections)?;
                    continue;
                }
                let place = &mut connections[event.token().0];
                // A client that goes ends its connection, and nothing else.
                if let Some(connection) = place
                    && !matches!(self.advance(connection, &mut piece), Ok(true))
                {
                    *place = None;
                }
            }
        }
    }

    /// Reads and writes until the socket has nothing more, or takes nothing more; false where the client has gone.
    fn advance(&self, connection: &mut Connection, piece: &mut [u8]) -> io::Result<bool> {
        loop {
            if let Some(written) = &mut connection.written {
                while *written < self.bytes() {
                    match self.write_some(&mut connection.stream, *written) {
                        Ok(0) => return Ok(false),
                        Ok(count) => *written += count as u64,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                        Err(error) => return Err(error),
                    }
                }
                connection.written = None;
            }
            match connection.stream.read(piece) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    let came = &piece[..count];
                    if connection.request.is_empty() && came.ends_with(END_OF_HEAD) {
                        connection.written = Some(0);
                    } else {
                        connection.request.extend_from_slice(came);
                        if connection.request.ends_with(END_OF_HEAD) {
                            connection.request.clear();
                            connection.written = Some(0);
                        } else if connection.request.len() > REQUEST_BYTES {
                            return Ok(false);
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes of the answer.
    fn bytes(&self) -> u64 {
        let body = match &self.body {
            Source::Memory(body) => body.len() as u64,
            Source::File { from, to, .. } => to - from,
        };
        self.head.len() as u64 + body
    }

    /// Writes as much as the socket takes, from a byte of the answer on.
    fn write_some(&self, stream: &mut TcpStream, written: u64) -> io::Result<usize> {
        let head_bytes = self.head.len() as u64;
        // Both casts are of what is no longer than something in memory.
        match (&self.body, written.checked_sub(head_bytes)) {
            (Source::Memory(body), Some(of_body)) => stream.write(&body[of_body as usize..]),
            (Source::Memory(body), None) => {
                let head = &self.head[written as usize..];
                stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)])
            }
            (Source::File { file, from, to }, Some(of_body)) => {
                let mut at = from + of_body;
                let left = usize::try_from(to - at).unwrap_or(usize::MAX);
                Ok(sendfile(&*stream, file, Some(&mut at), left)?)
            }
            (Source::File { from, to, .. }, None) => {
                let more = if from < to {
                    SendFlags::MORE
                } else {
                    SendFlags::empty()
                };
                Ok(send(&*stream, &self.head[written as usize..], more)?)
            }
        }
    }
}

/// Accepts all who wait.
fn accept(
    listener: &TcpListener,
    poll: &Poll,
    connections: &mut Vec<Option<Connection>>,
) -> Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        stream.set_nodelay(true)?;
        let free = connections.iter().position(Option::is_none);
        let number = free.unwrap_or(connections.len());
        poll.registry().register(
            &mut stream,
            Token(number),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let connection = Some(Connection {
            stream,
            request: Vec::new(),
            written: None,
        });
        if number == connections.len() {
            connections.push(connection);
        } else {
            connections[number] = connection;
        }
    }
}

/// How the loop moves a body.
struct Setting {
    sendfile: bool,
}

pub(super) fn settings() -> Result<Settings> {
    Ok(vec![
        Box::new(Setting { sendfile: false }),
        Box::new(Setting { sendfile: true }),
    ])
}

impl Peer for Setting {
    fn series(&self) -> Series {
        Series::Bare
    }

    fn setting(&self) -> &'static str {
        if self.sendfile { "sendfile" } else { "memory" }
    }

    fn version(&self) -> &str {
        concat!("millpond-bench ", env!("CARGO_PKG_VERSION"))
    }

    fn command(&self, place: &Place) -> Result<Command> {
        let recorded = place
            .recorded
            .context("no answer of millpond's was recorded")?;
        let head = place.scratch.join("head");
        fs::write(&head, &recorded.head)?;
        let (body, from, to) = match &recorded.body {
            Body::File(path, from, to) => (path.clone(), *from, *to),
            Body::Bytes(bytes) => {
                let path = place.scratch.join("body");
                fs::write(&path, bytes)?;
                (path, 0, bytes.len() as u64)
            }
        };
        let mut command = Command::new(env::current_exe()?);
        command
            .args(["bare", "--listen", &place.address.to_string()])
            .arg("--head")
            .arg(head)
            .arg("--body")
            .arg(body)
            .args(["--from", &from.to_string(), "--to", &to.to_string()]);
        if self.sendfile {
            command.arg("--sendfile");
        }
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_request_gets_the_whole_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let content: Vec<u8> = (0..3_000_000u32).map(|i| i as u8).collect();
        fs::write(&path, &content).unwrap();
        let (from, to) = (7, content.len() as u64 - 1);
        let sources = [
            Source::Memory(content[7..content.len() - 1].to_vec()),
            Source::File {
                file: File::open(&path).unwrap(),
                from,
                to,
            },
        ];
        for body in sources {
            let answer = Answer {
                head: b"head".to_vec(),
                body,
            };
            let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            // It serves for as long as the test runs.
            std::thread::spawn(move || answer.serve(listener));
            for pieces in [
                [b"GET /".as_slice(), b"\r\n\r\n"],
                [b"GET / HTTP/1.1\r\n", b"\r\n"],
            ] {
                for piece in pieces {
                    client.write_all(piece).unwrap();
                }
                let mut came = vec![0; 4 + content.len() - 8];
                client.read_exact(&mut came).unwrap();
                assert!(came[..4] == *b"head" && came[4..] == content[7..content.len() - 1]);
            }
        }
    }
}
