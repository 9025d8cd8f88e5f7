//! `SHA256SUMS`: what `sha256sum --check` reads.

use anyhow::Result;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const FILE: &str = "SHA256SUMS";

/// Writes the digests of all artifacts beneath `out` beside them, and prints what they are and their sizes in bytes.
pub(super) fn write(out: &Path) -> Result<()> {
    let digests = of(out)?;
    let lines = digests
        .iter()
        .map(|(name, digest)| format!("{digest}  {name}\n"));
    fs::write(out.join(FILE), lines.collect::<String>())?;
    for name in digests.keys() {
        println!("{:>10} {name}", fs::metadata(out.join(name))?.len());
    }
    Ok(())
}

/// The SHA-256 of each artifact beneath `out`, by its path from there.
pub(super) fn of(out: &Path) -> Result<BTreeMap<String, String>> {
    let mut digests = BTreeMap::new();
    for entry in walkdir::WalkDir::new(out) {
        let entry = entry?;
        let name = entry.path().strip_prefix(out)?.to_string_lossy();
        if entry.file_type().is_file() && name != FILE {
            let digest = hex::encode(Sha256::digest(fs::read(entry.path())?));
            digests.insert(name.into_owned(), digest);
        }
    }
    Ok(digests)
}
