//! The structure of the code: crates in layers, and files that use each other one way.

mod crates;
mod files;

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

/// The picture of the crates.
const PICTURE: &str = "docs/crates.svg";

/// The crates whose files may not use each other in a circle.
const CRATES: [&str; 5] = [
    "host/ledger",
    "host/millpond",
    "host/server",
    "host/cli",
    "guest",
];

/// Draws the crates, and checks all that [`check`] does but the picture.
///
/// # Errors
/// As [`check`].
pub(crate) fn write(root: &Path) -> Result<()> {
    check_files(root)?;
    let picture = crates::picture(root)?;
    fs::write(root.join(PICTURE), picture).with_context(|| format!("cannot write {PICTURE}"))
}

/// Checks the structure, and that the committed picture shows it.
///
/// # Errors
/// When a crate depends on one of a higher layer, when files of a crate use each other in a circle, and when the picture
/// is of other crates.
pub(crate) fn check(root: &Path) -> Result<()> {
    check_files(root)?;
    let picture = crates::picture(root)?;
    let committed = fs::read_to_string(root.join(PICTURE));
    let committed = committed.with_context(|| format!("cannot read {PICTURE}"))?;
    ensure!(
        committed == picture,
        "{PICTURE} shows other crates: run cargo xtask structure"
    );
    Ok(())
}

fn check_files(root: &Path) -> Result<()> {
    for name in CRATES {
        let circles = files::circles(&root.join(name))?;
        ensure!(
            circles.is_empty(),
            "{name}: files use each other in a circle: {circles:?}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn crates_and_files_use_each_other_one_way() {
        check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
    }
}
