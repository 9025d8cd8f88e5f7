//! Open files of a chunk cache, which stay open between requests.

use millpond::store::SharedFile;
use millpond_ledger::process;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::sync::Arc;

/// Maximum memory of the open files, in bytes. It is that of the open file cache of a folder.
pub(crate) const OPEN_FILES_BYTES: usize = 4 * 1024 * 1024;

/// Maximum number of open files. A low limit of open files lowers it.
const OPEN_FILES: usize = 1024;

/// Reciprocal of the share of the process's open files that the cache may take.
const OPEN_FILES_SHARE: usize = 8;

/// Open files by the number of their object. Clones share them.
#[derive(Clone)]
pub(super) struct OpenFiles(Arc<Cache<u64, SharedFile, OpenFileWeighter>>);

impl OpenFiles {
    pub(super) fn new() -> Self {
        let files = OPEN_FILES.min(process::open_files_limit() / OPEN_FILES_SHARE);
        let files = files.max(1);
        let weighter = OpenFileWeighter {
            least: (OPEN_FILES_BYTES / files) as u64,
        };
        let cache = Cache::with_weighter(files, OPEN_FILES_BYTES as u64, weighter);
        OpenFiles(Arc::new(cache))
    }

    pub(super) fn get(&self, id: u64) -> Option<SharedFile> {
        self.0.get(&id)
    }

    pub(super) fn insert(&self, id: u64, file: SharedFile) {
        self.0.insert(id, file);
    }

    pub(super) fn remove(&self, id: u64) {
        self.0.remove(&id);
    }

    /// Memory of the files, in bytes.
    pub(super) fn bytes(&self) -> usize {
        usize::try_from(self.0.weight()).unwrap_or(usize::MAX)
    }
}

impl std::fmt::Debug for OpenFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFiles")
            .field("files", &self.0.len())
            .finish()
    }
}

/// Weigher of open files. Each weighs at least its part of the cache, so that the limit by memory is also one by number.
#[derive(Clone)]
struct OpenFileWeighter {
    least: u64,
}

impl Weighter<u64, SharedFile> for OpenFileWeighter {
    fn weight(&self, _id: &u64, file: &SharedFile) -> u64 {
        self.least.max(file.cached_bytes() as u64)
    }
}
