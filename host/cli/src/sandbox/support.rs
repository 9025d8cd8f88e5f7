//! Support of the kernel for the sandbox.

use std::fmt;

/// Extent to which the kernel enforces the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SandboxSupport {
    /// Files, TCP ports, signals and abstract UNIX domain sockets.
    Whole,
    /// Files, and not all of the others.
    Partial,
    None,
}

impl fmt::Display for SandboxSupport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SandboxSupport::Whole => "the kernel enforces the sandbox",
            SandboxSupport::Partial => "the kernel enforces a part of the sandbox",
            SandboxSupport::None => "the kernel has no sandbox (Landlock)",
        })
    }
}
