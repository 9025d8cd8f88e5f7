//! The package for Node, with the component inside.

use super::release::{Release, output, run};
use super::sbom;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Puts the package into `npm/`, and its list of what is inside. npm gives the files a time of its own.
pub(super) fn make(release: &Release) -> Result<()> {
    let source = release.root.join("plugins/node");
    let folder = release.folder("npm")?;
    let npm = || {
        let mut command = release.command("npm");
        command.current_dir(&source);
        command
    };
    run(npm().args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]))?;
    run(npm().args(["run", "build"]))?;
    let pack = ["pack", "--ignore-scripts", "--json", "--pack-destination"];
    let packed: Value = serde_json::from_slice(&output(npm().args(pack).arg(&folder))?)?;
    // A list of packages, or by their names, as npm's version has it.
    let packed = packed.get(0).or_else(|| packed.get("millpond"));
    let version = packed.and_then(|package| package["version"].as_str());
    let name = packed.and_then(|package| package["filename"].as_str());
    ensure!(
        version == Some(&release.package.version.to_string()),
        "plugins/node/package.json has version {version:?} and Cargo.toml {}",
        release.package.version
    );
    let name = name.context("npm does not say what it packed")?;
    let list = ["sbom", "--sbom-format", "cyclonedx", "--omit", "dev"];
    let list = output(npm().args(list).arg("--package-lock-only"))?;
    let name = name.trim_end_matches(".tgz");
    sbom::write_foreign(&list, &folder.join(format!("{name}.cdx.json")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::metadata::WorkspacePackage;
    use std::fs;

    #[test]
    fn the_package_has_the_workspace_s_version_and_licence() {
        let root = crate::workspace_root().unwrap();
        let text = fs::read(root.join("plugins/node/package.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let package = WorkspacePackage::read(&root).unwrap();
        assert_eq!(manifest["version"], package.version.to_string());
        assert_eq!(manifest["license"], package.license);
    }
}
