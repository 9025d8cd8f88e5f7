//! Makes all that a release is: `cargo xtask dist`.

mod archive;
mod check;
mod components;
mod host;
mod node;
mod python;
mod release;
mod sbom;
mod sums;
mod wit;

pub(crate) use check::check;

use anyhow::Result;
use release::Release;
use std::fs;
use std::path::Path;

/// Makes every artifact beneath `dist/` anew, and `dist/SHA256SUMS` over them.
pub(crate) fn make(root: &Path) -> Result<()> {
    let release = Release::of(root)?;
    if release.out.exists() {
        fs::remove_dir_all(&release.out)?;
    }
    // First what takes little, so that what is missing here is said soon.
    wit::make(&release)?;
    components::make(&release)?;
    node::make(&release)?;
    python::make(&release)?;
    host::make(&release)?;
    sums::write(&release.out)
}
