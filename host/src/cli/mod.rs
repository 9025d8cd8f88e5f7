//! The command line: what can be said, and which part of the program does it.

mod add;
mod certificate;
mod check;
mod hints;
mod inspect;
mod interrupt;
mod line;
mod listen;
mod log;
mod new;
mod notices;
mod publish;
mod serve;
mod sign;
mod signals;

use anyhow::{Context, Result};
use bytesize::ByteSize;
use clap::Parser;
use millpond::config::SigningKeys;
use millpond::store::{ContentId, Record};
use std::process::ExitCode;

/// Media server that answers requests with a WebAssembly component. The memory of every request is accounted for,
/// limited and released.
#[derive(Debug, Parser)]
#[command(name = "millpond", version, max_term_width = 100)]
pub(crate) enum Command {
    /// Serve a folder of media over HTTP.
    Serve(Box<serve::Serve>),
    /// Add files to a store, addressed by their content.
    Add(add::Add),
    /// Make private media public.
    Publish(publish::Publish),
    /// Verify every stored file against its id.
    Check(check::Check),
    /// Create a signed URL for private media.
    Sign(sign::Sign),
    /// Show the imports, exports and memory of a component, and check that it can be served.
    Inspect(inspect::Inspect),
    /// Create a folder with a component to start from: sources, interface, and build instructions.
    New(new::New),
}

impl Command {
    /// Does what was asked. The code is 0, or 1 where something was found wrong; an error is code 2.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Command::Serve(serve) => serve.run(),
            Command::Add(add) => add.run(),
            Command::Publish(publish) => publish.run(),
            Command::Check(check) => check.run(),
            Command::Sign(sign) => sign.run(),
            Command::Inspect(inspect) => inspect.run(),
            Command::New(new) => new.run(),
        }
    }
}

/// Keys for signed URLs, from the environment: a command line is seen by everybody on the machine.
fn signing_keys() -> Result<Option<SigningKeys>> {
    const VARIABLE: &str = "MILLPOND_SIGNING_KEYS";
    let Ok(text) = std::env::var(VARIABLE) else {
        return Ok(None);
    };
    Ok(Some(SigningKeys::parse(&text).context(VARIABLE)?))
}

/// Describes stored media in JSON, as far as every command tells it alike.
fn described(id: &ContentId, record: &Record) -> serde_json::Value {
    serde_json::json!({
        "id": id.to_string(),
        "path": format!("/api/media/{id}"),
        "type": record.media_type,
        "size": record.size,
        "access": record.access,
    })
}

/// A size as people write it: `1MiB`, `64k`.
fn readable(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// A size that was given to an option, in bytes.
fn bytes(size: ByteSize, option: &str) -> Result<usize> {
    usize::try_from(size.as_u64())
        .with_context(|| format!("{option} is more than this machine can address"))
}

/// A progress bar over that many bytes; it shows on a terminal only.
fn progress_bar(total_bytes: u64) -> indicatif::ProgressBar {
    let template =
        "{msg:24!} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
    let bar = indicatif::ProgressBar::new(total_bytes);
    if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
