//! Connections that have asked for something once, and then stay open.

use super::load::answers::Answers;
use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
pub(crate) const LONGEST_ANSWER: Duration = Duration::from_secs(30);

/// Opens so many, each when the one before has its answer.
pub(crate) fn open(address: SocketAddr, target: &str, count: usize) -> Result<Vec<TcpStream>> {
    (0..count)
        .map(|_| {
            let mut stream = connect(address)?;
            ask(&mut stream, address, target).context("an idle connection was given no answer")?;
            Ok(stream)
        })
        .collect()
}

/// A connection on which nobody waits longer than for [`LONGEST_ANSWER`].
pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LONGEST_ANSWER))?;
    Ok(stream)
}

/// Asks, and takes the whole answer.
pub(crate) fn ask(stream: &mut TcpStream, address: SocketAddr, target: &str) -> Result<()> {
    stream.write_all(get(address, target).as_bytes())?;
    let (mut answers, mut piece) = (Answers::new(false), [0; 16 * 1024]);
    loop {
        let count = stream.read(&mut piece)?;
        ensure!(count > 0, "the connection ends before its answer");
        if answers.take(&piece[..count])?.is_some() {
            return Ok(());
        }
    }
}

/// The head of a request.
pub(crate) fn get(address: SocketAddr, target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n\r\n")
}
