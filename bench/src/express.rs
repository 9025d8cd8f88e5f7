//! The original's server, which `express/server.js` is written after.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::{Command, Stdio};

/// Installs what it needs into its folder, unless it is there.
pub(crate) fn install(folder: &Path) -> Result<()> {
    if folder.join("node_modules").is_dir() {
        return Ok(());
    }
    eprintln!("npm ci in {}", folder.display());
    let status = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .status()
        .context("cannot run npm")?;
    ensure!(status.success(), "npm ci fails");
    Ok(())
}
