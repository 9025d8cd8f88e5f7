//! The crates without their default features: each combination that leaves something out has to compile.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

/// Combinations of features that are checked, each with its crate. The server keeps `wasi-http`, so that its dependencies
/// are those that clippy has checked for the workspace.
const COMBINATIONS: [(&str, &str); 11] = [
    ("millpond-server", "wasi-http"),
    ("millpond-server", "wasi-http,admin"),
    ("millpond-server", "wasi-http,http2"),
    ("millpond-server", "wasi-http,tls"),
    ("millpond-server", "wasi-http,uploads"),
    ("millpond-origin", ""),
    ("millpond", ""),
    ("millpond", "uploads"),
    ("millpond-cli", ""),
    ("millpond-cli", "origin"),
    ("millpond-cli", "otlp"),
];

/// Checks each combination.
///
/// # Errors
/// When one does not compile, or has a warning.
pub(crate) fn check(root: &Path) -> Result<()> {
    for (package, features) in COMBINATIONS {
        println!("{package} with the features [{features}]");
        let status = Command::new("cargo")
            .current_dir(root)
            .args(["clippy", "--locked", "--quiet", "--no-default-features"])
            .args(["--package", package, "--features", features])
            .args(["--", "-D", "warnings"])
            .status()
            .context("cannot run cargo")?;
        ensure!(status.success(), "{package} fails with [{features}]");
    }
    Ok(())
}
