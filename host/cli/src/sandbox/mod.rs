//! Sandbox of `serve`: the process can open and reach only what the server needs. The kernel enforces it.
//!
//! A restriction holds for the calling thread and for the threads that it starts later, and no thread can lift it. So
//! [`Sandbox::enter`] has to be called before the process starts its first thread. The settings tell by then all that
//! the server needs later.

#[cfg(target_os = "linux")]
mod landlock;
#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "other systems have no sandbox")
)]
mod rules;
#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "other systems have no sandbox")
)]
mod support;
#[cfg(not(target_os = "linux"))]
mod unsupported;

pub(crate) use rules::{PathAccess, SandboxRules};
pub(crate) use support::SandboxSupport;

#[cfg(target_os = "linux")]
use self::landlock as platform;
#[cfg(not(target_os = "linux"))]
use self::unsupported as platform;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use std::fs::File;
use std::io;
use std::path::Path;

/// Use of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SandboxMode {
    /// As far as the kernel has it.
    Auto,
    /// The server does not start unless the kernel enforces all of it.
    On,
    Off,
}

/// The sandbox that the process is in.
#[derive(Debug)]
pub(crate) struct Sandbox {
    mode: SandboxMode,
    support: SandboxSupport,
    /// Handles that the kernel's rules need.
    _held: Vec<File>,
}

impl Sandbox {
    /// Enters the sandbox, if the mode and the kernel allow it. The process must have one thread.
    ///
    /// # Errors
    /// The mode is `on`, and the kernel cannot enforce the whole sandbox. Or a system call failed.
    pub(crate) fn enter(mode: SandboxMode, rules: &SandboxRules) -> Result<Self> {
        let support = match mode {
            SandboxMode::Off => SandboxSupport::None,
            _ => SandboxSupport::of_kernel(),
        };
        if mode == SandboxMode::On {
            ensure!(
                support == SandboxSupport::Whole,
                "--sandbox on: {support}; use Linux 6.12 or later with Landlock, or --sandbox auto"
            );
        }
        let held = match support {
            SandboxSupport::None => Vec::new(),
            _ => platform::enter(rules)?,
        };
        Ok(Sandbox {
            mode,
            support,
            _held: held,
        })
    }

    /// Logs what is in force.
    pub(crate) fn log(&self) {
        match (self.mode, self.support) {
            (SandboxMode::Off, _) => tracing::debug!("no sandbox: --sandbox off"),
            (_, SandboxSupport::Whole) => tracing::debug!("{}", self.support),
            (_, support) => tracing::info!("{support}"),
        }
    }

    /// Whether a file may be out of reach that the server's user can read.
    pub(crate) fn is_in_force(&self) -> bool {
        self.support != SandboxSupport::None
    }
}

impl SandboxSupport {
    /// Asks the kernel.
    pub(crate) fn of_kernel() -> Self {
        platform::support()
    }
}

/// Checks that the sandbox lets a file be read. Other reasons are no error here.
///
/// # Errors
/// The path, the reason, and what to do.
pub(crate) fn check_readable(path: &Path) -> Result<()> {
    // Opening a pipe would wait for a writer.
    if !path.is_file() || !platform::is_permitted(path) {
        return Ok(());
    }
    let is_denied =
        matches!(File::open(path), Err(error) if error.kind() == io::ErrorKind::PermissionDenied);
    ensure!(
        !is_denied,
        "the sandbox does not let {} be read, because the server did not start with a file of that folder: move the \
         file, restart the server, or start it with --sandbox off",
        path.display()
    );
    Ok(())
}
