//! The original's server: Express, and a file stream piped into each answer.

use super::{Peer, Place, Series, Settings};
use crate::compare::media::{File, Media};
use crate::program::version;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Express {
    folder: PathBuf,
    version: String,
}

pub(super) fn settings(workspace: &Path) -> Result<Settings> {
    let folder = workspace.join("bench/express");
    crate::express::install(&folder)?;
    let node = version(Path::new("node"), "--version")?;
    let express = std::fs::read(folder.join("node_modules/express/package.json"))?;
    let express: serde_json::Value = serde_json::from_slice(&express)?;
    let express = express["version"].as_str().unwrap_or_default();
    let version = format!("Express {express}, Node {node}");
    Ok(vec![Box::new(Express { folder, version })])
}

impl Peer for Express {
    fn series(&self) -> Series {
        Series::Express
    }

    fn setting(&self) -> &'static str {
        ""
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn command(&self, place: &Place) -> Result<Command> {
        let mut command = Command::new("node");
        command
            .arg(self.folder.join("server.js"))
            .arg(place.folder)
            .env("PORT", place.address.port().to_string())
            .env("NODE_ENV", "production")
            .env_remove("NODE_OPTIONS")
            .env_remove("HANDLERS");
        Ok(command)
    }

    /// It has media by content only.
    fn target(&self, media: &Media, file: File) -> String {
        format!("/api/media/{}", media.id(file))
    }

    fn missing(&self) -> String {
        format!("/api/media/{:064x}", 0)
    }

    fn has_named_files(&self) -> bool {
        false
    }
}
