//! The program, with the list of its dependencies inside.

use super::archive::{self, Entry};
use super::release::{Release, run};
use super::sbom;
use anyhow::{Context, Result, ensure};
use auditable_serde::DependencyKind;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// What lies beside the program in its archive.
const DOCUMENTS: [&str; 4] = ["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "README.md"];

/// Puts the archive into `host/`, and the program's list of what is inside.
pub(super) fn make(release: &Release) -> Result<()> {
    let program = build(release)?;
    let folder = release.folder("host")?;
    let name = format!("millpond-{}-{}", release.package.version, release.triple);
    let documents = DOCUMENTS.map(|document| (document, release.root.join(document)));
    let mut entries: Vec<Entry> = documents
        .iter()
        .map(|(name, from)| Entry {
            name,
            from,
            mode: 0o644,
        })
        .collect();
    entries.push(Entry {
        name: "millpond",
        from: &program,
        mode: 0o755,
    });
    archive::write(release, &folder, &name, &entries)?;
    let subject = sbom::Subject {
        name: "millpond",
        kind: sbom::Kind::Program,
        crates: &["millpond-cli"],
        target: &release.triple,
    };
    let listed = sbom::write(release, &subject, &folder.join(format!("{name}.cdx.json")))?;
    // Which macros it counts as compiled in is its own matter.
    let (inside, at_most) = embedded(&program)?;
    ensure!(
        inside.is_subset(&listed) && listed.is_subset(&at_most),
        "the list inside the program and the one beside it differ: {:?} {:?}",
        inside.difference(&listed).collect::<Vec<_>>(),
        listed.difference(&at_most).collect::<Vec<_>>()
    );
    Ok(())
}

/// Builds the program so that it is the same in whatever folder: no path of this machine gets into it.
fn build(release: &Release) -> Result<PathBuf> {
    let target_dir = release.root.join("target/dist-host");
    let cargo_home = cargo_home()?;
    let places = [
        (release.root.as_path(), "/millpond"),
        (cargo_home.as_path(), "/cargo"),
    ];
    let renamed = |flag: &str, separator: &str| {
        let flags = places.map(|(from, to)| format!("{flag}={}={to}", from.display()));
        flags.join(separator)
    };
    let status = run(release
        .command("cargo")
        .args(["auditable", "build", "--locked", "--profile", "dist"])
        .args([
            "--package",
            "millpond-cli",
            "--bin",
            "millpond",
            "--target-dir",
        ])
        .arg(&target_dir)
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            renamed("--remap-path-prefix", "\x1f"),
        )
        .env("CFLAGS", renamed("-ffile-prefix-map", " "))
        .env("CARGO_INCREMENTAL", "0")
        // This runs in a cargo of its own.
        .env_remove("CARGO"));
    status.context("with cargo-auditable: `cargo install --locked cargo-auditable`")?;
    let program = target_dir.join("dist/millpond");
    let bytes = fs::read(&program)?;
    for (place, _) in places {
        let place = place.as_os_str().as_encoded_bytes();
        let found = bytes.windows(place.len()).any(|window| window == place);
        ensure!(!found, "the program names a folder of this machine");
    }
    Ok(program)
}

/// Where cargo keeps the sources of dependencies.
fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = env::home_dir().context("there is no home directory")?;
    Ok(home.join(".cargo"))
}

/// Names and versions of packages.
type Packages = BTreeSet<(String, String)>;

/// What the list inside the program says that it is made of, and the same with what was only there when it was built.
fn embedded(program: &Path) -> Result<(Packages, Packages)> {
    let list = auditable_info::audit_info_from_file(program, Default::default())
        .map_err(|error| anyhow::anyhow!("no list inside the program: {error}"))?;
    let (mut inside, mut all) = (Packages::new(), Packages::new());
    for package in list.packages {
        let key = (package.name, package.version.to_string());
        if package.kind == DependencyKind::Runtime {
            inside.insert(key.clone());
        }
        all.insert(key);
    }
    Ok((inside, all))
}
