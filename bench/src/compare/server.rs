//! A peer that runs: on its cores, on a free port, with a folder of its own; ended when it is dropped.

use super::peers::{Peer, Place, Recorded};
use super::tls::Certificate;
use crate::cores::{Cores, on_cores};
use crate::process::{ProcessMemory, Running, cpu_seconds, family, free_address, last_words};
use crate::sockets::socket_bytes;
use anyhow::{Context, Result, bail};
use procfs::process::Process;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Environment of the servers.
pub(crate) struct Ground<'a> {
    /// The folder above the folder `media` that is served.
    pub(crate) root: &'a Path,
    pub(crate) cores: &'a Cores,
    /// For a server that is to speak TLS.
    pub(crate) certificate: Option<&'a Certificate>,
}

/// A server that accepts connections.
pub(crate) struct Server {
    running: Running,
    /// It and its children.
    processes: Vec<Process>,
    pub(crate) address: SocketAddr,
    log: PathBuf,
    // Removed after the server has ended, as fields are dropped in their order.
    _scratch: TempDir,
}

/// Resources that a server and the kernel hold at a moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Held {
    /// Written by its processes themselves.
    pub(crate) anonymous_bytes: u64,
    /// The most that was ever resident, files' pages included.
    pub(crate) peak_resident_bytes: u64,
    /// Charged to its sockets.
    pub(crate) socket_bytes: u64,
}

/// How long a server may take until it accepts a connection.
const LONGEST_START: Duration = Duration::from_secs(60);

/// How often it is asked whether it does.
const ASKED_EVERY: Duration = Duration::from_micros(200);

impl Ground<'_> {
    /// Starts a peer and waits until it accepts a connection.
    pub(crate) fn start(&self, peer: &dyn Peer, recorded: Option<&Recorded>) -> Result<Server> {
        let (server, _) = self.start_and(peer, recorded, |_| Ok(()))?;
        Ok(server)
    }

    /// So too, does something with the first connection that it accepts, and tells how long all that took from when
    /// its process was made.
    pub(crate) fn start_and(
        &self,
        peer: &dyn Peer,
        recorded: Option<&Recorded>,
        first: impl FnOnce(TcpStream) -> Result<()>,
    ) -> Result<(Server, Duration)> {
        let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
        let address = free_address()?;
        let place = Place {
            address,
            folder: &self.root.join("media"),
            root: self.root,
            scratch: scratch.path(),
            cores: self.cores.servers.len().max(1),
            certificate: self.certificate,
            recorded,
        };
        let mut command = peer.command(&place)?;
        let log = scratch.path().join("log");
        let file = File::create(&log).context("cannot make a log")?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let began = Instant::now();
        let child = on_cores(&self.cores.servers, || command.spawn())??;
        let mut running = Running(child);
        let stream = loop {
            if let Ok(stream) = TcpStream::connect(address) {
                break stream;
            }
            if let Some(status) = running.0.try_wait()? {
                bail!("it ended with {status}{}", last_words(&log));
            }
            if began.elapsed() > LONGEST_START {
                bail!("it does not accept connections{}", last_words(&log));
            }
            thread::sleep(ASKED_EVERY);
        };
        first(stream)?;
        let took = began.elapsed();
        let server = Server {
            processes: family(running.0.id())?,
            running,
            address,
            log,
            _scratch: scratch,
        };
        Ok((server, took))
    }
}

impl Server {
    /// Resources that it holds now.
    pub(crate) fn held(&self) -> Result<Held> {
        let mut held = Held {
            socket_bytes: socket_bytes(self.address.port())?,
            ..Held::default()
        };
        for process in &self.processes {
            let status = process.status().context("the server's process is gone")?;
            let memory = ProcessMemory::of(&status)?;
            held.anonymous_bytes += memory.anonymous_bytes;
            held.peak_resident_bytes += memory.peak_bytes;
        }
        Ok(held)
    }

    /// CPU time that it has taken so far.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        self.processes.iter().map(cpu_seconds).sum()
    }

    /// An error if it has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.running.0.try_wait()? {
            bail!("it ended with {status}{}", last_words(&self.log));
        }
        Ok(())
    }
}
