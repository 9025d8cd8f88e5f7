//! Systems without a sandbox.

use super::rules::SandboxRules;
use super::support::SandboxSupport;
use anyhow::Result;
use std::fs::File;
use std::path::Path;

pub(super) fn support() -> SandboxSupport {
    SandboxSupport::None
}

pub(super) fn enter(_rules: &SandboxRules) -> Result<Vec<File>> {
    Ok(Vec::new())
}

pub(super) fn is_permitted(_path: &Path) -> bool {
    false
}
