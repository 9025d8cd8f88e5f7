//! Looks at one answer of a server before any of its figures count: status, length, and every byte.

use super::load::answers::parse_head;
use super::load::sender::Plan;
use super::media::Media;
use super::peers::{Body, Peer, Recorded};
use super::rows::{Asked, Row};
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A request of a row to one server, and the answer to it.
pub(crate) struct Checked {
    pub(crate) target: String,
    pub(crate) fields: Vec<(String, String)>,
    /// Bytes of the answer, head and body.
    pub(crate) answer_bytes: u64,
    /// The same answer, for a server that knows no other.
    pub(crate) recorded: Recorded,
}

/// How long an answer may take.
const LONGEST_ANSWER: Duration = Duration::from_secs(30);

/// The most that a head may have.
const MOST_HEAD_BYTES: usize = 16 * 1024;

/// Asks for what the row asks for, and fails unless the answer is right.
pub(crate) fn check(
    peer: &dyn Peer,
    address: SocketAddr,
    row: &Row,
    media: &Media,
) -> Result<Checked> {
    let asked = row.asked;
    let target = match asked.file() {
        Some(file) => peer.target(media, file),
        None => peer.missing(),
    };
    let fields = fields(asked, address, &target)?;
    let head = ask(address, asked.method(), &target, &fields)?;
    let answer = head.read_body()?;
    ensure!(
        answer.status == asked.status(),
        "it answers {} where {} is right",
        answer.status,
        asked.status()
    );
    if let (Some(file), Some((from, to))) = (asked.file(), asked.body()) {
        let content = media.read(file)?;
        let expected = content.get(from as usize..to as usize);
        let expected = expected.context("what is asked for is not in its file")?;
        ensure!(
            answer.body.len() == expected.len(),
            "it gives {} bytes where {} are right",
            answer.body.len(),
            expected.len()
        );
        ensure!(
            Sha256::digest(&answer.body) == Sha256::digest(expected),
            "it gives other bytes than the file has"
        );
    }
    let body = match (asked.file(), asked.body()) {
        (Some(file), Some((from, to))) => Body::File(media.folder().join(file.name()), from, to),
        _ => Body::Bytes(answer.body.clone()),
    };
    Ok(Checked {
        target,
        fields,
        answer_bytes: (answer.head.len() + answer.body.len()) as u64,
        recorded: Recorded {
            head: answer.head,
            body,
        },
    })
}

/// The field lines that make the request what the row asks for.
fn fields(asked: Asked, address: SocketAddr, target: &str) -> Result<Vec<(String, String)>> {
    Ok(match asked {
        Asked::Range(_, first, last) => vec![("Range".to_owned(), format!("bytes={first}-{last}"))],
        Asked::Unchanged(_) => {
            let head = ask(address, "GET", target, &[])?.head;
            let tag = entity_tag(&head)?.context("it gives no entity tag")?;
            vec![("If-None-Match".to_owned(), tag)]
        }
        Asked::Get(_) | Asked::Head(_) | Asked::Missing => Vec::new(),
    })
}

/// An answer whose head came.
struct Coming {
    stream: TcpStream,
    status: u16,
    head: Vec<u8>,
    /// Bytes of the body so far.
    body: Vec<u8>,
    body_bytes: u64,
}

/// An answer that is whole.
struct Answer {
    status: u16,
    head: Vec<u8>,
    body: Vec<u8>,
}

fn ask(
    address: SocketAddr,
    method: &str,
    target: &str,
    fields: &[(String, String)],
) -> Result<Coming> {
    let plan = Plan {
        address,
        connections: 1,
        rate: None,
        requests: 1,
        seconds: 0.0,
        method: method.to_owned(),
        targets: Vec::new(),
        fields: fields.to_owned(),
    };
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LONGEST_ANSWER))?;
    stream.write_all(&plan.head(target))?;
    let (mut came, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut piece)?;
        ensure!(count > 0, "it ends the connection before a head is whole");
        came.extend_from_slice(&piece[..count]);
        if let Some(head) = parse_head(&came, method == "HEAD")? {
            let body = came.split_off(head.bytes);
            return Ok(Coming {
                stream,
                status: head.status,
                head: came,
                body,
                body_bytes: head.body_bytes,
            });
        }
        ensure!(came.len() <= MOST_HEAD_BYTES, "its head has no end");
    }
}

impl Coming {
    fn read_body(mut self) -> Result<Answer> {
        let left = self.body_bytes.saturating_sub(self.body.len() as u64);
        (&mut self.stream).take(left).read_to_end(&mut self.body)?;
        ensure!(
            self.body.len() as u64 == self.body_bytes,
            "it gives {} bytes and promised {}",
            self.body.len(),
            self.body_bytes
        );
        Ok(Answer {
            status: self.status,
            head: self.head,
            body: self.body,
        })
    }
}

fn entity_tag(head: &[u8]) -> Result<Option<String>> {
    let head = str::from_utf8(head)?;
    Ok(head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("etag")
            .then(|| value.trim().to_owned())
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_entity_tag_is_found_however_its_name_is_written() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\neTag: W/\"a:b\"\r\n\r\n";
        assert_eq!(entity_tag(head).unwrap().as_deref(), Some("W/\"a:b\""));
        assert_eq!(entity_tag(b"HTTP/1.1 200 OK\r\n\r\n").unwrap(), None);
    }
}
