//! Versions of named files: `variant version` of `wit/media-store.wit`.

/// Maximum length of a file whose version is its digest, in bytes.
///
/// Such a file is read when it is opened, which takes some microseconds.
pub const DIGEST_BYTES: u64 = 12 * 1024;

/// Returns the text of a version: the first 128 bits of a SHA-256, in hexadecimal.
///
/// The digest is of the file's bytes or of its metadata. It is a digest so that no inode number is published.
#[must_use]
pub fn text(sha256: &[u8; 32]) -> String {
    base16ct::lower::encode_string(&sha256[..16])
}
