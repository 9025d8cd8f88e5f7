//! Cache of the digests of named files. A digest is valid as long as the file has the same version.
//!
//! Content-addressed media has its digest in its name. The digest of a small file is computed when the file is opened.
//! The digest of a larger file is computed in the background, and the first requests go without it.

use super::file_slice::read_at;
use super::thread_pool::ThreadPool;
use super::version::FileVersion;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Maximum number of digests, of about 100 bytes each.
const CACHED_DIGESTS: usize = 10_000;

/// Maximum length of a file whose digest is computed, in bytes.
const DIGEST_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

/// Digests of one folder's named files. Clones share them.
#[derive(Clone)]
pub(super) struct DigestCache {
    by_version: Arc<Cache<FileVersion, [u8; 32]>>,
    /// One file is read at a time, and one for each file system that may not answer. The next request of another file
    /// starts its computation.
    is_busy: Arc<AtomicBool>,
}

impl std::fmt::Debug for DigestCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Digests")
            .field("kept", &self.by_version.len())
            .finish()
    }
}

impl DigestCache {
    pub(super) fn new() -> Self {
        DigestCache {
            by_version: Arc::new(Cache::new(CACHED_DIGESTS)),
            is_busy: Arc::default(),
        }
    }

    /// Returns the SHA-256 of a version, if it is known.
    pub(super) fn get(&self, version: &FileVersion) -> Option<[u8; 32]> {
        self.by_version.get(version)
    }

    /// Computes the SHA-256 of a small file from its bytes. Returns `None` if the file has changed since. Stores the
    /// digest unless the version is racy.
    pub(super) fn insert_bytes(
        &self,
        bytes: &[u8],
        file: &File,
        version: FileVersion,
        is_racy: bool,
    ) -> Option<[u8; 32]> {
        let digest = Sha256::digest(bytes).into();
        if !has_version(file, &version) {
            return None;
        }
        if !is_racy {
            self.by_version.insert(version, digest);
        }
        Some(digest)
    }

    /// Returns whether the digest of a file of this length is ever computed.
    pub(super) fn is_digestible(&self, length: u64) -> bool {
        length <= DIGEST_MAX_BYTES
    }

    /// Computes the digest of a version that is not racy, in the background. It runs on `threads`, or else on the
    /// runtime's blocking threads. Without a runtime nothing is computed.
    pub(super) fn spawn_digest(
        &self,
        version: FileVersion,
        file: &File,
        threads: Option<&ThreadPool>,
    ) {
        let is_busy = threads.map_or(&self.is_busy, ThreadPool::is_digesting);
        let runtime = tokio::runtime::Handle::try_current();
        if threads.is_none() && runtime.is_err() || is_busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let busy = DigestInProgress(Arc::clone(is_busy));
        let Ok(file) = file.try_clone() else {
            return;
        };
        let digest_cache = self.clone();
        let spawn_digest = move || {
            let _busy = busy;
            if let Ok(digest) = digest(&file, version.length())
                && has_version(&file, &version)
            {
                digest_cache.by_version.insert(version, digest);
            }
        };
        match (threads, runtime) {
            (Some(threads), _) => threads.detach(spawn_digest),
            (None, Ok(runtime)) => drop(runtime.spawn_blocking(spawn_digest)),
            (None, Err(_)) => {}
        }
    }
}

/// Marks a computation in progress, until it is dropped.
struct DigestInProgress(Arc<AtomicBool>);

impl Drop for DigestInProgress {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Returns whether a file still has a version.
fn has_version(file: &File, version: &FileVersion) -> bool {
    let metadata = file.metadata().ok();
    metadata.as_ref().and_then(FileVersion::of) == Some(*version)
}

/// Reads with offsets, because other readers share the handle's position.
fn digest(file: &File, length: u64) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = 0;
    while offset < length {
        let count = read_at(file, &mut buffer, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&buffer[..count]);
        offset += count as u64;
    }
    Ok(hash.finalize().into())
}
