//! Several ranges in one body: `multipart/byteranges` (RFC 9110 section 14.6).

use crate::message::Part;
use crate::range::Range;

/// A body of several ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Multipart<S> {
    /// Media type, with the boundary.
    pub(crate) media_type: String,
    /// Parts: heads and ranges by turns.
    pub(crate) parts: Vec<Part<S>>,
    /// Length, in bytes.
    pub(crate) length: u64,
}

/// Makes a body of ranges of a representation. `read` makes a stream of a range.
///
/// `random` makes the boundary. The media must not contain it, so it has to be unpredictable.
///
/// # Errors
/// The first error of `read`.
pub(crate) fn multipart<S, E>(
    ranges: &[Range],
    media_type: &str,
    whole_length: u64,
    random: u64,
    read: impl Fn(Range) -> Result<S, E>,
) -> Result<Multipart<S>, E> {
    let boundary = format!("millpond-{random:016x}");
    let mut parts = Vec::with_capacity(2 * ranges.len() + 1);
    let mut length = 0;
    for (position, range) in ranges.iter().enumerate() {
        let line_end = if position == 0 { "" } else { "\r\n" };
        let last = range.offset + range.length - 1;
        let head = format!(
            "{line_end}--{boundary}\r\nContent-Type: {media_type}\r\n\
             Content-Range: bytes {}-{last}/{whole_length}\r\n\r\n",
            range.offset
        );
        length += head.len() as u64 + range.length;
        parts.push(Part::Bytes(head.into_bytes()));
        parts.push(Part::Stream {
            source: read(*range)?,
            length: range.length,
        });
    }
    let end = format!("\r\n--{boundary}--\r\n");
    length += end.len() as u64;
    parts.push(Part::Bytes(end.into_bytes()));
    Ok(Multipart {
        media_type: format!("multipart/byteranges; boundary={boundary}"),
        parts,
        length,
    })
}
