//! The servers that are compared: what each is called, and how it is started.

mod bare;
mod caddy;
mod express;
mod millpond;
mod nginx;
mod static_web_server;
mod wasmtime;

use super::media::{File, Media};
use super::tls::Certificate;
use anyhow::Result;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A server, in one of its settings.
pub(crate) trait Peer {
    /// Which series of the tables it belongs to.
    fn series(&self) -> Series;

    /// Setting that distinguishes it within its series; empty for the only one.
    fn setting(&self) -> &'static str;

    /// Version that the program prints.
    fn version(&self) -> &str;

    /// The command that has it listen at an address, in the foreground. Its log goes to standard output and error.
    fn command(&self, place: &Place) -> Result<Command>;

    /// Where it has a file.
    fn target(&self, _: &Media, file: File) -> String {
        format!("/media/{}", file.name())
    }

    /// Where it has nothing.
    fn missing(&self) -> String {
        "/media/missing.jpg".to_owned()
    }

    /// Whether it gives the files that were made to be asked for once.
    fn has_named_files(&self) -> bool {
        true
    }

    /// Whether it serves HTTP/2 over TLS where there is a certificate.
    fn speaks_http2(&self) -> bool {
        false
    }

    /// Name and setting together, as messages have it.
    fn title(&self) -> String {
        let name = self.series().name();
        match self.setting() {
            "" => name.to_owned(),
            setting => format!("{name}, {setting}"),
        }
    }
}

/// A column of the tables. If a series has several settings, each row shows the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Series {
    /// millpond as it is by default, which gives an answer again while nothing that it depends on has changed.
    Millpond,
    /// millpond with a fresh instance for every request.
    MillpondFresh,
    /// nginx with sendfile, or without it and with large buffers.
    Nginx,
    /// Caddy's file server.
    Caddy,
    /// static-web-server.
    StaticWebServer,
    /// The component in `wasmtime serve`.
    Wasmtime,
    /// The original's server.
    Express,
    /// The same bytes, written by a loop that does nothing else.
    Bare,
}

impl Series {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Series::Millpond => "millpond",
            Series::MillpondFresh => "millpond, fresh",
            Series::Nginx => "nginx",
            Series::Caddy => "Caddy",
            Series::StaticWebServer => "static-web-server",
            Series::Wasmtime => "wasmtime serve",
            Series::Express => "Express",
            Series::Bare => "bare loop",
        }
    }
}

/// Where a server listens, and what it serves.
pub(crate) struct Place<'a> {
    pub(crate) address: SocketAddr,
    /// The folder of named files, and of a store by content.
    pub(crate) folder: &'a Path,
    /// The folder above it: for servers that map a URL's path to a folder's.
    pub(crate) root: &'a Path,
    /// For files of its own; removed when it has ended.
    pub(crate) scratch: &'a Path,
    /// How many cores it has.
    pub(crate) cores: usize,
    /// Certificate for TLS. Without one, the server serves plain HTTP.
    pub(crate) certificate: Option<&'a Certificate>,
    /// The answer of the row, byte for byte, where one was taken from millpond before.
    pub(crate) recorded: Option<&'a Recorded>,
}

/// An answer: its head, and where its body is from.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) head: Vec<u8>,
    pub(crate) body: Body,
}

/// The body of a recorded answer.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Bytes(Vec<u8>),
    /// Bytes of a file, from and to.
    File(PathBuf, u64, u64),
}

/// A program in each of the settings that it is measured in.
pub(crate) type Settings = Vec<Box<dyn Peer>>;

/// Where the programs are.
pub(crate) struct Programs {
    pub(crate) workspace: PathBuf,
    pub(crate) millpond: PathBuf,
    pub(crate) wasmtime: Option<PathBuf>,
}

/// All servers that are to be had here, millpond first; what is left out is told to `missing`.
pub(crate) fn all(programs: &Programs, mut missing: impl FnMut(String)) -> Result<Settings> {
    let mut peers = Settings::new();
    peers.extend(millpond::settings(&programs.millpond)?);
    let others: [(Series, Result<Settings>); 6] = [
        (Series::Nginx, nginx::settings()),
        (Series::Caddy, caddy::settings()),
        (
            Series::StaticWebServer,
            static_web_server::settings(&programs.workspace),
        ),
        (Series::Wasmtime, wasmtime::settings(programs)),
        (Series::Express, express::settings(&programs.workspace)),
        (Series::Bare, bare::settings()),
    ];
    for (series, found) in others {
        match found {
            Ok(found) => peers.extend(found),
            Err(error) => missing(format!("{} is left out: {error:#}", series.name())),
        }
    }
    Ok(peers)
}

pub(crate) use bare::Bare;
