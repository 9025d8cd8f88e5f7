//! Origins for tests of media that come from elsewhere, and the tests with them.
//!
//! [`fault_origin`] is an HTTP server whose faults a test chooses, for each of its [objects](object) with their
//! [content], and [`faults`] tests it. [`s3_server`] is an S3 server in this process, and [`moto`] starts another one for a second opinion.

mod content;
mod drills;
pub(crate) mod fault_origin;
mod faults;
mod flushed_stream;
mod gate;
mod gzip;
pub(crate) mod moto;
pub(crate) mod object;
mod operate;
mod record;
mod response;
pub(crate) mod s3_server;
