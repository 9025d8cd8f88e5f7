//! Content of a form, part by part (RFC 7578), in bounded memory.
//!
//! The parser of `multer` takes all that its stream has, and looks for the end of a part's head without a limit. So the
//! stream here is fed by hand. It has a chunk only when the parser waits for one, and few of them for one step.

use super::error::UploadError;
use super::receive::ContentSource;
use crate::request_content::{CONTENT_CHUNK_BYTES, RequestContent};
use bytes::Bytes;
use http::header;
use http_body::{Body, Frame};
use http_body_util::BodyDataStream;
use multer::{Field, Multipart};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Maximum size of the head of a part, or of what comes before the first part, in bytes. Browsers send some hundred.
/// The parser may take a chunk more.
const PART_HEAD_BYTES: usize = 16 * 1024;

/// Maximum size of what the parser holds, in bytes: a chunk left from the step before, and those of this step.
const PARSER_BYTES: usize = 2 * CONTENT_CHUNK_BYTES + PART_HEAD_BYTES;

/// Memory of the parser, in bytes: its buffer, the buffer before while it grows, and the fields of a part.
pub(super) const FORM_BYTES: usize = 4 * PARSER_BYTES;

/// Maximum length of a boundary (RFC 2046 section 5.1.1).
const BOUNDARY_CHARACTERS: usize = 70;

/// Parses the boundary of a form's `Content-Type`.
///
/// # Errors
/// [`UploadError::NoForm`] if the content is no form, and [`UploadError::MalformedForm`] if it has no boundary that it
/// may have.
pub(super) fn parse_boundary(headers: &header::HeaderMap) -> Result<String, UploadError> {
    let media_type = headers.get(header::CONTENT_TYPE);
    let media_type = media_type.and_then(|media_type| media_type.to_str().ok());
    let boundary = multer::parse_boundary(media_type.ok_or(UploadError::NoForm)?);
    let boundary = boundary.map_err(|error| match error {
        multer::Error::NoBoundary => UploadError::MalformedForm("it has no boundary"),
        _ => UploadError::NoForm,
    })?;
    match boundary.len() {
        1..=BOUNDARY_CHARACTERS => Ok(boundary),
        _ => Err(UploadError::MalformedForm(
            "its boundary is empty or too long",
        )),
    }
}

/// Content of a form.
pub(super) struct FormContent {
    multipart: Multipart<'static>,
    feed: Feed,
}

/// A part of a form. The next one comes when it is dropped.
pub(super) struct FormPart<'a> {
    field: Field<'static>,
    feed: &'a mut Feed,
}

impl FormContent {
    /// Begins with the content of a request, whose boundary is parsed.
    pub(super) fn new(content: RequestContent, boundary: &str) -> Self {
        let fed = Arc::new(Mutex::new(Fed::Nothing));
        let stream = BodyDataStream::new(FedBody(Arc::clone(&fed)));
        FormContent {
            multipart: Multipart::new(stream, boundary),
            feed: Feed {
                content,
                chunk: Bytes::new(),
                fed,
                step_bytes: 0,
                has_ended: false,
            },
        }
    }

    /// Returns the next part. `None` behind the last boundary. The part before has to be read to its end.
    ///
    /// # Errors
    /// [`UploadError::MalformedForm`], and errors of the content.
    pub(super) async fn next_part(&mut self) -> Result<Option<FormPart<'_>>, UploadError> {
        let field = self.feed.drive(self.multipart.next_field()).await?;
        let feed = &mut self.feed;
        Ok(field.map(|field| FormPart { field, feed }))
    }

    /// Skips what follows the last boundary, so that the client sees the response. Gives up if that is long.
    pub(super) async fn skip_epilogue(mut self) {
        let mut skipped_bytes = 0;
        while skipped_bytes <= PART_HEAD_BYTES && !self.feed.has_ended {
            match poll_fn(|cx| Pin::new(&mut self.feed.content).poll_frame(cx)).await {
                Some(Ok(frame)) => skipped_bytes += frame.data_ref().map_or(0, Bytes::len),
                // The files are stored, whatever the client does now.
                Some(Err(_)) | None => return,
            }
        }
    }
}

impl FormPart<'_> {
    /// Name of the field.
    pub(super) fn name(&self) -> Option<&str> {
        self.field.name()
    }

    /// Name that the client has for the file. `None` if the part is no file.
    ///
    /// # Errors
    /// [`UploadError::MalformedForm`] if the name cannot be read, as one that is not UTF-8.
    pub(super) fn file_name(&self) -> Result<Option<&str>, UploadError> {
        if let Some(name) = self.field.file_name() {
            return Ok(Some(name));
        }
        let disposition = self.field.headers().get(header::CONTENT_DISPOSITION);
        let is_file = disposition.is_some_and(|disposition| {
            let disposition = disposition.as_bytes().to_ascii_lowercase();
            memchr::memmem::find(&disposition, b"filename").is_some()
        });
        match is_file {
            true => Err(UploadError::MalformedForm(
                "the name of a file is malformed",
            )),
            false => Ok(None),
        }
    }

    /// Reads the part to its end.
    ///
    /// # Errors
    /// [`UploadError::MalformedForm`] if it has more than `max_bytes`, and errors of the content.
    pub(super) async fn read(&mut self, max_bytes: usize) -> Result<Vec<u8>, UploadError> {
        let mut content = Vec::new();
        while let Some(chunk) = self.next_chunk().await? {
            if content.len() + chunk.len() > max_bytes {
                return Err(UploadError::MalformedForm("a field is too long"));
            }
            content.extend_from_slice(&chunk);
        }
        Ok(content)
    }
}

impl ContentSource for FormPart<'_> {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, UploadError> {
        self.feed.drive(self.field.chunk()).await
    }
}

/// Content on its way to the parser.
struct Feed {
    content: RequestContent,
    /// Rest of a chunk that the content had.
    chunk: Bytes,
    fed: Arc<Mutex<Fed>>,
    /// Bytes that the parser got since its last result.
    step_bytes: usize,
    has_ended: bool,
}

/// Next item of the parser's stream.
enum Fed {
    Nothing,
    Chunk(Bytes),
    End,
}

/// Stream of the parser.
struct FedBody(Arc<Mutex<Fed>>);

impl Feed {
    /// Takes one step of the parser, and feeds it as long as it waits.
    async fn drive<T>(
        &mut self,
        step: impl Future<Output = multer::Result<T>>,
    ) -> Result<T, UploadError> {
        let mut step = pin!(step);
        self.step_bytes = 0;
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(parsed) = step.as_mut().poll(cx) {
                    return Poll::Ready(parsed.map_err(|error| malformed(&error)));
                }
                ready!(self.poll_feed(cx))?;
            }
        })
        .await
    }

    /// Gives the parser a chunk, or the end.
    fn poll_feed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        if self.has_ended {
            return Poll::Ready(Err(UploadError::MalformedForm("it ends early")));
        }
        if self.step_bytes > PART_HEAD_BYTES {
            let error = UploadError::MalformedForm("the head of a part is too long");
            return Poll::Ready(Err(error));
        }
        while self.chunk.is_empty() {
            match ready!(Pin::new(&mut self.content).poll_frame(cx)) {
                Some(Ok(frame)) => self.chunk = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Err(UploadError::of_content(&error))),
                None => {
                    self.has_ended = true;
                    *self.fed.lock() = Fed::End;
                    return Poll::Ready(Ok(()));
                }
            }
        }
        let bytes = self.chunk.len().min(CONTENT_CHUNK_BYTES);
        self.step_bytes += bytes;
        *self.fed.lock() = Fed::Chunk(self.chunk.split_to(bytes));
        Poll::Ready(Ok(()))
    }
}

impl Body for FedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut fed = self.0.lock();
        match std::mem::replace(&mut *fed, Fed::Nothing) {
            // The feed polls the parser again when it has more, so nobody needs to be woken.
            Fed::Nothing => Poll::Pending,
            Fed::Chunk(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            Fed::End => {
                *fed = Fed::End;
                Poll::Ready(None)
            }
        }
    }
}

/// Returns the error of the parser, without anything that the client has sent.
fn malformed(error: &multer::Error) -> UploadError {
    use multer::Error::{
        DecodeHeaderName, DecodeHeaderValue, IncompleteFieldData, IncompleteHeaders,
        IncompleteStream, ReadHeaderFailed,
    };
    UploadError::MalformedForm(match error {
        IncompleteStream | IncompleteFieldData { .. } => "a boundary is missing or malformed",
        ReadHeaderFailed(_)
        | IncompleteHeaders
        | DecodeHeaderName { .. }
        | DecodeHeaderValue { .. } => "the head of a part is malformed",
        _ => "it cannot be parsed",
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Content without an end, which repeats a text and counts the bytes that were taken.
    struct Endless {
        text: &'static [u8],
        taken_bytes: Arc<AtomicUsize>,
    }

    impl Body for Endless {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            let chunk = self.text.repeat(CONTENT_CHUNK_BYTES / self.text.len());
            self.taken_bytes.fetch_add(chunk.len(), Ordering::Relaxed);
            Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
        }
    }

    fn endless(text: &'static [u8]) -> (FormContent, Arc<AtomicUsize>) {
        let taken_bytes = Arc::new(AtomicUsize::new(0));
        let body = Endless {
            text,
            taken_bytes: Arc::clone(&taken_bytes),
        };
        let content = FormContent::new(RequestContent::new(body), "B");
        (content, taken_bytes)
    }

    /// The parser takes content at each step if there is some, so small parts let its buffer grow without end.
    #[tokio::test]
    async fn no_content_is_taken_while_the_parser_has_parts() {
        const PART: &[u8] = b"--B\r\ncontent-disposition: form-data; name=a\r\n\r\nx\r\n";
        let (mut content, taken_bytes) = endless(PART);
        let parts_of_a_chunk = CONTENT_CHUNK_BYTES / PART.len();
        for number in 1..=4 * parts_of_a_chunk {
            let mut part = content.next_part().await.unwrap().unwrap();
            assert_eq!(part.read(1).await.unwrap(), b"x");
            let needed_bytes = number * PART.len() + 2 * CONTENT_CHUNK_BYTES;
            assert!(taken_bytes.load(Ordering::Relaxed) <= needed_bytes);
        }
    }

    #[tokio::test]
    async fn a_step_without_end_takes_as_much_as_is_charged() {
        for text in [
            b"a".as_slice(),
            b"--B\r\na",
            b"--B  ",
            b"--B\r\ncontent-disposition: form-data; name=a\r\n",
        ] {
            let (mut content, taken_bytes) = endless(text);
            let error = content.next_part().await.err().unwrap();
            assert!(matches!(error, UploadError::MalformedForm(_)), "{error}");
            assert!(taken_bytes.load(Ordering::Relaxed) <= PARSER_BYTES);
        }
    }

    #[tokio::test]
    async fn a_field_is_read_up_to_its_limit() {
        let (mut content, _) =
            endless(b"--B\r\ncontent-disposition: form-data; name=a\r\n\r\nxyz\r\n");
        let mut part = content.next_part().await.unwrap().unwrap();
        assert_eq!(part.name(), Some("a"));
        assert_eq!(part.file_name(), Ok(None));
        let error = part.read(2).await.unwrap_err();
        assert_eq!(error, UploadError::MalformedForm("a field is too long"));
    }
}
