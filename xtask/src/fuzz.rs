//! Runs the fuzz targets of `tests/fuzz` through `cargo fuzz`.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

const FUZZ: &str = "tests/fuzz";

/// Fuzzes with that target: from what it has found before, and from the seeds, where there are some. Arguments that
/// are no options are inputs, which are run in place of all that.
pub(crate) fn run(root: &Path, target: &str, arguments: &[String]) -> Result<()> {
    let folder = root.join(FUZZ);
    let corpus = folder.join("corpus").join(target);
    fs::create_dir_all(&corpus)?;
    let mut command = Command::new("cargo");
    command
        .current_dir(root)
        // Coverage is an unstable option of the compiler, any of which takes it so. Without a sanitizer: what is
        // fuzzed has no unsafe code of its own but for a few system calls.
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["fuzz", "run", "--fuzz-dir", FUZZ, "--sanitizer", "none"])
        .args(["--features", "libfuzzer"])
        .arg(target);
    let (options, inputs): (Vec<_>, Vec<_>) = arguments
        .iter()
        .partition(|argument| argument.starts_with('-'));
    let seeds = folder.join("seeds").join(target);
    if !inputs.is_empty() {
        command.args(inputs);
    } else if seeds.is_dir() {
        command.arg(corpus).arg(seeds);
    } else {
        command.arg(corpus);
    }
    command.args(["--", "-max_total_time=600"]);
    let words = folder.join(format!("{target}.dict"));
    if words.is_file() {
        command.arg(format!("-dict={}", words.display()));
    }
    let status = command.args(options).status();
    let status = status.context("cannot run cargo")?;
    ensure!(
        status.success(),
        "{target} found something, or `cargo install cargo-fuzz` is to be run first"
    );
    Ok(())
}
