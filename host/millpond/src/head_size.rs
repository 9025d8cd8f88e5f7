//! Sizes of heads: how large a request's may be, and the memory that heads take.

use http::HeaderMap;
use http::request::Parts;

/// Longest request target, in bytes (RFC 9110 section 4.1 asks for 8000 at least): 414 beyond.
pub const TARGET_BYTES: usize = 8 * 1024;

/// Sum of a request's field names and values, in bytes: 431 beyond.
pub const FIELDS_BYTES: usize = 16 * 1024;

/// Most field lines of a request: 431 beyond.
pub const FIELD_LINES: usize = 100;

/// A request's head that is larger than one may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadTooLarge {
    #[error("the request target is longer than {TARGET_BYTES} bytes")]
    Target,
    #[error("the header fields are larger than {FIELDS_BYTES} bytes or more than {FIELD_LINES}")]
    Fields,
}

/// Checks a request's head against the limits of its size.
///
/// # Errors
/// [`HeadTooLarge`].
pub(crate) fn check(head: &Parts) -> Result<(), HeadTooLarge> {
    if target(head).len() > TARGET_BYTES {
        return Err(HeadTooLarge::Target);
    }
    if fields_bytes(&head.headers) > FIELDS_BYTES || head.headers.len() > FIELD_LINES {
        return Err(HeadTooLarge::Fields);
    }
    Ok(())
}

/// The target in origin-form, or `*` (RFC 9112 section 3.2).
pub(crate) fn target(head: &Parts) -> &str {
    let target = head.uri.path_and_query();
    target.map_or("/", |target| target.as_str())
}

/// Bytes that a request's head and its record take.
pub(crate) fn request_head_memory_bytes(head: &Parts) -> usize {
    head_memory_bytes(
        target(head),
        head.headers.len(),
        fields_bytes(&head.headers),
    )
}

/// Bytes that a request takes on the heap beside the kinds that are charged by themselves: its ledger, its log entry, its
/// body.
pub const REQUEST_OVERHEAD_BYTES: usize = 2048;
/// Bytes that a field of a head takes beside its name and value.
pub const FIELD_OVERHEAD_BYTES: usize = 96;

/// Bytes that a request's head and its log entry take. `lines` is the number of field lines, and `fields_bytes` the sum of
/// their names and values.
#[must_use]
pub fn head_memory_bytes(target: &str, lines: usize, fields_bytes: usize) -> usize {
    REQUEST_OVERHEAD_BYTES + target.len() + fields_bytes + lines * FIELD_OVERHEAD_BYTES
}

/// Bytes that fields take in memory.
pub(crate) fn fields_memory_bytes(fields: &HeaderMap) -> usize {
    fields_bytes(fields) + fields.len() * FIELD_OVERHEAD_BYTES
}

/// The sum of names and values, in bytes.
pub(crate) fn fields_bytes(fields: &HeaderMap) -> usize {
    let lines = fields.iter();
    lines
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum()
}
