//! Parts of several subcommands: sizes, keys, progress, and the description of stored media.

use anyhow::{Context, Result, ensure};
use bytesize::ByteSize;
use clap::Args;
use millpond::config::SigningKeys;
use millpond::store::{Access, ContentId, Record};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Returns the signing keys of the environment. Every user of the machine sees a command line, so there is no option
/// for them.
pub(crate) fn signing_keys() -> Result<Option<SigningKeys>> {
    const VARIABLE: &str = "MILLPOND_SIGNING_KEYS";
    let Ok(text) = std::env::var(VARIABLE) else {
        return Ok(None);
    };
    Ok(Some(SigningKeys::parse(&text).context(VARIABLE)?))
}

/// Reads a file with a token, which has `max_bytes` at most. A device has no length, so the bytes that are read count.
pub(crate) fn read_token_file(path: &Path, max_bytes: u64) -> Result<String> {
    let mut text = String::new();
    let mut file = File::open(path)?.take(max_bytes + 1);
    file.read_to_string(&mut text)?;
    ensure!(
        text.len() as u64 <= max_bytes,
        "the file is too large for a token"
    );
    Ok(text)
}

/// The option `--request-memory-limit`.
#[derive(Debug, Args)]
pub(crate) struct RequestMemory {
    /// Maximum memory of one request, of all kinds together.
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "1MiB",
        env = "MILLPOND_REQUEST_MEMORY_LIMIT",
        value_parser = parse_size
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

/// Name of an access, as in records.
pub(crate) fn access_name(access: Access) -> &'static str {
    match access {
        Access::Public => "public",
        Access::Private => "private",
    }
}

/// Writes lines to standard output until all are written, or nobody reads them any more, as with `head`.
pub(crate) fn write_until_closed(write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut output = io::BufWriter::new(io::stdout().lock());
    let written = write(&mut output).and_then(|()| Ok(output.flush()?));
    // The rest in the buffer has no reader.
    let (_, _) = output.into_parts();
    match written {
        Err(error) if is_closed(&error) => Ok(()),
        written => written,
    }
}

fn is_closed(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Formats a size for people, as in `1MiB`.
pub(crate) fn readable(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// Parses a size. The error does not repeat the text.
pub(crate) fn parse_size(text: &str) -> Result<ByteSize, String> {
    let size = text.parse();
    size.map_err(|_| "a size is needed, as in 4MiB".into())
}

/// Converts the size of an option to bytes.
pub(crate) fn bytes(size: ByteSize, option: &str) -> Result<usize> {
    usize::try_from(size.as_u64())
        .with_context(|| format!("{option} is more than this machine can address"))
}

/// Returns a progress bar over that many bytes. It shows on a terminal only.
pub(crate) fn progress_bar(total_bytes: u64) -> indicatif::ProgressBar {
    let template = "{msg:24!} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left";
    let bar = indicatif::ProgressBar::new(total_bytes);
    if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Returns an error and its causes in one line. Some libraries' errors include their cause, so each is written once.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_cause_that_its_error_has_told_is_not_told_again() {
        let none = std::path::Path::new("/none/at/all");
        let error = tempfile::NamedTempFile::new_in(none).map(drop);
        let line = one_line(&anyhow::Context::context(error, "cannot write").unwrap_err());
        assert!(line.starts_with("cannot write: "), "{line}");
        assert_eq!(line.matches("No such file").count(), 1, "{line}");
    }
}
