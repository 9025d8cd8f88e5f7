//! The package for Python, with the component inside.

use super::release::{Release, run};
use super::sbom;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// What builds the package, exactly: another version may write another archive.
const BUILDERS: [&str; 3] = ["build==1.6.1", "cyclonedx-bom==7.5.0", "hatchling==1.33.0"];

/// Puts the source distribution and the wheel into `python/`, and the list of what is installed with them.
pub(super) fn make(release: &Release) -> Result<()> {
    let folder = release.folder("python")?;
    let scratch = release.root.join("target/dist-python");
    let source = release.root.join("plugins/python");
    let builders = environment(release, &scratch.join("builders"))?;
    run(pip(release, &builders).arg("install").args(BUILDERS))?;
    run(release
        .command(&builders)
        .args(["-m", "build", "--no-isolation", "--outdir"])
        .args([&folder, &source]))?;
    let name = format!("millpond-{}", release.package.version);
    let wheel = folder.join(format!("{name}-py3-none-any.whl"));
    let users = environment(release, &scratch.join("users"))?;
    run(pip(release, &users).arg("install").arg(&wheel))?;
    // What is left is what it depends on; itself it would be listed with the place it was installed from.
    run(pip(release, &users).args(["uninstall", "--yes", "millpond", "pip", "setuptools"]))?;
    let list = scratch.join("list.json");
    run(release
        .command(&builders)
        .args(["-m", "cyclonedx_py", "environment", "--output-reproducible"])
        .args(["--mc-type", "library", "--output-file"])
        .arg(&list)
        .arg("--pyproject")
        .arg(source.join("pyproject.toml"))
        .arg(&users))?;
    let list = fs::read(&list).context("cyclonedx-py wrote no list")?;
    sbom::write_foreign(&list, &folder.join(format!("{name}.cdx.json")))
}

/// A fresh environment in that folder: its interpreter.
fn environment(release: &Release, folder: &Path) -> Result<PathBuf> {
    let create = ["-m", "venv", "--clear"];
    run(release.command("python3").args(create).arg(folder))?;
    Ok(folder.join("bin/python"))
}

fn pip(release: &Release, python: &Path) -> std::process::Command {
    let mut command = release.command(python);
    command.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
    command
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::metadata::WorkspacePackage;
    use std::fs;

    #[test]
    fn the_package_has_the_workspace_s_version_and_licence() {
        let root = crate::workspace_root().unwrap();
        let text = fs::read_to_string(root.join("plugins/python/pyproject.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&text).unwrap();
        let package = WorkspacePackage::read(&root).unwrap();
        let project = &manifest["project"];
        assert_eq!(
            project["version"].as_str().unwrap(),
            package.version.to_string()
        );
        assert_eq!(project["license"].as_str().unwrap(), package.license);
    }
}
