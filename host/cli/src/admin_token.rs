//! Token of the admin listener.

use crate::common::read_token_file;
use anyhow::{Context, Result, ensure};
use millpond_server::admin::AdminToken;
use std::path::Path;

/// Variable with the token. Every user of the machine sees a command line, so there is no option for it.
const VARIABLE: &str = "MILLPOND_ADMIN_TOKEN";

/// Maximum size of a file with a token, in bytes. A token is shorter, and an endless file must not fill the memory.
const TOKEN_FILE_BYTES: u64 = 1024;

/// Returns the token of the file, or of the environment.
pub(crate) fn admin_token(file: Option<&Path>) -> Result<Option<AdminToken>> {
    let place = || match file {
        Some(file) => format!("--admin-token-file {}", file.display()),
        None => VARIABLE.to_owned(),
    };
    let text = token_text(file)?;
    let token = text.map(|text| AdminToken::parse(&text)).transpose();
    token.with_context(place)
}

/// Returns the text of the token of the file, or of the environment.
pub(crate) fn token_text(file: Option<&Path>) -> Result<Option<String>> {
    let variable = std::env::var(VARIABLE).ok();
    let Some(file) = file else {
        return Ok(variable);
    };
    ensure!(
        variable.is_none(),
        "both --admin-token-file and {VARIABLE} are set: remove one of them"
    );
    let text = read_token_file(file, TOKEN_FILE_BYTES)
        .with_context(|| format!("cannot read the admin token {}", file.display()))?;
    Ok(Some(text.trim().to_owned()))
}
