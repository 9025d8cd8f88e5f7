//! The error of a response that was not sent whole, and the check of a body's declared length.

use std::io;

/// A response that was not sent whole.
pub(crate) enum SendError {
    /// The body could not be had.
    Body(io::Error),
    /// The client could not be reached.
    Client(io::Error),
}

/// Remaining length of a body, if its length is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RemainingLength(pub(crate) Option<u64>);

impl RemainingLength {
    /// Whether the body is complete.
    pub(crate) fn is_zero(self) -> bool {
        self.0 == Some(0)
    }

    /// Takes the bytes of a segment from it.
    ///
    /// # Errors
    /// [`SendError::Body`], if the body is longer than declared.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), SendError> {
        if let Some(remaining) = &mut self.0 {
            *remaining = remaining
                .checked_sub(bytes as u64)
                .ok_or_else(|| body_error("the body is longer than declared"))?;
        }
        Ok(())
    }

    /// Checks the end of the body.
    ///
    /// # Errors
    /// [`SendError::Body`], if the body is shorter than declared.
    pub(crate) fn end(self) -> Result<(), SendError> {
        match self.0 {
            None | Some(0) => Ok(()),
            Some(_) => Err(body_error("the body is shorter than declared")),
        }
    }
}

/// Returns the error of a body that breaks its promise.
pub(crate) fn body_error(message: &'static str) -> SendError {
    SendError::Body(io::Error::new(io::ErrorKind::InvalidData, message))
}
