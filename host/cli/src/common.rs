//! Parts of several subcommands: sizes, keys, progress, and the description of stored media.

use anyhow::{Context, Result};
use bytesize::ByteSize;
use clap::Args;
use millpond::config::SigningKeys;
use millpond::store::{ContentId, Record};

/// Returns the signing keys of the environment. Every user of the machine sees a command line, so there is no option
/// for them.
pub(crate) fn signing_keys() -> Result<Option<SigningKeys>> {
    const VARIABLE: &str = "MILLPOND_SIGNING_KEYS";
    let Ok(text) = std::env::var(VARIABLE) else {
        return Ok(None);
    };
    Ok(Some(SigningKeys::parse(&text).context(VARIABLE)?))
}

/// The option `--request-memory-limit`.
#[derive(Debug, Args)]
pub(crate) struct RequestMemory {
    /// Maximum memory of one request, of all kinds together.
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "1MiB",
        env = "MILLPOND_REQUEST_MEMORY_LIMIT"
    )]
    request_memory_limit: ByteSize,
}

impl RequestMemory {
    /// The limit, in bytes.
    pub(crate) fn bytes(&self) -> Result<usize> {
        bytes(self.request_memory_limit, "--request-memory-limit")
    }
}

/// Describes stored media in JSON, as every subcommand prints it.
pub(crate) fn described(id: &ContentId, record: &Record) -> serde_json::Value {
    serde_json::json!({
        "id": id.to_string(),
        "path": format!("/api/media/{id}"),
        "type": record.media_type,
        "size": record.size,
        "access": record.access,
    })
}

/// Formats a size for people, as in `1MiB`.
pub(crate) fn readable(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// Converts the size of an option to bytes.
pub(crate) fn bytes(size: ByteSize, option: &str) -> Result<usize> {
    usize::try_from(size.as_u64())
        .with_context(|| format!("{option} is more than this machine can address"))
}

/// Returns a progress bar over that many bytes. It shows on a terminal only.
pub(crate) fn progress_bar(total_bytes: u64) -> indicatif::ProgressBar {
    let template =
        "{msg:24!} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
    let bar = indicatif::ProgressBar::new(total_bytes);
    if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
