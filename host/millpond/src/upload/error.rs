//! Errors of uploads, each with its status.

use crate::store::{ImportError, NamedImportError};
use http::StatusCode;
use millpond_ledger::Outcome;
use std::io;

/// The error of an upload that stored nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UploadError {
    /// RFC 6750 section 3: no credentials.
    #[error("the upload has no token")]
    NoToken,
    #[error("the upload has another token")]
    WrongToken,
    #[error("the target is malformed")]
    MalformedTarget,
    /// The name is hidden, of the content store, or a way out of the folder.
    #[error("nothing can be uploaded under this name")]
    Name,
    #[error("a folder has this name, or a file the name of a folder on the path")]
    Conflict,
    #[error("a file has this name already")]
    Exists,
    #[error("the content is no form")]
    NoForm,
    #[error("the form is malformed: {0}")]
    MalformedForm(&'static str),
    /// The form has a token, and no file was chosen.
    #[error("the form has no file")]
    NoFile,
    #[error("the form has too many files")]
    TooManyFiles,
    /// RFC 9110 section 14.5.
    #[error("Content-Range is not supported")]
    PartialContent,
    /// RFC 9110 section 8.4: the stored bytes would be coded.
    #[error("Content-Encoding is not supported")]
    ContentCoding,
    #[error("the field {0} is malformed")]
    MalformedField(&'static str),
    #[error("a precondition failed")]
    Precondition,
    #[error("the content is larger than {0} bytes")]
    TooLarge(u64),
    #[error("the content has another SHA-256 than {0}")]
    Digest(&'static str),
    #[error("the content is malformed: {0}")]
    MalformedContent(String),
    /// The client left.
    #[error("the content ended early: {0}")]
    Incomplete(String),
    #[error("{0} uploads are in progress")]
    Busy(usize),
    #[error("the disk is full: {0}")]
    StorageFull(String),
    #[error("the upload cannot be stored: {0}")]
    Store(String),
}

impl UploadError {
    /// Returns the error of reading the content.
    pub(super) fn of_content(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => UploadError::MalformedContent(error.to_string()),
            _ => UploadError::Incomplete(error.to_string()),
        }
    }

    /// Returns the error of writing to the store.
    pub(super) fn of_store(error: &io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, InvalidFilename, QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => {
                UploadError::StorageFull(error.to_string())
            }
            InvalidFilename => UploadError::Name,
            _ => UploadError::Store(error.to_string()),
        }
    }

    /// Outcome of the request.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            UploadError::Incomplete(_) => Outcome::Aborted,
            UploadError::StorageFull(_) | UploadError::Store(_) => Outcome::Failed,
            _ => Outcome::Rejected,
        }
    }

    /// Status and message for the client. The message reveals nothing about the host.
    pub(crate) fn status(&self) -> (StatusCode, &'static str) {
        match self {
            UploadError::NoToken => (StatusCode::UNAUTHORIZED, "Uploads need a token"),
            UploadError::WrongToken => (StatusCode::FORBIDDEN, "Wrong token"),
            UploadError::MalformedTarget => (StatusCode::BAD_REQUEST, "Malformed path"),
            UploadError::Name => (
                StatusCode::FORBIDDEN,
                "Nothing can be uploaded under this name",
            ),
            UploadError::Conflict => (
                StatusCode::CONFLICT,
                "A folder has this name, or a file the name of a folder on the path",
            ),
            UploadError::Exists => (StatusCode::CONFLICT, "A file has this name already"),
            UploadError::NoForm => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Content is not multipart/form-data",
            ),
            UploadError::MalformedForm(_) => (StatusCode::BAD_REQUEST, "Malformed form"),
            UploadError::NoFile => (StatusCode::BAD_REQUEST, "No file was chosen"),
            UploadError::TooManyFiles => {
                (StatusCode::PAYLOAD_TOO_LARGE, "Too many files in one form")
            }
            UploadError::PartialContent => {
                (StatusCode::BAD_REQUEST, "Content-Range is not supported")
            }
            UploadError::ContentCoding => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Content-Encoding is not supported",
            ),
            UploadError::MalformedField(_) => (StatusCode::BAD_REQUEST, "Malformed field"),
            UploadError::Precondition => (StatusCode::PRECONDITION_FAILED, "Precondition failed"),
            UploadError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "Content too large"),
            UploadError::Digest(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "Content has another digest",
            ),
            UploadError::MalformedContent(_) => (StatusCode::BAD_REQUEST, "Malformed content"),
            UploadError::Incomplete(_) => (StatusCode::BAD_REQUEST, "Content ended early"),
            UploadError::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "Server is busy"),
            UploadError::StorageFull(_) => (
                StatusCode::INSUFFICIENT_STORAGE,
                "No space is left for the upload",
            ),
            UploadError::Store(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "The upload could not be stored",
            ),
        }
    }

    /// `WWW-Authenticate`: the scheme of the credentials that are missing (RFC 9110 section 11.6.1).
    pub(crate) fn challenge(&self) -> Option<&'static str> {
        matches!(self, UploadError::NoToken).then_some("Bearer")
    }
}

impl From<ImportError> for UploadError {
    fn from(error: ImportError) -> Self {
        match &error {
            ImportError::Write { source, .. } | ImportError::Read { source, .. } => {
                UploadError::of_store(source)
            }
            _ => UploadError::Store(error.to_string()),
        }
    }
}

impl From<NamedImportError> for UploadError {
    fn from(error: NamedImportError) -> Self {
        match error {
            NamedImportError::IsFolder(_) | NamedImportError::NoFolder(_) => UploadError::Conflict,
            NamedImportError::LeadsOut(_) => UploadError::Name,
            NamedImportError::OtherFileSystem(_) => UploadError::Store(error.to_string()),
            NamedImportError::Import(error) => error.into(),
        }
    }
}
