//! Content of a request, as a service reads it.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use std::io;

/// Content of a request. The server reads the next chunk from the client when the service polls for it, so a slow
/// service holds the client back.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if the content is malformed, and [`io::ErrorKind::UnexpectedEof`] or another error if
/// the client left before its end.
pub type RequestContent = UnsyncBoxBody<Bytes, io::Error>;

/// Maximum size of a chunk that the server passes to the service, in bytes. The kernel holds as much of a connection.
pub const CONTENT_CHUNK_BYTES: usize = 16 * 1024;
