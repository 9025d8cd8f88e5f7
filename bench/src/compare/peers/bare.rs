//! `bare`: the least that a server can do. It reads to the end of each request's head and writes the same bytes as
//! millpond does, and nothing else: what it does not reach, this machine's sockets do not give.

use super::{Body, Peer, Place, Series, Settings};
use anyhow::{Context, Result};
use clap::Args;
use rustix::fs::sendfile;
use rustix::net::{SendFlags, send};
use std::env;
use std::fs::{self, File};
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;

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

/// The stack of a thread that serves a connection: its request buffer, and room.
const STACK_BYTES: usize = 128 * 1024;

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
        let answer = Arc::new(Answer { head, body });
        let listener = TcpListener::bind(self.listen)?;
        for stream in listener.incoming() {
            let (stream, answer) = (stream?, Arc::clone(&answer));
            thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    // A client that goes ends its connection, and nothing else.
                    let _ = answer.serve(stream);
                })?;
        }
        Ok(())
    }
}

impl Answer {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut request = [0; REQUEST_BYTES];
        let mut came = 0;
        loop {
            let count = stream.read(&mut request[came..])?;
            if count == 0 {
                return Ok(());
            }
            came += count;
            if request[..came].ends_with(END_OF_HEAD) {
                came = 0;
                self.write_to(&mut stream)?;
            }
        }
    }

    fn write_to(&self, stream: &mut TcpStream) -> io::Result<()> {
        match &self.body {
            Source::Memory(body) => {
                let both = self.head.len() + body.len();
                let mut written =
                    stream.write_vectored(&[IoSlice::new(&self.head), IoSlice::new(body)])?;
                while written < both {
                    let rest = match written.checked_sub(self.head.len()) {
                        Some(of_body) => &body[of_body..],
                        None => &self.head[written..],
                    };
                    written += stream.write(rest)?;
                }
            }
            Source::File { file, from, to } => {
                let more = if from < to {
                    SendFlags::MORE
                } else {
                    SendFlags::empty()
                };
                let mut head = self.head.as_slice();
                while !head.is_empty() {
                    head = &head[send(&*stream, head, more)?..];
                }
                let mut at = *from;
                while at < *to {
                    let left = usize::try_from(*to - at).unwrap_or(usize::MAX);
                    if sendfile(&*stream, file, Some(&mut at), left)? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
        Ok(())
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
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            let serving = thread::spawn(move || answer.serve(server));
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
            drop(client);
            serving.join().unwrap().unwrap();
        }
    }
}
