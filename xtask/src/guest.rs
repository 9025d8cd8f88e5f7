//! Builds the guests to components, each stamped with the digest of the sources it was built from.
//!
//! The components are committed, so that a stock Rust toolchain runs and tests everything. The stamp lets a test on that
//! toolchain detect a component that is older than its sources.

use crate::metadata::About;
use anyhow::{Context, Result, bail, ensure};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};
use wasm_encoder::{ComponentSection as _, CustomSection};

/// A guest crate and the component that is made of it.
struct Guest {
    /// The package's name.
    package: &'static str,
    /// Its folder, from the workspace's root.
    folder: &'static str,
    /// Where the component is committed, from the workspace's root.
    component: &'static str,
    /// Folders with what else it is built from, from the workspace's root: WIT, and crates of ours.
    beside: &'static [&'static str],
}

impl Guest {
    /// Metadata of the component. Its name is the name of the file.
    fn about(&self, root: &Path) -> Result<About> {
        let name = Path::new(self.component).file_stem().unwrap_or_default();
        About::of_crate(root, &name.to_string_lossy(), self.folder)
    }
}

const GUESTS: [Guest; 6] = [
    Guest {
        package: "millpond-media-serve",
        folder: "components/media-serve",
        component: "host/millpond/component/media-serve.wasm",
        beside: &["wit", "format", "guest"],
    },
    Guest {
        package: "millpond-hostile-guest",
        folder: "tests/guests/hostile",
        component: "tests/guests/hostile.wasm",
        beside: &["wit"],
    },
    Guest {
        package: "millpond-store",
        folder: "components/store",
        component: "components/store.wasm",
        beside: &[
            "wit",
            "components/wit/p2",
            "components/media-store",
            "format",
        ],
    },
    Guest {
        package: "millpond-blobstore",
        folder: "components/blobstore",
        component: "components/blobstore.wasm",
        beside: &[
            "wit",
            "components/wit/p2",
            "components/media-store",
            "format",
        ],
    },
    Guest {
        package: "millpond-http-p2",
        folder: "components/http-p2",
        component: "components/http-p2.wasm",
        beside: &["wit", "components/wit/p2"],
    },
    Guest {
        package: "millpond-http-p3",
        folder: "components/http-p3",
        component: "components/http-p3.wasm",
        beside: &["wit", "components/wit/p3"],
    },
];

/// Target of the guests.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// A small shadow stack keeps the initial memory small. A panic ends in a trap and needs no locations, which would also put
/// this machine's paths into the component.
const RUSTFLAGS: &str = "-C link-arg=-zstack-size=32768 -Z location-detail=none -Z fmt-debug=none";

/// Name of the custom section that holds the digest.
const STAMP: &str = "millpond:sources-sha256";

/// Builds every guest and writes its component beneath `to`: the workspace's root, or a folder that stands
/// in for it.
pub(crate) fn build_all(root: &Path, to: &Path) -> Result<()> {
    let toolchain = Toolchain::find()?;
    compress_assets(root)?;
    for guest in &GUESTS {
        let module = toolchain.build(root, guest)?;
        let component = componentize(&module, &guest.about(root)?, &sources_digest(root, guest)?)
            .with_context(|| format!("cannot make a component of {}", guest.package))?;
        let path = to.join(guest.component);
        fs::create_dir_all(path.parent().unwrap_or(to))?;
        fs::write(&path, &component)?;
        println!("{}: {} bytes", path.display(), component.len());
    }
    Ok(())
}

/// Files of the gallery that the guest includes in gzip, without `.gz`.
const ASSETS: [&str; 2] = [
    "guest/src/listing/gallery.css",
    "guest/src/listing/gallery.js",
];

/// Compresses the files of the gallery that have changed. The others stay as they are, whatever this compressor would make
/// of them.
fn compress_assets(root: &Path) -> Result<()> {
    for asset in ASSETS {
        let source = fs::read(root.join(asset)).with_context(|| format!("cannot read {asset}"))?;
        let compressed = root.join(format!("{asset}.gz"));
        let mut content = Vec::new();
        let read = fs::File::open(&compressed)
            .and_then(|file| GzDecoder::new(file).read_to_end(&mut content));
        if read.is_ok() && content == source {
            continue;
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&source)?;
        fs::write(&compressed, encoder.finish()?)?;
        println!("{}", compressed.display());
    }
    Ok(())
}

/// A Rust toolchain that builds for WebAssembly.
enum Toolchain {
    /// The active one, which has the target installed.
    Installed,
    /// Debian's, which builds the standard library from source.
    Debian { linker: PathBuf },
}

impl Toolchain {
    fn find() -> Result<Self> {
        let output = Command::new("rustc")
            .args(["--print", "target-libdir", "--target", TARGET])
            .output()
            .context("cannot run rustc")?;
        if output.status.success() && Path::new(str::from_utf8(&output.stdout)?.trim()).exists() {
            return Ok(Toolchain::Installed);
        }
        let linker = (15..30)
            .rev()
            .map(|version| PathBuf::from(format!("/usr/bin/wasm-ld-{version}")))
            .find(|linker| linker.exists());
        match linker {
            Some(linker) if Path::new("/usr/bin/cargo").exists() => {
                Ok(Toolchain::Debian { linker })
            }
            _ => bail!(
                "no toolchain here builds for {TARGET}; install one:\n  \
                 with rustup: rustup target add {TARGET}\n  \
                 on Debian:   apt-get install --no-install-recommends rustc-web cargo-web \
                 rust-web-src libstd-rust-web-dev lld-19"
            ),
        }
    }

    /// Builds a guest and returns its core module.
    fn build(&self, root: &Path, guest: &Guest) -> Result<Vec<u8>> {
        let target_dir = root.join("target/guest");
        let mut command = match self {
            Toolchain::Installed => Command::new("cargo"),
            Toolchain::Debian { linker } => {
                let path = env::var("PATH").unwrap_or_default();
                let mut command = Command::new("/usr/bin/cargo");
                command
                    .arg("-Zbuild-std=std,panic_abort")
                    .env("PATH", format!("/usr/bin:{path}"))
                    .env("RUSTC", "/usr/bin/rustc")
                    .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
                command
            }
        };
        command
            .current_dir(root)
            .args(["build", "--locked", "--profile", "guest"])
            .args(["--target", TARGET, "--package", guest.package])
            .env("CARGO_TARGET_DIR", &target_dir)
            // For `-Z`, on a stable toolchain.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", RUSTFLAGS)
            .env_remove("CARGO")
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        let status = command.status().context("cannot run cargo")?;
        ensure!(status.success(), "{} does not build", guest.package);
        let name = format!("{}.wasm", guest.package.replace('-', "_"));
        let path = target_dir.join(TARGET).join("guest").join(name);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

fn componentize(module: &[u8], about: &About, digest: &str) -> Result<Vec<u8>> {
    let component = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)?
        .encode()?;
    let mut component = about.write_to(&component)?;
    CustomSection {
        name: STAMP.into(),
        data: digest.as_bytes().into(),
    }
    .append_to_component(&mut component);
    Ok(component)
}

/// SHA-256 over all inputs of a guest: its sources, the interface, flags and profile, its metadata, and the exact versions
/// of its dependencies.
fn sources_digest(root: &Path, guest: &Guest) -> Result<String> {
    let mut hash = Sha256::new();
    let mut add = |name: &str, content: &[u8]| {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    };
    for folder in guest.beside.iter().chain([&guest.folder]) {
        let entries = walkdir::WalkDir::new(root.join(folder)).sort_by_file_name();
        for entry in entries {
            let entry = entry?;
            if entry.file_type().is_file() {
                let name = entry.path().strip_prefix(root)?;
                add(&name.to_string_lossy(), &fs::read(entry.path())?);
            }
        }
    }
    add("rustflags", RUSTFLAGS.as_bytes());
    add("about", format!("{:?}", guest.about(root)?).as_bytes());
    let manifest: toml::Table = toml::from_str(&fs::read_to_string(root.join("Cargo.toml"))?)?;
    for table in ["profile", "workspace"] {
        let part = match (table, manifest.get(table)) {
            ("profile", Some(profiles)) => profiles.get("guest"),
            (_, Some(workspace)) => workspace.get("dependencies"),
            (_, None) => None,
        };
        let part = part.with_context(|| format!("no part of [{table}] is the guest's"))?;
        add(table, part.to_string().as_bytes());
    }
    for dependency in dependencies(root, guest.package)? {
        add("dependency", dependency.as_bytes());
    }
    Ok(hex::encode(hash.finalize()))
}

/// Name, version and checksum of each package in a guest's code. Dependencies of its tests, of other targets and of other
/// packages of the workspace are left out.
fn dependencies(root: &Path, package: &str) -> Result<BTreeSet<String>> {
    let output = Command::new("cargo")
        .current_dir(root)
        .args(["tree", "--locked", "--package", package, "--target", TARGET])
        .args(["--edges", "normal,build", "--prefix", "none", "--no-dedupe"])
        .args(["--format", "{p}"])
        .output()
        .context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "cargo tree fails: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lock = cargo_lock::Lockfile::load(root.join("Cargo.lock"))?;
    let lines: BTreeSet<&str> = str::from_utf8(&output.stdout)?.lines().collect();
    let mut found = BTreeSet::new();
    for line in lines {
        // `name v1.2.3`, then where it comes from, if not from the registry.
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(version)) = (words.next(), words.next()) else {
            continue;
        };
        let version = version.trim_start_matches('v');
        let locked = lock
            .packages
            .iter()
            .find(|locked| locked.name.as_str() == name && locked.version.to_string() == version)
            .with_context(|| format!("{name} {version} is not in Cargo.lock"))?;
        let checksum = locked.checksum.as_ref().map(ToString::to_string);
        found.insert(format!("{name} {version} {checksum:?}"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use wasmparser::{Parser, Payload};

    fn stamp(component: &[u8]) -> Option<String> {
        Parser::new(0)
            .parse_all(component)
            .find_map(|payload| match payload.unwrap() {
                Payload::CustomSection(section) if section.name() == STAMP => {
                    Some(String::from_utf8(section.data().to_vec()).unwrap())
                }
                _ => None,
            })
    }

    #[test]
    fn the_committed_components_are_built_from_these_sources() {
        let root = crate::workspace_root().unwrap();
        for guest in &GUESTS {
            let component = fs::read(root.join(guest.component)).unwrap();
            let digest = sources_digest(&root, guest).unwrap();
            assert_eq!(
                stamp(&component).as_deref(),
                Some(digest.as_str()),
                "{} is stale: run `cargo xtask guest` and commit what it writes",
                guest.component
            );
        }
    }

    #[test]
    fn the_committed_components_say_what_they_are() {
        let root = crate::workspace_root().unwrap();
        for guest in &GUESTS {
            let component = fs::read(root.join(guest.component)).unwrap();
            let expected = (guest.about(&root).unwrap(), None);
            assert_eq!(crate::metadata::read(&component).unwrap(), expected);
        }
    }

    #[test]
    fn the_component_is_small() {
        let root = crate::workspace_root().unwrap();
        let component = fs::read(root.join(GUESTS[0].component)).unwrap();
        assert!(component.len() <= 192 * 1024, "{} bytes", component.len());
    }

    /// The guest's dependencies on a machine's folders, which would make two builds differ.
    #[test]
    fn the_components_carry_no_path_of_the_machine_that_built_them() {
        let root = crate::workspace_root().unwrap();
        for guest in &GUESTS {
            let component = fs::read(root.join(guest.component)).unwrap();
            for path in [&b"/registry/src"[..], b"/root/", b"/home/"] {
                let found = component.windows(path.len()).any(|window| window == path);
                assert!(!found, "{} names a path", guest.component);
            }
        }
    }
}
