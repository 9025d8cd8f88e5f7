//! Records in object storage. A record is replaced only if it is the one that was read, so that no change is lost.

use crate::fetch::FetchError;
use crate::import::error::{OriginImportError, failed};
use crate::object_path::record_path;
use crate::origin::{Origin, fetch_error};
use millpond::store::ContentId;
use millpond_format::{RECORD_BYTES, Record};
use object_store::{GetOptions, PutMode, PutOptions, PutPayload, UpdateVersion};
use std::io;

/// Maximum number of tries to change a record that others change, too.
const TRIES: usize = 16;

/// A record in the store, with the version that was read.
#[derive(Debug, Clone)]
pub(super) enum FoundRecord {
    Missing,
    /// A record that is unreadable.
    Corrupt(UpdateVersion),
    Valid(Record, UpdateVersion),
}

impl FoundRecord {
    /// The record, if it is valid.
    pub(super) fn record(&self) -> Option<&Record> {
        match self {
            FoundRecord::Valid(record, _) => Some(record),
            FoundRecord::Missing | FoundRecord::Corrupt(_) => None,
        }
    }
}

/// Reads a record.
///
/// # Errors
/// [`OriginImportError::Fetch`].
pub(super) async fn find(
    origin: &Origin,
    id: &ContentId,
) -> Result<FoundRecord, OriginImportError> {
    let path = record_path(id);
    let found = read(origin, &path).await;
    found.map_err(failed(&path))
}

async fn read(origin: &Origin, path: &str) -> Result<FoundRecord, FetchError> {
    let object = origin.path(path)?;
    let store = origin.object_store();
    let result = match store.get_opts(&object, GetOptions::default()).await {
        Err(object_store::Error::NotFound { .. }) => return Ok(FoundRecord::Missing),
        result => result.map_err(fetch_error)?,
    };
    let version = UpdateVersion {
        e_tag: result.meta.e_tag.clone(),
        version: result.meta.version.clone(),
    };
    if result.meta.size > RECORD_BYTES {
        return Ok(FoundRecord::Corrupt(version));
    }
    let json = result.bytes().await.map_err(fetch_error)?;
    Ok(match Record::parse(&json) {
        Some(record) => FoundRecord::Valid(record, version),
        None => FoundRecord::Corrupt(version),
    })
}

/// Changes a record. `change` returns the new record, or `None` to leave it. It runs again if another program has changed
/// the record meanwhile. Returns the record before.
///
/// # Errors
/// [`OriginImportError::Fetch`]; [`FetchError::Changed`] if others change the record all the time.
pub(super) async fn change(
    origin: &Origin,
    id: &ContentId,
    mut change: impl FnMut(&FoundRecord) -> Option<Record>,
) -> Result<FoundRecord, OriginImportError> {
    let path = record_path(id);
    for _ in 0..TRIES {
        let found = find(origin, id).await?;
        let Some(record) = change(&found) else {
            return Ok(found);
        };
        let written = write(origin, &path, &record, &found).await;
        if written.map_err(failed(&path))? {
            return Ok(found);
        }
    }
    Err(failed(&path)(FetchError::Changed))
}

/// Writes a record in place of the one that was found. Returns false if another is there now.
async fn write(
    origin: &Origin,
    path: &str,
    record: &Record,
    found: &FoundRecord,
) -> Result<bool, FetchError> {
    let json = serde_json::to_vec(record).map_err(io::Error::other);
    let json = json.map_err(|error| FetchError::Invalid(error.to_string()))?;
    let object = origin.path(path)?;
    let store = origin.object_store();
    let mode = match found {
        FoundRecord::Missing => PutMode::Create,
        FoundRecord::Corrupt(version) | FoundRecord::Valid(_, version)
            if version.e_tag.is_none() && version.version.is_none() =>
        {
            PutMode::Overwrite
        }
        FoundRecord::Corrupt(version) | FoundRecord::Valid(_, version) => {
            PutMode::Update(version.clone())
        }
    };
    let put = |mode| {
        let options = PutOptions::from(mode);
        store.put_opts(&object, PutPayload::from(json.clone()), options)
    };
    match put(mode).await {
        Ok(_) => Ok(true),
        Err(
            object_store::Error::Precondition { .. } | object_store::Error::AlreadyExists { .. },
        ) => Ok(false),
        Err(error) if lacks_conditions(&error) => {
            let put = put(PutMode::Overwrite).await;
            put.map(|_| true).map_err(fetch_error)
        }
        Err(error) => Err(fetch_error(error)),
    }
}

/// Returns whether the store takes no conditions for a change, as some services with the protocol of S3 (501).
fn lacks_conditions(error: &object_store::Error) -> bool {
    use object_store::Error;
    match error {
        Error::NotImplemented { .. } | Error::NotSupported { .. } => true,
        error => error.to_string().contains("status code: 501"),
    }
}
