//! Tasks of contributors: `cargo xtask --help` lists them.

mod bench;
mod ci;
mod compose;
mod conformance;
mod dist;
mod features;
mod fuzz;
mod guest;
mod hosts;
mod limits;
mod metadata;
mod pages;
mod prose;
mod public_api;
mod site;
mod structure;
mod wit_page;

use anyhow::{Context, Result};
use clap::Parser;
use std::path::{Path, PathBuf};

#[derive(Parser)]
#[command(name = "cargo xtask", about)]
enum Task {
    /// Builds the components from source, composes those that are made of others, and puts them where they are
    /// committed.
    Guest {
        /// Puts them beneath this folder instead, so that a fresh build can be tested beside the
        /// committed one.
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Writes docs/wit.html, the browsable page of the interface.
    WitPage,
    /// Writes docs/conformance.md, the readable page of the table of requests and answers.
    Conformance,
    /// Writes docs/public-api.txt, the listing of everything public in the library.
    PublicApi,
    /// Compares millpond's speed and cost with those of other servers: `-- --help` tells more.
    Bench {
        /// Builds static-web-server, one of them, and does nothing else.
        #[arg(long)]
        install: bool,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Replays the original's load against millpond and the original, and draws both: `-- --help` tells more.
    Replay {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Lets many clients request one object at once from caches of an origin, and draws them: `-- --help` tells more.
    Herd {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Simulates caches of several nodes behind a balancer, and draws docs/nodes.svg: `-- --help` tells more.
    Nodes {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Fuzzes with one target of tests/fuzz, for ten minutes: what follows its name is libFuzzer's.
    Fuzz {
        /// `answer`, `connection` or `signature`.
        target: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Installs other hosts and the tools for guests in other languages, puts the components to the hosts, and writes
    /// docs/hosts.md.
    Hosts {
        /// Installs what takes no more than a few minutes, and does nothing else.
        #[arg(long)]
        install: bool,
        /// Draws the page of what earlier runs left, and does nothing else.
        #[arg(long, conflicts_with = "install")]
        page: bool,
    },
    /// Makes a release in dist/: the program, the components, the interface, and the packages for Node and Python, with
    /// lists of dependencies and checksums.
    Dist {
        /// Makes it again from a fresh clone in another folder, and compares the two.
        #[arg(long)]
        check: bool,
    },
    /// Checks that the crates compile without some of their features, or without all.
    Features,
    /// Prints every limit with its reason, and writes docs/reference/limits.md.
    Limits,
    /// Writes docs/crates.svg, the picture of the crates in layers. Checks that crates and files use each other one way, and
    /// that a name stands for one type.
    Structure,
    /// Reads the hand-written pages and the comments, and reports sentences that are long or not in the field's words.
    Prose,
    /// Checks that links of the pages lead somewhere, that the site has each page, and that the tests which the threat model
    /// names exist.
    Pages,
    /// Preprocessor of mdBook, which runs it by book.toml.
    #[command(hide = true)]
    Site { arguments: Vec<String> },
    /// Checks the dependencies for known vulnerabilities, with cargo-deny.
    Advisories,
    /// Runs what CI runs before the tests: formatting, clippy, docs, dependencies' licences.
    Ci,
}

fn main() -> Result<()> {
    public_api::stand_for_rustdoc()?;
    let root = workspace_root()?;
    match Task::parse() {
        Task::Guest { to } => {
            let to = to.as_deref().unwrap_or(&root);
            guest::build_all(&root, to)?;
            compose::compose_all(&root, to)
        }
        Task::WitPage => wit_page::write(&root),
        Task::Conformance => conformance::write(&root),
        Task::PublicApi => public_api::write(&root),
        Task::Bench { install: true, .. } => bench::install(&root),
        Task::Bench { arguments, .. } => bench::run(&root, "compare", &arguments),
        Task::Replay { arguments } => bench::run(&root, "replay", &arguments),
        Task::Herd { arguments } => bench::run(&root, "herd", &arguments),
        Task::Nodes { arguments } => bench::run(&root, "nodes", &arguments),
        Task::Fuzz { target, arguments } => fuzz::run(&root, &target, &arguments),
        Task::Hosts { install: true, .. } => hosts::install(&root, false),
        Task::Hosts { page: true, .. } => hosts::write(&root),
        Task::Hosts { .. } => {
            hosts::install(&root, true)?;
            hosts::compare(&root)?;
            hosts::write(&root)
        }
        Task::Dist { check: false } => dist::make(&root),
        Task::Dist { check: true } => dist::check(&root),
        Task::Features => features::check(&root),
        Task::Limits => limits::write(&root),
        Task::Structure => structure::write(&root),
        Task::Prose => prose::check(&root),
        Task::Pages => pages::check(&root),
        Task::Site { arguments } => site::preprocess(&arguments),
        Task::Advisories => ci::check_advisories(&root),
        Task::Ci => ci::run(&root),
    }
}

fn workspace_root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.canonicalize()
        .context("the workspace that this was built from is gone")
}
