//! Looks at a running server four times a second: its memory, its open files, and what the kernel holds for it.

use crate::memory::{Admin, Memory};
use crate::servers::Server;
use crate::sockets::socket_bytes;
use anyhow::{Context, Result};
use procfs::process::{Process, Status};
use serde::Serialize;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Time between two looks.
pub(crate) const EVERY: Duration = Duration::from_millis(250);

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
    /// What the server says itself, where it can.
    pub(crate) memory: Option<Memory>,
}

/// Resident memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct ProcessMemory {
    /// What it wrote itself: heap, stacks.
    pub(crate) anonymous_bytes: u64,
    /// Pages of files: its program, its libraries.
    pub(crate) file_bytes: u64,
    /// All of it that is resident.
    pub(crate) resident_bytes: u64,
    /// The most that ever was.
    pub(crate) peak_bytes: u64,
}

impl ProcessMemory {
    fn of(status: &Status) -> Result<Self> {
        let bytes = |kibibytes: Option<u64>| {
            let kibibytes = kibibytes.context("the kernel does not tell a process's memory")?;
            anyhow::Ok(kibibytes * 1024)
        };
        Ok(ProcessMemory {
            anonymous_bytes: bytes(status.rssanon)?,
            file_bytes: bytes(status.rssfile)?,
            resident_bytes: bytes(status.vmrss)?,
            peak_bytes: bytes(status.vmhwm)?,
        })
    }
}

/// Looks at one server.
pub(crate) struct Sampler {
    started: Instant,
    process: Process,
    port: u16,
    sockets_told: bool,
    admin: Option<Admin>,
}

impl Sampler {
    pub(crate) fn new(server: &Server) -> Result<Self> {
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
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            samples.push(self.look().await?);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use procfs::FromRead;

    #[test]
    fn a_status_gives_the_four_figures_in_bytes() {
        // What procfs needs of one, besides.
        let status = "Name:\tnode\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t7\nPid:\t7\nPPid:\t1\n\
            TracerPid:\t0\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nFDSize:\t64\nGroups:\t0\n\
            VmHWM:\t  400 kB\nVmRSS:\t  300 kB\nRssAnon:\t  100 kB\nRssFile:\t  200 kB\n\
            Threads:\t1\nSigQ:\t0/1\nSigPnd:\t0\nShdPnd:\t0\nSigBlk:\t0\nSigIgn:\t0\nSigCgt:\t0\n\
            CapInh:\t0\nCapPrm:\t0\nCapEff:\t0\n";
        let status = Status::from_read(status.as_bytes()).unwrap();
        let expected = ProcessMemory {
            anonymous_bytes: 100 * 1024,
            file_bytes: 200 * 1024,
            resident_bytes: 300 * 1024,
            peak_bytes: 400 * 1024,
        };
        assert_eq!(ProcessMemory::of(&status).unwrap(), expected);
    }

    #[test]
    fn a_process_that_has_ended_has_no_figures() {
        // A zombie's status tells no memory.
        let status = "Name:\tnode\nState:\tZ (zombie)\nTgid:\t7\nPid:\t7\nPPid:\t1\nTracerPid:\t0\n\
            Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nFDSize:\t0\nGroups:\t0\nThreads:\t1\nSigQ:\t0/1\n\
            SigPnd:\t0\nShdPnd:\t0\nSigBlk:\t0\nSigIgn:\t0\nSigCgt:\t0\nCapInh:\t0\nCapPrm:\t0\n\
            CapEff:\t0\n";
        let status = Status::from_read(status.as_bytes()).unwrap();
        assert!(ProcessMemory::of(&status).is_err());
    }
}
