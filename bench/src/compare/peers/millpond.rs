//! millpond, with answers reused and with a fresh instance for every request.

use super::{Peer, Place, Series, Settings};
use crate::program::version;
use anyhow::{Context, Result};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Millpond {
    program: PathBuf,
    version: String,
    series: Series,
    /// The option that makes it so.
    option: &'static [&'static str],
    /// Whether it has `--tls-cert`.
    has_tls: bool,
}

/// Measures a program with its response cache and without. One without `--response-cache` has no cache.
pub(super) fn settings(program: &Path) -> Result<Settings> {
    let help = Command::new(program).args(["serve", "--help"]).output();
    let help = help.with_context(|| {
        format!(
            "cannot run {}; `cargo build --profile dist` makes it",
            program.display()
        )
    })?;
    let help = String::from_utf8_lossy(&help.stdout);
    let (reuses, has_tls) = (
        help.contains("--response-cache"),
        help.contains("--tls-cert"),
    );
    let version = version(program, "--version")?;
    let setting = |series, option| -> Box<dyn Peer> {
        Box::new(Millpond {
            program: program.to_owned(),
            version: version.clone(),
            series,
            option,
            has_tls,
        })
    };
    Ok(if reuses {
        vec![
            setting(Series::Millpond, &[]),
            setting(Series::MillpondFresh, &["--response-cache", "off"]),
        ]
    } else {
        eprintln!("this millpond has no --response-cache: it runs the component for every request");
        vec![setting(Series::MillpondFresh, &[])]
    })
}

impl Peer for Millpond {
    fn series(&self) -> Series {
        self.series
    }

    fn setting(&self) -> &'static str {
        ""
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn speaks_http2(&self) -> bool {
        self.has_tls
    }

    /// With all its limits, and its log as it is by default: a line for each request.
    fn command(&self, place: &Place) -> Result<Command> {
        let mut command = Command::new(&self.program);
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"MILLPOND_") {
                command.env_remove(name);
            }
        }
        command
            .arg("serve")
            .arg(place.folder)
            .args(["--listen", &place.address.to_string()])
            .args(["--admin", "off"])
            .args(self.option);
        if let Some(certificate) = place.certificate {
            command.arg("--tls-cert").arg(certificate.chain());
            command.arg("--tls-key").arg(certificate.key());
        }
        Ok(command)
    }
}
