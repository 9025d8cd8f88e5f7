//! The structure of the code: crates in layers, files that use each other one way, and one type for each name.

mod crates;
mod files;
mod type_names;

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// The picture of the crates.
const PICTURE: &str = "docs/crates.svg";

/// The crates whose files may not use each other in a circle.
const CRATES: [&str; 6] = [
    "host/ledger",
    "host/millpond",
    "host/origin",
    "host/server",
    "host/cli",
    "guest",
];

/// Crates, and folders of crates, in which a name stands for one type.
const NAMED: [&str; 4] = ["format", "guest", "components", "host"];

/// Names with several definitions of which a program compiles one, each with the reason.
const ALTERNATIVES: [(&str, &str); 1] = [(
    "Certificate",
    "without the feature `tls` the server has no certificates, and a type without values stands for them",
)];

/// Draws the crates, and checks all that [`check`] does but the picture.
///
/// # Errors
/// As [`check`].
pub(crate) fn write(root: &Path) -> Result<()> {
    check_files(root)?;
    let types = check_type_names(root)?;
    println!("{types} names of types, 0 of which stand for several types");
    let picture = crates::picture(root)?;
    fs::write(root.join(PICTURE), picture).with_context(|| format!("cannot write {PICTURE}"))
}

/// Checks the structure, and that the committed picture shows it.
///
/// # Errors
/// - A crate depends on one of a higher layer.
/// - Files of a crate use each other in a circle.
/// - A name stands for two types.
/// - The picture is of other crates.
pub(crate) fn check(root: &Path) -> Result<()> {
    check_files(root)?;
    check_type_names(root)?;
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

/// Checks that each name stands for one type, and returns the number of types.
fn check_type_names(root: &Path) -> Result<usize> {
    let mut definitions = type_names::Definitions::new();
    for folder in source_folders(root)? {
        type_names::collect(&folder, &mut definitions)?;
    }
    let duplicates = type_names::duplicates(&definitions, &ALTERNATIVES);
    let places = |(name, places): &(&str, Vec<&Path>)| format!("{name} ({places:?})");
    let list: Vec<String> = duplicates.iter().map(places).collect();
    let count = definitions.len();
    ensure!(
        duplicates.is_empty(),
        "{count} names of types, {} of which stand for several types: {}",
        duplicates.len(),
        list.join(", ")
    );
    Ok(count)
}

/// The folders `src` of the crates in [`NAMED`].
fn source_folders(root: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for named in NAMED {
        for entry in WalkDir::new(root.join(named)).max_depth(2) {
            let entry = entry.with_context(|| format!("cannot read {named}"))?;
            if entry.file_type().is_dir() && entry.file_name() == "src" {
                folders.push(entry.into_path());
            }
        }
    }
    Ok(folders)
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
