//! The listing of everything public in the libraries, so that a change of it is seen when it is made.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const LISTING: &str = "docs/public-api.txt";

/// The libraries, by their names in code, lowest first.
const LIBRARIES: [&str; 4] = [
    "millpond_ledger",
    "millpond",
    "millpond_origin",
    "millpond_server",
];

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

/// Everything public in the libraries, an item a line; none where rustdoc writes another format.
fn listing(root: &Path) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Format {
        format_version: u32,
    }
    let mut listing = String::new();
    for json in rustdoc_json(root)? {
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
        listing += &api.to_string();
    }
    Ok(Some(listing))
}

/// Documents the workspace and has rustdoc describe each library in JSON beside its pages.
fn rustdoc_json(root: &Path) -> Result<Vec<PathBuf>> {
    let this = env::current_exe()?;
    let target = this.parent().and_then(Path::parent);
    let target = target.context("this program is not where cargo puts it")?;
    let document = ["--target-dir".as_ref(), target.as_os_str()];
    cargo(
        root,
        &this,
        &[&DOCUMENT.map(OsStr::new)[..], &document].concat(),
    )?;
    // Pages that were there already may come from a `cargo doc` without this program.
    let written = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let json_of = |name: &&str| target.join(format!("doc/{name}.json"));
    let is_of_this = |name: &&str| {
        let page = target.join("doc").join(name).join("index.html");
        written(&json_of(name)).is_ok_and(|json| written(&page).is_ok_and(|page| page <= json))
    };
    if !LIBRARIES.iter().all(is_of_this) {
        cargo(
            root,
            &this,
            &[&["clean".as_ref(), "--doc".as_ref()], &document[..]].concat(),
        )?;
        cargo(
            root,
            &this,
            &[&DOCUMENT.map(OsStr::new)[..], &document].concat(),
        )?;
    }
    Ok(LIBRARIES.iter().map(json_of).collect())
}

/// Documents all libraries, examples and programs. The examples have the dependencies of the tests, so the
/// task reuses the build of clippy. `cargo doc --workspace` would compile most of it with other features.
const DOCUMENT: [&str; 10] = [
    "doc",
    "--workspace",
    "--no-deps",
    "--locked",
    "--lib",
    "--examples",
    "--bin",
    "xtask",
    "--bin",
    "millpond-bench",
];

fn cargo(root: &Path, this: &Path, arguments: &[&OsStr]) -> Result<()> {
    let rustdoc = env::var_os("RUSTDOC").unwrap_or_else(|| "rustdoc".into());
    let mut command = Command::new("cargo");
    command
        .current_dir(root)
        .args(arguments)
        .env("RUSTDOC", this)
        .env("RUSTDOCFLAGS", "-D warnings")
        .env(RUSTDOC, rustdoc);
    println!("{command:?}");
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo doc fails");
    Ok(())
}

/// Where cargo runs this program as rustdoc, runs that and ends as it does. The library is described in JSON too. A stable
/// rustdoc does that only when it is told to take itself for an unstable one.
pub(crate) fn stand_for_rustdoc() -> Result<()> {
    let Some(rustdoc) = env::var_os(RUSTDOC) else {
        return Ok(());
    };
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let mut pages = Command::new(&rustdoc);
    pages.args(&arguments);
    let mut status = pages.status().context("cannot run rustdoc")?;
    let has = |option: &str, value: &str| {
        let mut pairs = arguments.windows(2);
        pairs.any(|pair| pair[0] == option && pair[1] == value)
    };
    let is_library = LIBRARIES.iter().any(|name| has("--crate-name", name));
    if status.success() && is_library && has("--crate-type", "lib") {
        let mut json = Command::new(&rustdoc);
        json.args(&arguments)
            .args(["-Z", "unstable-options", "--output-format", "json"])
            .env("RUSTC_BOOTSTRAP", "1");
        status = json.status().context("cannot run rustdoc")?;
    }
    exit(status.code().unwrap_or(1))
}
