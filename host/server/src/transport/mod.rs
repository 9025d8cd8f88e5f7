//! Connections: their sockets, what they hold, how long they may take, and how much lies between file and reader.

pub(crate) mod connection;
pub(crate) mod exchange;
pub(crate) mod io;
pub(crate) mod send_window;
pub(crate) mod sendfile;
pub(crate) mod sockopt;
pub(crate) mod timeouts;
pub(crate) mod wanted;
