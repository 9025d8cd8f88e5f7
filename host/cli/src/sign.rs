//! `millpond sign`.

use crate::common::signing_keys;
use crate::serve::Serve;
use crate::settings::ResolvedSettings;
use anyhow::{Context, Result};
use clap::Args;
use millpond_format::signature::{Grant, covers};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// Paths of the media, as in /api/media/<id>.
    #[arg(required = true, value_name = "PATH", value_parser = parse_path)]
    paths: Vec<String>,

    /// Beginning of the URLs, as in https://media.example. Whole URLs are printed then, in place of paths.
    #[arg(long, value_name = "URL", value_parser = parse_base)]
    base: Option<String>,

    /// Time for which the URL is valid.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    expires: Duration,

    /// Client address or prefix that the URL is restricted to, as in 192.0.2.0/24 [default: any client].
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    client: Option<String>,

    /// Id of the signing key [default: the first key].
    #[arg(long, value_name = "ID")]
    key: Option<String>,

    /// Configuration file with the signing keys. MILLPOND_SIGNING_KEYS takes precedence over it, as <id>:<secret in
    /// hexadecimal>.
    #[arg(long, value_name = "FILE", env = "MILLPOND_CONFIG")]
    config: Option<PathBuf>,
}

fn parse_path(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#');
    if text.starts_with('/') && text.chars().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err("a path begins with `/` and is encoded as in a URL, without a query".into())
    }
}

/// Parses a URL without query and fragment. A `/` at its end is cut off, since each path begins with one.
fn parse_base(text: &str) -> Result<String, String> {
    let message = "a URL is needed, as in https://media.example, without `?` and `#`";
    let uri: http::Uri = text.parse().map_err(|_| message)?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let authority = uri
        .authority()
        .filter(|authority| !authority.host().is_empty());
    if !is_http || authority.is_none() || text.contains(['?', '#', '@']) {
        return Err(message.into());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn parse_prefix(text: &str) -> Result<String, String> {
    let address = text.split('/').next().unwrap_or_default();
    if covers(text, address) {
        Ok(text.to_owned())
    } else {
        Err("an address or a prefix is needed, as in 192.0.2.0/24".into())
    }
}

impl Sign {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let keys = match (signing_keys()?, &self.config) {
            (Some(keys), _) => keys,
            (None, Some(path)) => {
                ResolvedSettings::<Serve>::of_file(path)?
                    .component
                    .signing_keys
            }
            (None, None) => Default::default(),
        };
        let key = keys.find(self.key.as_deref()).context(
            "no such signing key: set MILLPOND_SIGNING_KEYS or a --config with signing-keys",
        )?;
        let expires = SystemTime::now() + self.expires;
        let expires = expires.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let base = self.base.as_deref().unwrap_or_default();
        for path in &self.paths {
            let query = key.sign(&Grant {
                path,
                expires,
                client_prefix: self.client.as_deref(),
            });
            writeln!(io::stdout(), "{base}{path}?{query}")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
