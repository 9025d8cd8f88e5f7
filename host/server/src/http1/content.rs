//! Decoder of a request's content in HTTP/1.1 (RFC 9112 sections 6 and 7).

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;
use millpond::CONTENT_CHUNK_BYTES;
use std::io;

/// Framing of a request's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentFraming {
    /// `Content-Length`, in bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Maximum length of a line with the size of a chunk, in bytes. Clients seldom send an extension in it.
const CHUNK_LINE_BYTES: usize = 1024;

/// Maximum sum of the chunk extensions of a request, in bytes. They are ignored (RFC 9112 section 7.1.1).
const EXTENSIONS_BYTES: usize = 16 * 1024;

/// Maximum size of the trailer section, in bytes. It is ignored.
const TRAILERS_BYTES: usize = 8 * 1024;

/// Decoder of one request's content.
#[derive(Debug)]
pub(crate) struct ContentDecoder {
    state: DecoderState,
    extensions_bytes: usize,
    trailers_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DecoderState {
    /// Content of a known length, in bytes.
    Length(u64),
    ChunkSize,
    /// Bytes left of a chunk.
    Chunk(u64),
    ChunkEnd,
    Trailers,
    End,
}

/// A step of the decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decoded {
    Bytes(Bytes),
    /// More bytes have to be received first.
    Incomplete,
    End,
}

impl ContentDecoder {
    pub(crate) fn new(framing: ContentFraming) -> Self {
        ContentDecoder {
            state: match framing {
                ContentFraming::Length(bytes) => DecoderState::Length(bytes),
                ContentFraming::Chunked => DecoderState::ChunkSize,
            },
            extensions_bytes: 0,
            trailers_bytes: 0,
        }
    }

    /// Takes the next bytes of the content from those received, [`CONTENT_CHUNK_BYTES`] at most.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if the content is malformed.
    pub(crate) fn decode(&mut self, received: &mut BytesMut) -> io::Result<Decoded> {
        loop {
            match self.state {
                DecoderState::End | DecoderState::Length(0) => return Ok(Decoded::End),
                DecoderState::Chunk(0) => self.state = DecoderState::ChunkEnd,
                DecoderState::Length(left) | DecoderState::Chunk(left) => {
                    let most = usize::try_from(left).unwrap_or(usize::MAX);
                    let count = most.min(received.len()).min(CONTENT_CHUNK_BYTES);
                    if count == 0 {
                        return Ok(Decoded::Incomplete);
                    }
                    let left = left - count as u64;
                    self.state = match self.state {
                        DecoderState::Length(_) => DecoderState::Length(left),
                        _ => DecoderState::Chunk(left),
                    };
                    return Ok(Decoded::Bytes(received.split_to(count).freeze()));
                }
                DecoderState::ChunkSize => match self.chunk_size(received)? {
                    Some(0) => self.state = DecoderState::Trailers,
                    Some(bytes) => self.state = DecoderState::Chunk(bytes),
                    None => return Ok(Decoded::Incomplete),
                },
                DecoderState::ChunkEnd => {
                    if received.len() < 2 {
                        return Ok(Decoded::Incomplete);
                    }
                    if !received.starts_with(b"\r\n") {
                        return Err(malformed("a chunk is longer than its size"));
                    }
                    received.advance(2);
                    self.state = DecoderState::ChunkSize;
                }
                DecoderState::Trailers => {
                    let Some(end) = memmem::find(received, b"\r\n") else {
                        if self.trailers_bytes + received.len() > TRAILERS_BYTES {
                            return Err(malformed("the trailer section is too large"));
                        }
                        return Ok(Decoded::Incomplete);
                    };
                    self.trailers_bytes += end;
                    if self.trailers_bytes > TRAILERS_BYTES {
                        return Err(malformed("the trailer section is too large"));
                    }
                    received.advance(end + 2);
                    if end == 0 {
                        self.state = DecoderState::End;
                    }
                }
            }
        }
    }

    /// Takes the line with the size of a chunk. `None` if it has not come whole.
    fn chunk_size(&mut self, received: &mut BytesMut) -> io::Result<Option<u64>> {
        /// Longest line without an extension: 16 digits, CR and LF.
        const PLAIN_BYTES: usize = 18;
        // The parser takes no digits for zero.
        if received
            .first()
            .is_some_and(|byte| !byte.is_ascii_hexdigit())
        {
            return Err(malformed("invalid chunk size"));
        }
        match httparse::parse_chunk_size(received) {
            Ok(httparse::Status::Complete((length, size))) if length <= CHUNK_LINE_BYTES => {
                self.extensions_bytes += length.saturating_sub(PLAIN_BYTES);
                if self.extensions_bytes > EXTENSIONS_BYTES {
                    return Err(malformed("the chunk extensions are too large"));
                }
                received.advance(length);
                Ok(Some(size))
            }
            Ok(httparse::Status::Partial) if received.len() <= CHUNK_LINE_BYTES => Ok(None),
            Ok(_) => Err(malformed("the line of a chunk's size is too long")),
            Err(_) => Err(malformed("invalid chunk size")),
        }
    }
}

fn malformed(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// Decodes bytes that arrive in parts of this length. Returns the content, and the rest that is not of it. `None`
    /// if the content is not whole.
    fn decode(
        framing: ContentFraming,
        bytes: &[u8],
        part: usize,
    ) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let mut decoder = ContentDecoder::new(framing);
        let mut parts = bytes.chunks(part.max(1));
        let (mut received, mut content) = (BytesMut::new(), Vec::new());
        loop {
            match decoder.decode(&mut received)? {
                Decoded::Bytes(bytes) => content.extend_from_slice(&bytes),
                Decoded::Incomplete => match parts.next() {
                    Some(part) => received.extend_from_slice(part),
                    None => return Ok(None),
                },
                Decoded::End => {
                    received.extend(parts.flatten());
                    return Ok(Some((content, received.to_vec())));
                }
            }
        }
    }

    #[test]
    fn content_ends_where_its_framing_says() {
        let (length, chunked) = (ContentFraming::Length, ContentFraming::Chunked);
        for (framing, bytes, expected) in [
            (length(0), "GET", Some(("", "GET"))),
            (length(3), "abcGET", Some(("abc", "GET"))),
            (length(4), "abc", None),
            (chunked, "0\r\n\r\nGET", Some(("", "GET"))),
            (
                chunked,
                "3\r\nabc\r\n2;x=\"y\"\r\nde\r\n0\r\nA: b\r\n\r\nG",
                Some(("abcde", "G")),
            ),
            (
                chunked,
                "A\r\n0123456789\r\n0\r\n\r\n",
                Some(("0123456789", "")),
            ),
            (chunked, "3\r\nabc\r\n", None),
            (chunked, "0\r\nA: b\r\n", None),
        ] {
            for part in [1, 2, 3, 100] {
                let decoded = decode(framing, bytes.as_bytes(), part).unwrap();
                let expected = expected.map(|(content, rest)| (content.into(), rest.into()));
                assert_eq!(decoded, expected, "{bytes:?} by {part}");
            }
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        let line = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(CHUNK_LINE_BYTES));
        let extensions = format!("1;{}\r\na\r\n", "x".repeat(900)).repeat(20);
        let trailers = format!("0\r\nA: {}\r\n\r\n", "x".repeat(TRAILERS_BYTES));
        for bytes in [
            "x\r\n",
            "-1\r\n",
            "\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc0\r\n\r\n",
            "11111111111111111\r\n",
            &line,
            &extensions,
            &trailers,
        ] {
            for part in [1, 100] {
                let error = decode(ContentFraming::Chunked, bytes.as_bytes(), part).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:.20}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..10),
            part in 1..50_usize,
        ) {
            let mut encoded = Vec::new();
            for chunk in &chunks {
                encoded.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                encoded.extend_from_slice(chunk);
                encoded.extend_from_slice(b"\r\n");
            }
            encoded.extend_from_slice(b"0\r\n\r\nrest");
            let decoded = decode(ContentFraming::Chunked, &encoded, part).unwrap();
            prop_assert_eq!(decoded, Some((chunks.concat(), b"rest".to_vec())));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), part in 1..20_usize) {
            let _ = decode(ContentFraming::Chunked, &bytes, part);
        }
    }
}
