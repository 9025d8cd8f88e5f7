//! The tests of the whole: real components, real sockets, real files.
