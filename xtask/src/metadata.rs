//! Metadata of a component, in the custom sections that registries read. `wasm-tools metadata show` prints them, and an
//! OCI registry has them as `org.opencontainers.image.*`.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs;
use std::path::Path;
use wasm_metadata::{
    AddMetadata, AddMetadataField, Authors, Description, Licenses, Revision, Source, Version,
};

/// A component's name, and what its crate's manifest says of it.
#[derive(Debug, PartialEq)]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) package: WorkspacePackage,
}

/// `[workspace.package]`, as far as it is told to others.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct WorkspacePackage {
    pub(crate) version: semver::Version,
    /// Who is responsible.
    pub(crate) authors: Vec<String>,
    /// An SPDX expression.
    pub(crate) license: String,
    /// The URL of the sources, where they have a public one.
    pub(crate) repository: Option<String>,
}

impl WorkspacePackage {
    /// Reads the manifest at the workspace's root.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let manifest = manifest(root)?;
        let package = manifest
            .get("workspace")
            .and_then(|workspace| workspace.get("package"))
            .context("Cargo.toml has no [workspace.package]")?;
        Ok(package.clone().try_into()?)
    }
}

impl About {
    /// Of the component `name`, whose crate is in `folder`.
    pub(crate) fn of_crate(root: &Path, name: &str, folder: &str) -> Result<Self> {
        let manifest = manifest(&root.join(folder))?;
        let description = manifest
            .get("package")
            .and_then(|package| package.get("description"))
            .and_then(toml::Value::as_str)
            .with_context(|| format!("{folder}/Cargo.toml has no description"))?;
        Self::new(root, name, description)
    }

    /// Of the component `name`, which is of no single crate.
    pub(crate) fn new(root: &Path, name: &str, description: &str) -> Result<Self> {
        Ok(Self {
            name: name.into(),
            description: description.into(),
            package: WorkspacePackage::read(root)?,
        })
    }

    /// The component with this in it.
    pub(crate) fn write_to(&self, component: &[u8]) -> Result<Vec<u8>> {
        use AddMetadataField::Set;
        let mut add = AddMetadata::default();
        add.name = Set(self.name.clone());
        add.version = Set(Version::new(self.package.version.to_string()));
        add.description = Set(Description::new(self.description.clone()));
        add.authors = Set(Authors::new(self.package.authors.join(", ")));
        add.licenses = Set(Licenses::new(&self.package.license)?);
        if let Some(repository) = &self.package.repository {
            add.source = Set(Source::new(repository)?);
        }
        add.to_wasm(component)
    }
}

/// The component with the commit that it was made of. Only a release has it: a committed component cannot name the
/// commit that it will be in.
pub(crate) fn write_revision(component: &[u8], revision: &str) -> Result<Vec<u8>> {
    let mut add = AddMetadata::default();
    add.revision = AddMetadataField::Set(Revision::new(revision.to_owned()));
    add.to_wasm(component)
}

fn manifest(folder: &Path) -> Result<toml::Table> {
    let path = folder.join("Cargo.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(toml::from_str(&text)?)
}

/// Returns the metadata of a component, and its commit if it has one.
#[cfg(test)]
pub(crate) fn read(component: &[u8]) -> Result<(About, Option<String>)> {
    let payload = wasm_metadata::Payload::from_binary(component)?;
    let found = payload.metadata();
    let text = |part: Option<String>| part.context("a part is missing");
    let about = About {
        name: text(found.name.clone())?,
        description: text(found.description.as_ref().map(ToString::to_string))?,
        package: WorkspacePackage {
            version: text(found.version.as_ref().map(ToString::to_string))?.parse()?,
            authors: vec![text(found.authors.as_ref().map(ToString::to_string))?],
            license: text(found.licenses.as_ref().map(ToString::to_string))?,
            repository: found.source.as_ref().map(ToString::to_string),
        },
    };
    Ok((about, found.revision.as_ref().map(ToString::to_string)))
}
