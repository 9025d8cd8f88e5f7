//! Sends a response: its head, and its body in segments, each of which has left before the next is asked for.

use crate::http1::encode::{BodyFraming, CHUNK_END, LAST_CHUNK, write_chunk_size};
use crate::protocol::HttpIo;
use crate::transport::send_error::{RemainingLength, SendError};
use crate::transport::send_window::MIN_WINDOW;
use millpond::store::FileRange;
use millpond::{ResponseBody, Segment, SegmentLimits};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::Poll;

/// Maximum bytes of a file that the kernel is given at a time: so often is the send window looked at.
const FILE_BYTES: usize = 1024 * 1024;

/// Sends a response whose head is encoded. The body counts bytes as sent that the socket has taken.
///
/// # Errors
/// When the client has gone, the body fails, or it has another length than its framing. The connection has to be aborted
/// then: a short body must not look whole.
pub(crate) async fn send(
    io: &mut HttpIo,
    head: Vec<u8>,
    body: &mut impl ResponseBody,
    framing: BodyFraming,
) -> io::Result<()> {
    body.begin_send();
    match send_segments(io, head, body, framing).await {
        Ok(()) => {
            body.end_send(Ok(()));
            Ok(())
        }
        Err(SendError::Body(error)) => {
            body.end_send(Err(&error));
            Err(error)
        }
        Err(SendError::Client(error)) => Err(error),
    }
}

async fn send_segments(
    io: &mut HttpIo,
    mut head: Vec<u8>,
    body: &mut impl ResponseBody,
    framing: BodyFraming,
) -> Result<(), SendError> {
    let mut remaining = match framing {
        BodyFraming::None => return write_head(io, &head, false).await,
        BodyFraming::Length(length) => RemainingLength(Some(length)),
        BodyFraming::Chunked | BodyFraming::Close => RemainingLength(None),
    };
    while !remaining.is_zero() {
        let limits = segment_limits(io);
        let polled = poll_fn(|cx| Poll::Ready(body.poll_segment(cx, limits))).await;
        let segment = match polled {
            Poll::Ready(segment) => segment,
            Poll::Pending => {
                // The head does not wait for a body that does.
                write_head(io, &std::mem::take(&mut head), false).await?;
                poll_fn(|cx| body.poll_segment(cx, limits)).await
            }
        };
        let Some(segment) = segment else {
            break;
        };
        let segment = segment.map_err(SendError::Body)?;
        let length = match &segment {
            Segment::Memory(bytes) => bytes.len(),
            Segment::File(range) => range.length,
        };
        remaining.take(length)?;
        match segment {
            // An empty chunk would be the last.
            Segment::Memory(bytes) if bytes.is_empty() => continue,
            Segment::Memory(bytes) => {
                let (mut size, mut after) = (Vec::new(), &b""[..]);
                if framing == BodyFraming::Chunked {
                    write_chunk_size(&mut size, bytes.len());
                    after = CHUNK_END;
                }
                let parts = Parts {
                    before: &[&head, &size],
                    body: &bytes,
                    after,
                };
                let sent = write_all(io, parts, false, |count| body.on_sent(count));
                sent.await.map_err(SendError::Client)?;
            }
            Segment::File(range) => {
                write_head(io, &head, true).await?;
                send_file(io, range, |count| body.on_sent(count)).await?;
            }
        }
        // It has been sent, and its memory is not needed for as long as the body lasts.
        head = Vec::new();
    }
    remaining.end()?;
    if framing == BodyFraming::Chunked {
        head.extend_from_slice(LAST_CHUNK);
    }
    // An empty body has left the head.
    write_head(io, &head, false).await
}

async fn write_head(io: &mut HttpIo, head: &[u8], is_more: bool) -> Result<(), SendError> {
    let parts = Parts {
        before: &[head],
        body: &[],
        after: &[],
    };
    let written = write_all(io, parts, is_more, |_| ()).await;
    written.map_err(SendError::Client)
}

/// Bytes that are written together, of which some are the body's.
pub(crate) struct Parts<'a> {
    /// The head, in parts, and the size of a chunk.
    pub(crate) before: &'a [&'a [u8]],
    pub(crate) body: &'a [u8],
    /// The end of a chunk.
    pub(crate) after: &'a [u8],
}

/// Writes all of these parts. `is_more` says that more follows at once. `on_sent` is told of bytes of the body as the socket
/// has taken them.
///
/// # Errors
/// When the client has gone.
pub(crate) async fn write_all(
    io: &mut HttpIo,
    parts: Parts<'_>,
    is_more: bool,
    mut on_sent: impl FnMut(usize),
) -> io::Result<()> {
    const MOST_SLICES: usize = 6;
    let before_bytes = parts.before.iter().map(|part| part.len()).sum::<usize>();
    let total_bytes = before_bytes + parts.body.len() + parts.after.len();
    let of_body = |written: usize| written.saturating_sub(before_bytes).min(parts.body.len());
    let is_encrypted = io.is_encrypted();
    let mut written = 0;
    while written < total_bytes {
        let count = poll_fn(|cx| {
            let all = parts.before.iter().chain([&parts.body, &parts.after]);
            let mut slices = [IoSlice::new(&[]); MOST_SLICES];
            for (slice, part) in slices.iter_mut().zip(all) {
                *slice = IoSlice::new(part);
            }
            let mut slices = &mut slices[..];
            IoSlice::advance_slices(&mut slices, written);
            io.poll_send(cx, slices, is_more)
        });
        match count.await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => {
                if !is_encrypted {
                    on_sent(of_body(written + count) - of_body(written));
                }
                written += count;
            }
        }
    }
    if is_encrypted {
        // TLS has its own buffer.
        poll_fn(|cx| io.poll_flush(cx)).await?;
        on_sent(parts.body.len());
    }
    Ok(())
}

async fn send_file(
    io: &mut HttpIo,
    mut range: FileRange,
    mut on_sent: impl FnMut(usize),
) -> Result<(), SendError> {
    while range.length > 0 {
        let sent = poll_fn(|cx| io.poll_send_file(cx, &range)).await;
        let count = sent.map_err(|error| match error.kind() {
            // The file has shrunk.
            io::ErrorKind::UnexpectedEof => SendError::Body(error),
            _ => SendError::Client(error),
        })?;
        range.offset += count as u64;
        range.length -= count;
        on_sent(count);
    }
    Ok(())
}

/// Maximum size of the next segment. TLS reads the bytes first. A reader that may be slow gets what fits its window: the
/// kernel would fill a packet of a file first.
fn segment_limits(io: &mut HttpIo) -> SegmentLimits {
    let window = io.socket().state.window();
    let may_be_file = !io.is_encrypted() && window != MIN_WINDOW;
    SegmentLimits {
        memory_bytes: window.chunk_bytes,
        file_bytes: may_be_file.then_some(FILE_BYTES),
    }
}
