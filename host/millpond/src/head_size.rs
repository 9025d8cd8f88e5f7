//! Sizes of heads: the limits of a request's head, and the memory of heads.

use http::HeaderMap;
use http::request::Parts;

/// Maximum length of a request target, in bytes; status 414 beyond. RFC 9110 section 4.1 recommends 8000 at least.
pub const TARGET_BYTES: usize = 8 * 1024;

/// Maximum sum of a request's field names and values, in bytes; status 431 beyond.
pub(crate) const FIELDS_BYTES: usize = 16 * 1024;

/// Maximum number of a request's field lines; status 431 beyond.
pub const FIELD_LINES: usize = 100;

/// The error of a head that is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadTooLarge {
    #[error("the request target is longer than {TARGET_BYTES} bytes")]
    Target,
    #[error("the header fields are larger than {FIELDS_BYTES} bytes or more than {FIELD_LINES}")]
    Fields,
}

/// Checks the size of a request's head.
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

/// Returns the target in origin-form, or `*` (RFC 9112 section 3.2).
pub(crate) fn target(head: &Parts) -> &str {
    let target = head.uri.path_and_query();
    target.map_or("/", |target| target.as_str())
}

/// Memory of a request's head and its access log entry, in bytes.
pub(crate) fn request_head_memory_bytes(head: &Parts) -> usize {
    head_memory_bytes(
        target(head),
        head.headers.len(),
        fields_bytes(&head.headers),
    )
}

/// Heap memory of a request outside of its other charges, in bytes: its ledger, its access log entry, its body.
pub(crate) const REQUEST_OVERHEAD_BYTES: usize = 2048;
/// Memory of a field besides its name and value, in bytes.
pub const FIELD_OVERHEAD_BYTES: usize = 96;

/// Returns the memory of a request's head and its access log entry, in bytes. `lines` is the number of field lines, and
/// `fields_bytes` the sum of their names and values.
#[must_use]
pub fn head_memory_bytes(target: &str, lines: usize, fields_bytes: usize) -> usize {
    REQUEST_OVERHEAD_BYTES + target.len() + fields_bytes + lines * FIELD_OVERHEAD_BYTES
}

/// Memory of fields, in bytes.
pub(crate) fn fields_memory_bytes(fields: &HeaderMap) -> usize {
    fields_bytes(fields) + fields.len() * FIELD_OVERHEAD_BYTES
}

/// Sum of the fields' names and values, in bytes.
pub(crate) fn fields_bytes(fields: &HeaderMap) -> usize {
    let lines = fields.iter();
    lines
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum()
}
