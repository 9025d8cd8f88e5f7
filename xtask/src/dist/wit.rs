//! The interface as a package that a registry takes: `wkg publish` of the file.

use super::release::Release;
use crate::metadata::{self, About};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::fs;
use std::path::Path;
use wit_parser::{PackageId, Resolve};

/// The interface's package, without its version.
const PACKAGE: &str = "millpond:media";

/// Puts the package into `wit/`.
pub(super) fn make(release: &Release) -> Result<()> {
    let package = metadata::write_revision(&encode(&release.root)?, &release.revision)?;
    let name = format!(
        "{}-{}.wasm",
        PACKAGE.replace(':', "-"),
        release.package.version
    );
    fs::write(release.folder("wit")?.join(name), package)?;
    Ok(())
}

/// The package in its binary form, with what wkg.toml says of it.
fn encode(root: &Path) -> Result<Vec<u8>> {
    let (resolve, package) = parse(root)?;
    let name = &resolve.packages[package].name;
    let about = About::new(root, PACKAGE, &Manifest::read(root)?.metadata.description)?;
    ensure!(
        name.version.as_ref() == Some(&about.package.version),
        "wit/ has version {:?} and Cargo.toml {}",
        name.version,
        about.package.version
    );
    about.write_to(&wit_component::encode(&resolve, package)?)
}

fn parse(root: &Path) -> Result<(Resolve, PackageId)> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(root.join("wit"))?;
    Ok((resolve, package))
}

/// wkg.toml, as far as the package's own description goes.
#[derive(Deserialize)]
struct Manifest {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    description: String,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "compared with Cargo.toml by a test")
    )]
    authors: String,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "compared with Cargo.toml by a test")
    )]
    licenses: String,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "compared with Cargo.toml by a test")
    )]
    source: Option<String>,
}

impl Manifest {
    fn read(root: &Path) -> Result<Self> {
        let text = fs::read_to_string(root.join("wkg.toml")).context("cannot read wkg.toml")?;
        Ok(toml::from_str(&text)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::metadata::WorkspacePackage;
    use semver::Version;
    use wit_component::DecodedWasm;
    use wit_parser::Stability;

    #[test]
    fn the_encoded_package_is_the_interface_and_says_what_it_is() {
        let root = crate::workspace_root().unwrap();
        let encoded = encode(&root).unwrap();
        let DecodedWasm::WitPackage(resolve, package) = wit_component::decode(&encoded).unwrap()
        else {
            unreachable!("a package was encoded");
        };
        let package = &resolve.packages[package];
        let expected = WorkspacePackage::read(&root).unwrap();
        assert_eq!(
            package.name.to_string(),
            format!("{PACKAGE}@{}", expected.version)
        );
        assert!(package.worlds.contains_key("media-guest"));
        assert!(package.interfaces.contains_key("media-serve"));
        let (about, revision) = metadata::read(&encoded).unwrap();
        assert_eq!((about.package, revision), (expected, None));
    }

    #[test]
    fn everything_in_the_interface_is_stable_since_a_version_that_there_was() {
        let root = crate::workspace_root().unwrap();
        let (resolve, package) = parse(&root).unwrap();
        let version = WorkspacePackage::read(&root).unwrap().version;
        assert_eq!(without_since(&resolve, package, &version), [""; 0]);
        let earlier = Version::new(0, 0, 1);
        assert!(without_since(&resolve, package, &earlier).contains(&"media-serve".to_owned()));
    }

    #[test]
    fn wkg_toml_says_what_cargo_toml_says() {
        let root = crate::workspace_root().unwrap();
        let said = Manifest::read(&root).unwrap().metadata;
        let package = WorkspacePackage::read(&root).unwrap();
        assert_eq!(said.authors, package.authors.join(", "));
        assert_eq!(said.licenses, package.license);
        assert_eq!(said.source, package.repository);
    }

    /// Every item of the interface that is not told to be stable since a version that there was.
    fn without_since(resolve: &Resolve, package: PackageId, version: &Version) -> Vec<String> {
        let package = &resolve.packages[package];
        let mut items = Vec::new();
        for (name, world) in &package.worlds {
            items.push((name.clone(), &resolve.worlds[*world].stability));
        }
        for (name, interface) in &package.interfaces {
            let interface = &resolve.interfaces[*interface];
            items.push((name.clone(), &interface.stability));
            for (item, id) in &interface.types {
                items.push((format!("{name}/{item}"), &resolve.types[*id].stability));
            }
            for (item, function) in &interface.functions {
                items.push((format!("{name}/{item}"), &function.stability));
            }
        }
        items.retain(|(_, stability)| {
            !matches!(stability, Stability::Stable { since, deprecated: _ } if since <= version)
        });
        items.into_iter().map(|(name, _)| name).collect()
    }
}
