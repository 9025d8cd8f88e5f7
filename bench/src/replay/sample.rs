//! Looks at a running server four times a second, or a thousand times in all. It sees the server's memory, its open files,
//! and the memory that the kernel holds for it.

use crate::process::ProcessMemory;
use crate::replay::memory::{Admin, Memory};
use crate::replay::servers::Server;
use crate::sockets::socket_bytes;
use anyhow::{Context, Result};
use procfs::process::Process;
use serde::Serialize;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Minimum time between two looks.
const EVERY: Duration = Duration::from_millis(250);

/// Maximum number of looks, so that the picture of a long load has no more points than it can show.
const LOOKS: u32 = 1000;

/// One look at a server.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    /// When, in seconds from the start of the load.
    pub(crate) at_seconds: f64,
    #[serde(flatten)]
    pub(crate) process: ProcessMemory,
    pub(crate) open_files: usize,
    /// Kernel memory of the server's TCP sockets; none where the kernel does not tell.
    pub(crate) socket_bytes: Option<u64>,
    /// Memory by the server's own account, if it has one.
    pub(crate) memory: Option<Memory>,
}

/// Looks at one server.
pub(crate) struct Sampler {
    started: Instant,
    every: Duration,
    process: Process,
    port: u16,
    sockets_told: bool,
    admin: Option<Admin>,
}

impl Sampler {
    pub(crate) fn new(server: &Server, load: Duration) -> Result<Self> {
        let process = i32::try_from(server.process_id())
            .context("no process id")
            .and_then(|id| Ok(Process::new(id)?))
            .context("cannot look at the server's process")?;
        let port = server.address.port();
        let sockets_told = match socket_bytes(port) {
            Ok(_) => true,
            Err(error) => {
                eprintln!("kernel memory is left out: {error:#}");
                false
            }
        };
        Ok(Sampler {
            started: Instant::now(),
            every: EVERY.max(load / LOOKS),
            process,
            port,
            sockets_told,
            admin: server.admin.map(Admin::new),
        })
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// One look. Only that the process is gone is an error: what else cannot be had is left out.
    pub(crate) async fn look(&self) -> Result<Sample> {
        let gone = "the server's process is gone";
        let status = self.process.status().context(gone)?;
        let memory = match &self.admin {
            Some(admin) => admin.memory().await.ok(),
            None => None,
        };
        Ok(Sample {
            at_seconds: self.elapsed().as_secs_f64(),
            process: ProcessMemory::of(&status).context(gone)?,
            open_files: self.process.fd_count().context(gone)?,
            socket_bytes: self
                .sockets_told
                .then(|| socket_bytes(self.port).ok())
                .flatten(),
            memory,
        })
    }

    /// Looks again and again, until it is dropped or the process is gone.
    pub(crate) async fn keep_looking(&self, samples: &mut Vec<Sample>) -> Result<Infallible> {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            samples.push(self.look().await?);
        }
    }
}
