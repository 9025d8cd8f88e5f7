//! The crates without their default features: each combination that leaves something out has to compile.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

/// Combinations of features that are checked, each with its crate.
const COMBINATIONS: [(&str, &str); 5] = [
    ("millpond", ""),
    ("millpond-server", ""),
    ("millpond-server", "admin"),
    ("millpond-server", "http2"),
    ("millpond-server", "tls"),
];

/// Checks each combination. They have a target folder of their own, since their dependencies have fewer features too.
///
/// # Errors
/// When one does not compile, or has a warning.
pub(crate) fn check(root: &Path) -> Result<()> {
    for (package, features) in COMBINATIONS {
        println!("{package} with the features [{features}]");
        let status = Command::new("cargo")
            .current_dir(root)
            .env("RUSTFLAGS", "-D warnings")
            .args(["check", "--locked", "--quiet", "--no-default-features"])
            .args(["--target-dir", "target/features"])
            .args(["--package", package, "--features", features])
            .status()
            .context("cannot run cargo")?;
        ensure!(
            status.success(),
            "{package} does not compile with [{features}]"
        );
    }
    Ok(())
}
