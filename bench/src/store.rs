//! A store of media by content, made by `millpond add`, which knows how one lies.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file in the store, as it is asked for.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Media {
    pub(crate) path: String,
    pub(crate) size: u64,
}

/// Adds files, or folders of them, to a store. Returns media that was there already, like new media.
pub(crate) fn add(millpond: &Path, files: &[PathBuf], store: &Path) -> Result<Vec<Media>> {
    let output = Command::new(millpond)
        .arg("add")
        .args(files)
        .arg("--store")
        .arg(store)
        .arg("--json")
        .output()
        .with_context(|| {
            format!(
                "cannot run {}; `cargo build --profile dist` makes it",
                millpond.display()
            )
        })?;
    ensure!(
        output.status.success(),
        "millpond add fails: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8(output.stdout)
        .context("millpond add printed no text")?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("millpond add printed what is not understood")
}
