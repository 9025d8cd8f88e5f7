//! The component for WASI 0.2 in `wasmtime serve`.

use super::{Peer, Place, Programs, Series, Settings};
use crate::program::{find, version};
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::Command;

struct Wasmtime {
    program: PathBuf,
    component: PathBuf,
    version: String,
}

/// Where `cargo xtask hosts` puts it, from the workspace's root.
const INSTALLED: &str = "target/hosts/bin/wasmtime";
const COMPONENT: &str = "components/millpond-http-p2.wasm";

pub(super) fn settings(programs: &Programs) -> Result<Settings> {
    let installed = programs.workspace.join(INSTALLED);
    let given = programs.wasmtime.clone();
    let program = given.or_else(|| Some(installed).filter(|file| file.is_file()));
    let program = program.or_else(|| find("wasmtime"));
    let program = program.context(
        "there is no wasmtime here; `cargo xtask hosts` builds it, `--wasmtime` names one",
    )?;
    let component = programs.workspace.join(COMPONENT);
    ensure!(component.is_file(), "there is no {COMPONENT}");
    let version = version(&program, "--version")?;
    Ok(vec![Box::new(Wasmtime {
        program,
        component,
        version,
    })])
}

impl Peer for Wasmtime {
    fn series(&self) -> Series {
        Series::Wasmtime
    }

    fn setting(&self) -> &'static str {
        ""
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn command(&self, place: &Place) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .args([
                "serve",
                "-S",
                "cli",
                "--addr",
                &place.address.to_string(),
                "--dir",
            ])
            .arg(format!("{}::/media", place.folder.display()))
            .arg(&self.component);
        Ok(command)
    }
}
