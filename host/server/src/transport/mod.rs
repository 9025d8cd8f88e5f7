//! The connection below HTTP: its socket, its memory, its time, and the window that follows its reader.

pub(crate) mod connection;
pub(crate) mod exchange;
pub(crate) mod send_state;
pub(crate) mod send_window;
pub(crate) mod socket;
pub(crate) mod sockopt;
pub(crate) mod timeouts;
pub(crate) mod slot_waiters;
