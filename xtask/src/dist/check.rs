//! Makes a release twice, in two folders, and compares: what is published can be made again by anybody.

use super::release::{Release, run};
use super::{make, sums};
use anyhow::{Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Makes the release here and in a fresh clone of the same commit in another folder, with nothing that was built
/// before, and compares the digests of all that came out.
pub(crate) fn check(root: &Path) -> Result<()> {
    let release = Release::of(root)?;
    ensure!(
        !release.revision.ends_with("-dirty"),
        "there are changes that are not committed, which the clone would not have"
    );
    let clone = root.join("target/dist-check/in-a-folder-of-another-name");
    if clone.exists() {
        fs::remove_dir_all(&clone)?;
    }
    run(release
        .command("git")
        .args(["clone", "--quiet"])
        .args([root, clone.as_path()]))?;
    make(root)?;
    make(&clone)?;
    compare(&release.out, &clone.join("dist"))
}

fn compare(here: &Path, there: &Path) -> Result<()> {
    let (here, there) = (sums::of(here)?, sums::of(there)?);
    let names: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
    let (same, different): (Vec<&String>, Vec<&String>) = names
        .into_iter()
        .partition(|name| here.get(*name) == there.get(*name));
    println!("the same in both folders: {}", same.len());
    ensure!(
        different.is_empty(),
        "not the same in both folders: {different:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_differs_or_is_missing_is_told() {
        let folder = std::env::temp_dir().join(format!("millpond-check-{}", std::process::id()));
        let (here, there) = (folder.join("here"), folder.join("there"));
        for side in [&here, &there] {
            fs::create_dir_all(side.join("kind")).unwrap();
            fs::write(side.join("kind/same"), "same").unwrap();
        }
        assert!(compare(&here, &there).is_ok());
        fs::write(here.join("kind/other"), "one").unwrap();
        fs::write(there.join("kind/other"), "two").unwrap();
        fs::write(there.join("kind/more"), "more").unwrap();
        let error = compare(&here, &there).unwrap_err().to_string();
        assert!(error.ends_with(r#"["kind/more", "kind/other"]"#), "{error}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
