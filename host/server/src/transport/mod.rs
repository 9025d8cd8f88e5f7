//! The connection below HTTP: socket, memory, timeouts, and send window.

pub(crate) mod connection;
#[cfg(feature = "uploads")]
pub(crate) mod content;
pub(crate) mod exchange;
pub(crate) mod send_error;
pub(crate) mod send_state;
pub(crate) mod send_window;
pub(crate) mod slot_waiters;
pub(crate) mod socket;
pub(crate) mod sockopt;
pub(crate) mod timeouts;
