//! The listing of everything public in the library, so that a change of it is seen when it is made.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const LISTING: &str = "docs/public-api.txt";

/// The format of rustdoc's JSON that is read here: that of Rust 1.95.
const FORMAT: u32 = 57;

/// Says to this program that it stands for rustdoc, and which one.
const RUSTDOC: &str = "XTASK_RUSTDOC";

/// Writes the listing.
pub(crate) fn write(root: &Path) -> Result<()> {
    let listing = listing(root)?;
    let listing =
        listing.context("this toolchain's rustdoc writes another format; take Rust 1.95")?;
    fs::write(root.join(LISTING), listing).with_context(|| format!("cannot write {LISTING}"))
}

/// Checks that the committed listing is the present one. With a toolchain that cannot tell, that is said.
pub(crate) fn check(root: &Path) -> Result<()> {
    let Some(listing) = listing(root)? else {
        println!("not checked: {LISTING} (another toolchain than Rust 1.95)");
        return Ok(());
    };
    let committed = fs::read_to_string(root.join(LISTING));
    let committed = committed.with_context(|| format!("cannot read {LISTING}"))?;
    ensure!(
        committed == listing,
        "the public API is not as in {LISTING}: run cargo xtask public-api, and see what changed"
    );
    Ok(())
}

/// Everything public in the library, an item a line; none where rustdoc writes another format.
fn listing(root: &Path) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Format {
        format_version: u32,
    }
    let json = rustdoc_json(root)?;
    let text = fs::read_to_string(&json).context("rustdoc wrote no JSON")?;
    let Format { format_version } = serde_json::from_str(&text)?;
    if format_version != FORMAT {
        return Ok(None);
    }
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    Ok(Some(api.to_string()))
}

/// Has rustdoc describe the library in JSON, which a stable one does only when it is told to take itself for an
/// unstable one. Dependencies must not be told: some of them would be built differently.
fn rustdoc_json(root: &Path) -> Result<PathBuf> {
    let this = env::current_exe()?;
    let target = this.parent().and_then(Path::parent);
    let target = target.context("this program is not where cargo puts it")?;
    let rustdoc = env::var_os("RUSTDOC").unwrap_or_else(|| "rustdoc".into());
    let status = Command::new("cargo")
        .current_dir(root)
        .args(["rustdoc", "--package", "millpond", "--lib", "--locked"])
        .arg("--target-dir")
        .arg(target)
        .args(["--", "-Z", "unstable-options", "--output-format", "json"])
        .env("RUSTDOC", &this)
        .env(RUSTDOC, rustdoc)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "cargo rustdoc fails");
    Ok(target.join("doc/millpond.json"))
}

/// Where cargo runs this program as rustdoc, runs that and ends as it does.
pub(crate) fn stand_for_rustdoc() -> Result<()> {
    let Some(rustdoc) = env::var_os(RUSTDOC) else {
        return Ok(());
    };
    let status = Command::new(rustdoc)
        .args(env::args_os().skip(1))
        .env("RUSTC_BOOTSTRAP", "1")
        .status()
        .context("cannot run rustdoc")?;
    exit(status.code().unwrap_or(1))
}
