//! Counts the answers that come on a connection, without keeping their bodies.

use anyhow::{Context, Result, bail, ensure};

/// Fields that an answer may have, and bytes that its head may have.
const MOST_FIELDS: usize = 64;
const MOST_HEAD_BYTES: usize = 16 * 1024;

/// Parser of the responses of one connection.
#[derive(Debug)]
pub(crate) struct Answers {
    /// Whether answers have no body, as those to HEAD.
    heads_only: bool,
    /// Bytes of an incomplete head.
    partial: Vec<u8>,
    /// Status, and bytes of the body that are to come.
    body: Option<(u16, u64)>,
}

/// The head of an answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Its own length.
    pub(crate) bytes: usize,
    /// The length of the body that follows.
    pub(crate) body_bytes: u64,
}

impl Answers {
    pub(crate) fn new(heads_only: bool) -> Self {
        Answers {
            heads_only,
            partial: Vec::new(),
            body: None,
        }
    }

    /// Takes what came, and tells the status of the answer that it made whole. One request is under way at a time, so
    /// bytes after that are an error.
    pub(crate) fn take(&mut self, came: &[u8]) -> Result<Option<u16>> {
        let (status, left, rest) = match self.body.take() {
            Some((status, left)) => (status, left, came.len() as u64),
            None => {
                let before = self.partial.len();
                let head = if before == 0 {
                    parse_head(came, self.heads_only)?
                } else {
                    self.partial.extend_from_slice(came);
                    parse_head(&self.partial, self.heads_only)?
                };
                let Some(head) = head else {
                    if before == 0 {
                        self.partial.extend_from_slice(came);
                    }
                    ensure!(self.partial.len() <= MOST_HEAD_BYTES, "a head without end");
                    return Ok(None);
                };
                self.partial.clear();
                (
                    head.status,
                    head.body_bytes,
                    (before + came.len() - head.bytes) as u64,
                )
            }
        };
        if rest > left {
            bail!("more came than was asked for");
        }
        if rest == left {
            return Ok(Some(status));
        }
        self.body = Some((status, left - rest));
        Ok(None)
    }
}

/// Reads the head of an answer; none while it is not whole.
pub(crate) fn parse_head(came: &[u8], to_head: bool) -> Result<Option<Head>> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(bytes) = response.parse(came)? else {
        return Ok(None);
    };
    let status = response.code.context("an answer without a status")?;
    // RFC 9112 section 6.3: what these say of a length is not of what follows.
    let body_bytes = if to_head || matches!(status, 204 | 304) {
        0
    } else {
        let length = response
            .headers
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case("content-length"))
            .context("an answer without a length")?;
        str::from_utf8(length.value)?.parse()?
    };
    Ok(Some(Head {
        status,
        bytes,
        body_bytes,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

    #[test]
    fn an_answer_is_whole_when_its_last_byte_came_however_it_is_cut() {
        for cut in 0..=ANSWER.len() {
            let mut answers = Answers::new(false);
            for _ in 0..2 {
                let (first, second) = ANSWER.split_at(cut);
                let mut whole = Vec::new();
                for piece in [first, second]
                    .into_iter()
                    .filter(|piece| !piece.is_empty())
                {
                    whole.push(answers.take(piece).unwrap());
                }
                assert_eq!(whole.pop(), Some(Some(200)));
                assert!(whole.iter().all(Option::is_none));
            }
        }
    }

    #[test]
    fn some_answers_have_a_length_and_no_body() {
        let to_head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(Answers::new(true).take(to_head).unwrap(), Some(200));
        let unchanged = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(Answers::new(false).take(unchanged).unwrap(), Some(304));
    }

    #[test]
    fn what_cannot_be_counted_is_an_error() {
        let head = b"HTTP/1.1 200 OK\r\n\r\n";
        assert!(Answers::new(false).take(head).is_err());
        let mut longer = ANSWER.to_vec();
        longer.push(b'!');
        assert!(Answers::new(false).take(&longer).is_err());
        let endless = vec![b'a'; MOST_HEAD_BYTES + 1];
        let mut answers = Answers::new(false);
        let field = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &endless].concat();
        assert!(answers.take(&field).is_err());
    }
}
