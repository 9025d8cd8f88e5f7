//! The error of an upload by form, of which some files may be stored.

use super::error::UploadError;

/// The error of an upload by form. The files before the one that failed are stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}, after {} files of the form", stored.len())]
pub(crate) struct FormError {
    pub(crate) error: UploadError,
    /// Name of the file that failed, as the client has it.
    pub(crate) file: Option<String>,
    pub(crate) stored: Vec<StoredFile>,
}

/// A file that a form has stored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct StoredFile {
    /// Path of its target.
    pub(crate) path: String,
    /// Size, in bytes.
    pub(crate) size: u64,
}
