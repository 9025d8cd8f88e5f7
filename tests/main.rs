//! The tests of the whole: real components, real sockets, real files.
//!
//! [`host`] starts a host in this process, and [`server`] the program in another. [`client`] is an HTTP/1.1 client that sends
//! any bytes, and [`frames`] one of HTTP/2. [`origin`] has servers that media comes from. Tests that need other programs
//! (curl, ffmpeg, mpv, VLC, Chromium) are in [`players`], and ignored by default.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access_log;
mod changing_folder;
mod client;
mod clients;
mod command_line;
mod conformance;
mod dashboard;
#[cfg(target_os = "linux")]
mod drills;
mod frames;
mod gallery;
mod half_close;
mod health;
mod host;
mod hostile_clients;
mod hostile_guests;
mod hosts;
mod http;
mod http1;
mod http2;
mod http_edge;
mod import;
mod import_origin;
mod instance;
#[cfg(unix)]
mod load;
mod manual;
mod many_nodes;
mod memory;
mod metrics;
#[cfg(target_os = "linux")]
mod mounts;
mod new_guests;
#[cfg(target_os = "linux")]
mod origin;
#[cfg(target_os = "linux")]
mod pages;
mod players;
mod plugin;
mod proxies;
#[cfg(unix)]
mod reload;
mod reuse;
#[cfg(target_os = "linux")]
mod sandbox;
mod seed;
mod server;
mod spin;
mod store_life;
#[cfg(unix)]
mod stuck_readers;
mod tls;
#[cfg(unix)]
mod traces;
mod upload_form;
mod uploads;
