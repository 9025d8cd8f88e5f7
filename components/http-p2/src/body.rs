//! Copies a body from one stream to another, one bounded chunk at a time.

use crate::component::bindings::wasi::cli::environment::get_environment;
use crate::component::bindings::wasi::io::streams::{InputStream, OutputStream, StreamError};

/// Maximum number of bytes in flight.
const CHUNK_BYTES: u64 = 64 * 1024;

/// Writer of one body.
pub(crate) struct BodyWriter<'a> {
    output: &'a OutputStream,
    mode: CopyMode,
}

/// How the bytes of a stream are copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CopyMode {
    /// Through this component's memory. It works on every host, and was no slower wherever both were measured.
    Copy,
    /// By the host, without this component's memory. Some hosts splice more bytes than requested.
    Splice,
}

/// The body is incomplete.
pub(crate) struct OutgoingBodyAborted;

impl From<StreamError> for OutgoingBodyAborted {
    fn from(_: StreamError) -> Self {
        OutgoingBodyAborted
    }
}

impl<'a> BodyWriter<'a> {
    pub(crate) fn new(output: &'a OutputStream) -> Self {
        let variables = get_environment();
        let mut variables = variables.iter();
        let is_splice = variables.any(|(name, value)| name == "MILLPOND_PUMP" && value == "splice");
        let mode = match is_splice {
            true => CopyMode::Splice,
            false => CopyMode::Copy,
        };
        BodyWriter { output, mode }
    }

    /// Sends the first `length` bytes of a stream.
    pub(crate) fn splice(
        &mut self,
        source: InputStream,
        length: u64,
    ) -> Result<(), OutgoingBodyAborted> {
        let mut left = length;
        while left > 0 {
            let chunk = left.min(CHUNK_BYTES);
            // Do not poll the source before the first read: a host would then read ahead by an amount of its own, which
            // is small.
            let count = match self.mode {
                CopyMode::Splice => self.output.blocking_splice(&source, chunk)?,
                CopyMode::Copy => {
                    let bytes = source.blocking_read(chunk)?;
                    self.write(&bytes)?;
                    bytes.len() as u64
                }
            };
            // If there are more bytes than requested, the body no longer matches its head.
            left = left.checked_sub(count).ok_or(OutgoingBodyAborted)?;
        }
        Ok(())
    }

    /// Sends bytes as the output accepts them.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), OutgoingBodyAborted> {
        while !bytes.is_empty() {
            let capacity = self.output.check_write()?;
            if capacity == 0 {
                self.output.subscribe().block();
                continue;
            }
            let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
            let (chunk, rest) = bytes.split_at(capacity.min(bytes.len()));
            self.output.write(chunk)?;
            bytes = rest;
        }
        Ok(())
    }
}
