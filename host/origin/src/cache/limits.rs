//! Bounds of a chunk cache.

/// Bounds of a chunk cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Maximum bytes on disk, at least [`CACHE_MIN_BYTES`].
    pub max_bytes: u64,
    /// Maximum number of files.
    pub max_files: usize,
}

/// Minimum size of a chunk cache, in bytes. Fills need room for their runs beside what is stored.
pub const CACHE_MIN_BYTES: u64 = 64 * 1024 * 1024;
