//! Options of `millpond serve` for uploads.

use crate::common::{read_token_file, readable};
use anyhow::{Context, Result};
use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use millpond::store::Folder;
use millpond::{ComponentError, Millpond, UploadToken, Uploads};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct UploadOptions {
    /// Whether clients with the token may upload: by `PUT /api/media`, `PUT <mount-path>/<path>`, and the form of a
    /// folder's page.
    #[arg(
        long,
        value_name = "on|off",
        default_value = "off",
        env = "MILLPOND_UPLOADS"
    )]
    uploads: Switch,

    /// File with the token that uploads need. MILLPOND_UPLOAD_TOKEN takes precedence over it.
    #[arg(long, value_name = "FILE", env = "MILLPOND_UPLOAD_TOKEN_FILE")]
    upload_token_file: Option<PathBuf>,

    /// Maximum size of an upload.
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "4GiB",
        env = "MILLPOND_UPLOAD_MAX_SIZE"
    )]
    upload_max_size: ByteSize,
}

/// Value of an option that is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Environment variable with the token. Every user of the machine sees a command line, so there is no option for it.
const VARIABLE: &str = "MILLPOND_UPLOAD_TOKEN";

impl UploadOptions {
    /// Whether uploads are on.
    pub(crate) fn are_on(&self) -> bool {
        self.uploads == Switch::On
    }

    /// File with the token, if there is one.
    pub(crate) fn token_file(&self) -> Option<&Path> {
        self.upload_token_file.as_deref()
    }

    /// Returns the uploads into a folder, if they are on.
    pub(crate) fn open(&self, folder: &Folder) -> Result<Option<Uploads>> {
        if !self.are_on() {
            return Ok(None);
        }
        let uploads = Uploads::new(folder, self.token()?).context("--uploads on")?;
        fail_writes_beyond_the_limit().context("cannot handle signals")?;
        let max_bytes = self.upload_max_size.as_u64();
        Ok(Some(uploads.with_max_bytes(max_bytes)))
    }

    /// Line of the announcement, if uploads are on.
    pub(crate) fn announcement(&self, url: &str, mount_path: &str) -> Option<String> {
        let max = readable(self.upload_max_size.as_u64());
        let line =
            format!("  uploads    PUT {url}/api/media and {url}{mount_path}/<path>, {max} at most");
        self.are_on().then_some(line)
    }

    fn token(&self) -> Result<UploadToken> {
        if let Ok(text) = std::env::var(VARIABLE) {
            return text.parse().context(VARIABLE);
        }
        let file = self.token_file();
        let file = file.with_context(|| {
            format!("--uploads on needs a token: set {VARIABLE} or --upload-token-file")
        })?;
        read_token(file).with_context(|| format!("--upload-token-file {}", file.display()))
    }
}

/// Lets a write beyond the limit of file sizes fail. The system would end the process otherwise (setrlimit(2)).
fn fail_writes_beyond_the_limit() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let kind = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
        // The handler stays when the stream is dropped.
        drop(signal(kind)?);
    }
    Ok(())
}

/// Adds uploads to a host, if there are any.
pub(crate) fn with_uploads(
    millpond: Millpond,
    uploads: Option<Uploads>,
) -> Result<Millpond, ComponentError> {
    match uploads {
        Some(uploads) => millpond.with_uploads(uploads),
        None => Ok(millpond),
    }
}

/// Maximum size of the file with the token, in bytes. A larger file is another one by mistake.
const TOKEN_FILE_BYTES: u64 = 4096;

fn read_token(file: &Path) -> Result<UploadToken> {
    Ok(read_token_file(file, TOKEN_FILE_BYTES)?.trim().parse()?)
}
