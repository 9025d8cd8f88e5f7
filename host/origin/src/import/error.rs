//! The error of an import into object storage.

use crate::fetch::FetchError;
use millpond::store::{ContentId, ImportError};
use std::io;
use std::path::PathBuf;

/// The error of an import into object storage, or of another change of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OriginImportError {
    /// An error that a store in a folder has too, such as a file that cannot be read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A request to the store failed.
    #[error("{path}: {source}")]
    Fetch {
        /// Path of the object, below the origin's URL.
        path: String,
        /// Error of the request.
        source: FetchError,
    },
    /// The store changes nothing, as an HTTP server.
    #[error("the origin takes no uploads: object storage is needed, as with s3://, gs:// or az://")]
    NotWritable,
    /// The file changed while it was sent. No media was added.
    #[error("{} changed while it was added", .0.display())]
    FileChanged(PathBuf),
    /// The file is larger than a server takes from an origin.
    #[error("{} has more than {max_bytes} bytes, and would not be served", path.display())]
    TooLarge {
        /// Path of the file.
        path: PathBuf,
        /// Maximum length, in bytes.
        max_bytes: u64,
    },
    /// The store has other content than was sent. No media was added.
    #[error("the store has other content for {0} than was sent")]
    OtherContent(ContentId),
    /// The journal of an upload, or the file for content of a pipe, cannot be used.
    #[error("cannot use the journal of uploads {}", path.display())]
    Journal {
        /// Path of the journal or of its folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Returns the error of a request for a path.
pub(super) fn failed(path: &str) -> impl Fn(FetchError) -> OriginImportError {
    let path = path.to_owned();
    move |source| OriginImportError::Fetch {
        path: path.clone(),
        source,
    }
}
