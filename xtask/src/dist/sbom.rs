//! Lists of what is inside an artifact, in CycloneDX: for each package its version, licence and checksum, and what it
//! depends on. They have neither a time nor a serial number, so that the same artifact has the same list.

use super::release::Release;
use anyhow::{Context, Result, ensure};
use cargo_lock::Lockfile;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use cyclonedx_bom::external_models::uri::Purl;
use cyclonedx_bom::models::bom::{Bom, SpecVersion};
use cyclonedx_bom::models::component::{Classification, Component, Components};
use cyclonedx_bom::models::dependency::{Dependencies, Dependency};
use cyclonedx_bom::models::hash::{Hash, HashAlgorithm, HashValue, Hashes};
use cyclonedx_bom::models::license::{LicenseChoice, Licenses};
use cyclonedx_bom::validation::Validate;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What a list is of.
pub(super) struct Subject<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Kind,
    /// The workspace's crates that it is made of.
    pub(super) crates: &'a [&'a str],
    /// The target that they are built for.
    pub(super) target: &'a str,
}

/// Whether something runs by itself.
pub(super) enum Kind {
    Program,
    Library,
}

/// Writes the list of an artifact that is made of crates of the workspace, and returns the names and versions in it.
///
/// Listed is what code of the artifact comes from, macros too, as in the list inside the program. What build scripts need
/// is not.
pub(super) fn write(
    release: &Release,
    subject: &Subject,
    to: &Path,
) -> Result<BTreeSet<(String, String)>> {
    let metadata = MetadataCommand::new()
        .current_dir(&release.root)
        .other_options(["--locked", "--filter-platform", subject.target].map(String::from))
        .exec()?;
    let lock = Lockfile::load(release.root.join("Cargo.lock"))?;
    let found = reachable(&metadata, subject.crates)?;
    let component = |package: &Package| component(package, &lock);
    let bom = Bom {
        version: 1,
        spec_version: SpecVersion::V1_5,
        metadata: Some(cyclonedx_bom::models::metadata::Metadata {
            component: Some(whole(release, subject)),
            ..Default::default()
        }),
        components: Some(Components(
            found
                .values()
                .map(|(package, _)| component(package))
                .collect::<Result<_>>()?,
        )),
        dependencies: Some(Dependencies(dependencies(release, subject, &found))),
        serial_number: None,
        ..Default::default()
    };
    let validity = bom.validate_version(SpecVersion::V1_5);
    ensure!(validity.passed(), "{}: {validity:?}", subject.name);
    let mut text = Vec::new();
    bom.output_as_json(&mut text, SpecVersion::V1_5)?;
    fs::write(to, text)?;
    Ok(found.into_keys().collect())
}

/// Writes a list that another tool made of our package, without the time and the number that this tool gave it.
pub(super) fn write_foreign(list: &[u8], to: &Path) -> Result<()> {
    let mut list: Value = serde_json::from_slice(list).context("a list that is not JSON")?;
    let fields = list.as_object_mut().context("a list that is no object")?;
    fields.remove("serialNumber");
    let metadata = fields.get_mut("metadata").and_then(Value::as_object_mut);
    let metadata = metadata.context("a list without metadata")?;
    metadata.remove("timestamp");
    // npm names a package after its folder here.
    let package = metadata.get_mut("component").context("a list of nothing")?;
    package["name"] = "millpond".into();
    fs::write(to, serde_json::to_vec_pretty(&list)?)?;
    Ok(())
}

/// Packages by name and version, each with those that it depends on.
type Found<'a> = BTreeMap<(String, String), (&'a Package, BTreeSet<(String, String)>)>;

/// What can be reached from these crates by dependencies whose code gets into what is built.
fn reachable<'a>(metadata: &'a Metadata, crates: &[&str]) -> Result<Found<'a>> {
    let resolve = metadata.resolve.as_ref().context("nothing is resolved")?;
    let packages: BTreeMap<&PackageId, &Package> =
        metadata.packages.iter().map(|p| (&p.id, p)).collect();
    let members = metadata.workspace_packages();
    let mut waiting = Vec::new();
    for name in crates {
        let member = members.iter().find(|member| member.name == *name);
        waiting.push(&member.with_context(|| format!("there is no {name}"))?.id);
    }
    let mut found = Found::new();
    while let Some(id) = waiting.pop() {
        let package = packages[id];
        if found.contains_key(&key(package)) {
            continue;
        }
        let node = resolve.nodes.iter().find(|node| node.id == *id);
        let needed: Vec<&Package> = node
            .with_context(|| format!("{id} is not resolved"))?
            .deps
            .iter()
            .filter(|dep| {
                dep.dep_kinds
                    .iter()
                    .any(|kind| kind.kind == DependencyKind::Normal)
            })
            .map(|dep| packages[&dep.pkg])
            .collect();
        waiting.extend(needed.iter().map(|package| &package.id));
        let needed = needed.into_iter().map(key).collect();
        found.insert(key(package), (package, needed));
    }
    Ok(found)
}

fn key(package: &Package) -> (String, String) {
    (package.name.to_string(), package.version.to_string())
}

/// The name of a package within a list, and in the lists of others: a package URL.
fn url((name, version): &(String, String)) -> String {
    format!("pkg:cargo/{name}@{version}")
}

/// The artifact itself.
fn whole(release: &Release, subject: &Subject) -> Component {
    let kind = match subject.kind {
        Kind::Program => Classification::Application,
        Kind::Library => Classification::Library,
    };
    let version = release.package.version.to_string();
    let mut whole = Component::new(
        kind,
        subject.name,
        &version,
        Some(whole_ref(release, subject)),
    );
    whole.licenses = Some(licenses(&release.package.license));
    whole
}

fn whole_ref(release: &Release, subject: &Subject) -> String {
    format!(
        "{}@{}#{}",
        subject.name, release.package.version, subject.target
    )
}

fn component(package: &Package, lock: &Lockfile) -> Result<Component> {
    let (name, version) = key(package);
    let reference = url(&(name.clone(), version.clone()));
    let mut component = Component::new(Classification::Library, &name, &version, Some(reference));
    component.purl = Some(Purl::new("cargo", &name, &version)?);
    component.licenses = package.license.as_deref().map(licenses);
    let locked = lock
        .packages
        .iter()
        .find(|locked| locked.name.as_str() == name && locked.version.to_string() == version);
    let locked = locked.with_context(|| format!("{name} {version} is not in Cargo.lock"))?;
    // The workspace's own crates have no checksum.
    component.hashes = locked.checksum.as_ref().map(|checksum| {
        Hashes(vec![Hash {
            alg: HashAlgorithm::SHA_256,
            content: HashValue(checksum.to_string()),
        }])
    });
    Ok(component)
}

/// Older manifests have a `/` between licences for the `OR` of SPDX.
fn licenses(expression: &str) -> Licenses {
    let expression = expression.replace('/', " OR ");
    Licenses(vec![LicenseChoice::expression(&expression)])
}

fn dependencies(release: &Release, subject: &Subject, found: &Found) -> Vec<Dependency> {
    let own = found
        .keys()
        .filter(|(name, _)| subject.crates.contains(&name.as_str()));
    let whole = Dependency {
        dependency_ref: whole_ref(release, subject),
        dependencies: own.map(url).collect(),
    };
    let others = found.iter().map(|(package, (_, needed))| Dependency {
        dependency_ref: url(package),
        dependencies: needed.iter().map(url).collect(),
    });
    std::iter::once(whole).chain(others).collect()
}
