//! Moves a body from one stream to another, a bounded piece at a time.

use crate::component::bindings::wasi::cli::environment::get_environment;
use crate::component::bindings::wasi::io::streams::{InputStream, OutputStream, StreamError};

/// Most bytes that are in flight at a time.
const PIECE_BYTES: u64 = 64 * 1024;

/// Where a body goes.
pub(crate) struct Pump<'a> {
    output: &'a OutputStream,
    way: Way,
}

/// How the bytes of a stream are moved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Read into this component's memory and written from it. It is right everywhere, and no slower where both ways
    /// were measured.
    Copy,
    /// By the host, without passing through this component's memory. Some hosts move more than they are asked for.
    Splice,
}

/// Why the body is not whole.
pub(crate) struct Cut;

impl From<StreamError> for Cut {
    fn from(_: StreamError) -> Self {
        Cut
    }
}

impl<'a> Pump<'a> {
    pub(crate) fn new(output: &'a OutputStream) -> Self {
        let variables = get_environment();
        let mut variables = variables.iter();
        let is_splice = variables.any(|(name, value)| name == "MILLPOND_PUMP" && value == "splice");
        let way = match is_splice {
            true => Way::Splice,
            false => Way::Copy,
        };
        Pump { output, way }
    }

    /// Sends the first `length` bytes of a stream.
    pub(crate) fn splice(&mut self, source: InputStream, length: u64) -> Result<(), Cut> {
        let mut left = length;
        while left > 0 {
            let piece = left.min(PIECE_BYTES);
            // Neither way asks the source whether it is ready before it has been read from: a host would then read
            // ahead as much as it thinks fit, which is little.
            let count = match self.way {
                Way::Splice => self.output.blocking_splice(&source, piece)?,
                Way::Copy => {
                    let bytes = source.blocking_read(piece)?;
                    self.write(&bytes)?;
                    bytes.len() as u64
                }
            };
            // More than asked for: what was sent is no longer what was promised.
            left = left.checked_sub(count).ok_or(Cut)?;
        }
        Ok(())
    }

    /// Sends bytes, when there is room for them.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Cut> {
        while !bytes.is_empty() {
            let room = self.output.check_write()?;
            if room == 0 {
                self.output.subscribe().block();
                continue;
            }
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let (piece, rest) = bytes.split_at(room.min(bytes.len()));
            self.output.write(piece)?;
            bytes = rest;
        }
        Ok(())
    }
}
