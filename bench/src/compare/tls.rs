//! A certificate that nobody trusts, for the rows over TLS, and the look at an answer there.

use super::media::Media;
use super::rows::Row;
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A certificate and its key, in PEM; removed when this is dropped.
pub(crate) struct Certificate {
    folder: TempDir,
}

impl Certificate {
    /// Has openssl make one for this machine's loopback address: ECDSA over P-256, as most sites have.
    pub(crate) fn make() -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let certificate = Certificate { folder };
        let output = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ])
            .args([
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=IP:127.0.0.1,DNS:localhost",
            ])
            .arg("-out")
            .arg(certificate.chain())
            .arg("-keyout")
            .arg(certificate.key())
            .stdin(Stdio::null())
            .output()
            .context("cannot run openssl")?;
        ensure!(
            output.status.success(),
            "openssl fails: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(certificate)
    }

    pub(crate) fn chain(&self) -> PathBuf {
        self.folder.path().join("chain.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }
}

/// Where something is, over TLS.
pub(crate) fn url(address: SocketAddr, target: &str) -> String {
    format!("https://{address}{target}")
}

/// Has curl ask for what the row asks for over HTTP/2, and fails unless the answer is right.
pub(crate) fn check(url: &str, row: &Row, media: &Media) -> Result<()> {
    let file = row.asked.file().context("a row over TLS asks for a file")?;
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--insecure",
            "--http2",
            "--max-time",
            "30",
        ])
        .args(["--write-out", "%{stderr}%{http_version} %{http_code}"])
        .arg(url)
        .stdin(Stdio::null())
        .output()
        .context("cannot run curl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "curl fails: {}", said.trim());
    let expected = format!("2 {}", row.asked.status());
    ensure!(
        said == expected,
        "it answers `{said}` where `{expected}` is right"
    );
    ensure!(
        hex::encode(Sha256::digest(&output.stdout)) == media.id(file),
        "it gives other bytes than the file has"
    );
    Ok(())
}

/// Whether the programs for these rows are here; else which is not.
pub(crate) fn missing(find: impl Fn(&str) -> Option<PathBuf>) -> Option<&'static str> {
    ["h2load", "openssl", "curl"]
        .into_iter()
        .find(|name| find(name).is_none())
}
