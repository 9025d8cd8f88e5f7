//! The machine and the programs that figures were taken on: without them, figures mean little.

use procfs::Current;
use serde::Serialize;
use std::path::Path;
use std::process::Command;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    pub(crate) node: String,
    pub(crate) millpond: String,
}

impl Machine {
    /// Describes this machine. Unknown values are empty or zero.
    pub(crate) fn describe(millpond: &Path) -> Self {
        let kernel = rustix::system::uname();
        let cpus = procfs::CpuInfo::current().ok();
        Machine {
            cpu: cpus
                .and_then(|cpus| cpus.model_name(0).map(str::to_owned))
                .unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: procfs::Meminfo::current().map_or(0, |memory| memory.mem_total),
            kernel: format!(
                "{} {}",
                kernel.sysname().to_string_lossy(),
                kernel.release().to_string_lossy()
            ),
            node: version(Path::new("node")),
            millpond: version(millpond),
        }
    }
}

/// Which commit a workspace is at, and whether it has changes beside; empty where git does not tell.
pub(crate) fn commit(workspace: &Path) -> String {
    said(Command::new("git").current_dir(workspace).args([
        "describe",
        "--always",
        "--exclude=*",
        "--abbrev=12",
        "--dirty",
    ]))
}

fn version(program: &Path) -> String {
    said(Command::new(program).arg("--version"))
}

fn said(command: &mut Command) -> String {
    command.output().map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
