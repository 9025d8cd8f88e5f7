//! What is released: of which commit, by which name, and where the artifacts go.

use crate::metadata::WorkspacePackage;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One release, and the folders that it is made in.
pub(super) struct Release {
    /// The workspace's root.
    pub(super) root: PathBuf,
    /// Where the artifacts go, each kind in a folder of its own.
    pub(super) out: PathBuf,
    pub(super) package: WorkspacePackage,
    /// The target that the program is built for: the one that this runs on.
    pub(super) triple: String,
    /// The commit, with `-dirty` at its end where files differ from it.
    pub(super) revision: String,
    /// When that commit was made, in seconds since 1970: the time of everything in the artifacts.
    pub(super) commit_time_seconds: u64,
}

impl Release {
    /// What the workspace at `root` is now.
    pub(super) fn of(root: &Path) -> Result<Self> {
        let compiler = said_by(root, "rustc", &["-vV"])?;
        let triple = compiler
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .context("rustc does not say its host")?;
        let describe = ["describe", "--always", "--dirty", "--abbrev=40"];
        Ok(Self {
            root: root.into(),
            out: root.join("dist"),
            package: WorkspacePackage::read(root)?,
            triple: triple.into(),
            // No tag matches nothing, so that the commit itself is named.
            revision: said_by(root, "git", &[&describe[..], &["--exclude", "*"]].concat())?,
            commit_time_seconds: said_by(root, "git", &["log", "-1", "--format=%ct"])?.parse()?,
        })
    }

    /// The folder for one kind of artifact.
    pub(super) fn folder(&self, kind: &str) -> Result<PathBuf> {
        let folder = self.out.join(kind);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// A command that gives everything that it writes the time of the commit.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.root)
            .env("SOURCE_DATE_EPOCH", self.commit_time_seconds.to_string());
        command
    }
}

/// Runs a command, which must end well.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(status.success(), "{command:?} fails");
    Ok(())
}

/// Runs a command, which must end well, and returns what it printed.
pub(super) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(
        output.status.success(),
        "{command:?} fails: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

fn said_by(root: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    let said = output(Command::new(program).current_dir(root).args(arguments))?;
    Ok(str::from_utf8(&said)?.trim().into())
}
