//! Digest of an object, which is read whole.

use crate::fetch::FetchError;
use crate::origin::Origin;
use futures_util::stream::StreamExt;
use millpond::store::ContentId;
use sha2::{Digest, Sha256};

/// Reads an object, and returns the number of its bytes and their id.
///
/// # Errors
/// [`FetchError`].
pub(super) async fn digest(
    origin: &Origin,
    path: &str,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(u64, ContentId), FetchError> {
    let mut fetch = origin.get(path, None, None).await?;
    let (mut hash, mut size) = (Sha256::new(), 0);
    while let Some(bytes) = fetch.body.next().await {
        let bytes = bytes?;
        hash.update(&bytes);
        size += bytes.len() as u64;
        progress(bytes.len() as u64);
    }
    Ok((size, ContentId::from_digest(hash.finalize().into())))
}
