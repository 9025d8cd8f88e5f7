//! Versions of named files: `variant version` of `wit/media-store.wit`.

/// Largest file whose version is its digest, in bytes: it is read when it is opened, which takes some microseconds.
pub const DIGEST_BYTES: u64 = 12 * 1024;

/// The text of a version: the first 128 bits of the SHA-256 of a file's bytes, or of what its file system tells of it. A
/// digest, so that no inode number is told to strangers.
#[must_use]
pub fn text(sha256: &[u8; 32]) -> String {
    hex::encode(&sha256[..16])
}
