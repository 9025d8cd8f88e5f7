//! Digests of named files: computed once, and kept for as long as the file stays as it is.
//!
//! Content-addressed media has its digest for a name. A named file's costs reading it. That of a small one is computed at
//! once, which takes less than to have it done; for a larger one no request waits, and the first are answered without.

use super::slice::{SMALL_BYTES, read_at};
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use std::fs::{File, Metadata};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// Digests that are kept, of some 100 bytes each.
const KEPT: usize = 10_000;

/// Largest file that is read for its digest, in bytes.
const LARGEST_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

/// The digests of one folder's named files. Clones share them.
#[derive(Clone)]
pub(super) struct Digests {
    kept: Arc<Cache<Version, [u8; 32]>>,
    /// One file is read at a time; others have their turn when they are asked for again.
    is_busy: Arc<AtomicBool>,
}

impl std::fmt::Debug for Digests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Digests")
            .field("kept", &self.kept.len())
            .finish()
    }
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Version {
    device_and_inode: (u64, u64),
    length: u64,
    modified: Option<SystemTime>,
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let device_and_inode = {
            use std::os::unix::fs::MetadataExt;
            (metadata.dev(), metadata.ino())
        };
        #[cfg(not(unix))]
        let device_and_inode = (0, 0);
        Version {
            device_and_inode,
            length: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

impl Digests {
    pub(super) fn new() -> Self {
        Digests {
            kept: Arc::new(Cache::new(KEPT)),
            is_busy: Arc::default(),
        }
    }

    /// The file's SHA-256, if it is known; if it is not, it will be. `read` gives all the bytes of a small file, if it can.
    pub(super) fn of(
        &self,
        file: &File,
        read: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<[u8; 32]> {
        let version = Version::of(&file.metadata().ok()?);
        if !self.will_know(version.length) {
            return None;
        }
        if let Some(known) = self.kept.get(&version) {
            return Some(known);
        }
        if version.length <= SMALL_BYTES as u64
            && let Some(bytes) = read().filter(|bytes| bytes.len() as u64 == version.length)
        {
            let digest = Sha256::digest(bytes).into();
            return self.keep(version, file, digest).then_some(digest);
        }
        self.learn(version, file);
        None
    }

    /// Keeps the digest of what was read, unless the file has changed meanwhile: then it has another version by now.
    fn keep(&self, version: Version, file: &File, digest: [u8; 32]) -> bool {
        let now = file.metadata();
        let is_as_read = now.is_ok_and(|metadata| Version::of(&metadata) == version);
        if is_as_read {
            self.kept.insert(version, digest);
        }
        is_as_read
    }

    /// Whether the digest of a file of that length will be known once it has been asked for.
    pub(super) fn will_know(&self, length: u64) -> bool {
        cfg!(unix) && length <= LARGEST_BYTES
    }

    fn learn(&self, version: Version, file: &File) {
        // A host's; whoever reads a store without a runtime does without digests.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let Ok(file) = file.try_clone() else {
            return;
        };
        if self.is_busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let digests = self.clone();
        runtime.spawn_blocking(move || {
            if let Ok(digest) = digest(&file, version.length) {
                digests.keep(version, &file, digest);
            }
            digests.is_busy.store(false, Ordering::Release);
        });
    }
}

/// Reads by place, since others read by the same handle's position.
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
