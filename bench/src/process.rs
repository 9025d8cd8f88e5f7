//! Resources and signals of a process.

use anyhow::{Context, Result};
use procfs::process::{Process, Status, all_processes};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Child;

/// Ends a child when it is dropped.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Resident memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct ProcessMemory {
    /// Anonymous memory: heap, stacks.
    pub(crate) anonymous_bytes: u64,
    /// Pages of files: its program, its libraries.
    pub(crate) file_bytes: u64,
    /// All of it that is resident.
    pub(crate) resident_bytes: u64,
    /// The most that ever was.
    pub(crate) peak_bytes: u64,
}

impl ProcessMemory {
    pub(crate) fn of(status: &Status) -> Result<Self> {
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

/// CPU time of a process and all its threads so far, in user and kernel mode, in seconds. The kernel counts it in
/// hundredths.
pub(crate) fn cpu_seconds(process: &Process) -> Result<f64> {
    let stat = process.stat()?;
    Ok((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
}

/// Raises the limit of open files as far as it goes, for the clients here and for the servers, which inherit
/// it. Where it cannot be raised, what does not fit is seen as failures.
pub(crate) fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
}

/// A process and its children, such as they are when it accepts connections.
pub(crate) fn family(id: u32) -> Result<Vec<Process>> {
    let id = i32::try_from(id)?;
    let mut family = vec![Process::new(id)?];
    for process in all_processes()?.flatten() {
        // One that ended meanwhile is nobody's.
        if process.stat().is_ok_and(|stat| stat.ppid == id) {
            family.push(process);
        }
    }
    Ok(family)
}

/// An address that was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}

/// The last lines of a log, to stand behind what went wrong.
pub(crate) fn last_words(log: &Path) -> String {
    const LINES: usize = 5;
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    if last.is_empty() {
        return String::new();
    }
    format!("; it last said:\n{}\n", last.join("\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use procfs::FromRead;

    #[test]
    fn a_status_gives_the_four_figures_in_bytes() {
        // The lines that procfs needs besides.
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
