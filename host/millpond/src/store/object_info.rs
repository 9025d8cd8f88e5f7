//! Keys of objects, and information about them.

use millpond_format::{Access, ContentId};
use std::time::SystemTime;

/// Key of an object: `variant key` of `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ObjectKey {
    /// Media by content id.
    Content(ContentId),
    /// Media by name: a path with segments separated by `/`. From a guest, no segment is empty, `.` or `..`, or
    /// contains U+0000. The store rejects other names that are special on its system.
    Named(String),
}

impl ObjectKey {
    /// Heap memory, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            ObjectKey::Content(_) => 0,
            ObjectKey::Named(name) => name.capacity(),
        }
    }

    /// Returns the key of a guest's name. `None` if the name is invalid.
    pub(crate) fn named(name: String) -> Option<Self> {
        let fits = |segment: &str| !matches!(segment, "" | "." | "..") && !segment.contains('\0');
        name.split('/').all(fits).then_some(ObjectKey::Named(name))
    }
}

/// Information about an object: `record info` of `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// Length when it was opened, in bytes.
    pub length: u64,
    /// Media type, as in `Content-Type` (RFC 9110 section 8.3).
    pub media_type: String,
    /// Time of the last modification, if it is known.
    pub modified: Option<SystemTime>,
    /// Time of the import. `None` for named files.
    pub created: Option<SystemTime>,
    /// SHA-256 of the content, if it is known.
    pub digest: Option<ContentId>,
    /// Version of the content. For a named object it becomes the entity tag (RFC 9110 section 8.8.3). Without it, the
    /// tag is the digest, or weak if there is no digest.
    pub version: Option<ObjectVersion>,
    /// Access to the object. A private object can be opened by content id only.
    pub access: Access,
    /// Other representations of the object, in no order.
    pub variants: Vec<ObjectVariant>,
}

/// Version of an object's content: `variant version` of `wit/media-store.wit`. The text is visible ASCII without `"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectVersion {
    /// Every content of the key has another version. Length and modification time alone are not enough.
    Strong(String),
    /// Two contents may share the version, though they seldom do.
    Weak(String),
}

/// Another representation of the same resource: `record variant-info` of `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectVariant {
    /// Key of the variant.
    pub key: ObjectKey,
    /// Media type.
    pub media_type: String,
    /// Content coding, if it has one.
    pub content_coding: Option<String>,
}

impl ObjectInfo {
    /// Returns the information about an object with this length in bytes, media type and access. Everything else is
    /// unknown.
    #[must_use]
    pub fn new(length: u64, media_type: impl Into<String>, access: Access) -> Self {
        ObjectInfo {
            length,
            media_type: media_type.into(),
            modified: None,
            created: None,
            digest: None,
            version: None,
            access,
            variants: Vec::new(),
        }
    }

    /// Memory of the information, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        let variants = self.variants.iter().map(|variant| {
            let name = variant.key.held_bytes();
            let coding = variant.content_coding.as_ref().map_or(0, String::capacity);
            name + variant.media_type.capacity() + coding
        });
        let version = match &self.version {
            Some(ObjectVersion::Strong(text) | ObjectVersion::Weak(text)) => text.capacity(),
            None => 0,
        };
        size_of::<Self>()
            + self.media_type.capacity()
            + version
            + self.variants.capacity() * size_of::<ObjectVariant>()
            + variants.sum::<usize>()
    }
}

impl ObjectVariant {
    /// Returns a variant without a content coding.
    #[must_use]
    pub fn new(key: ObjectKey, media_type: impl Into<String>) -> Self {
        ObjectVariant {
            key,
            media_type: media_type.into(),
            content_coding: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_guest_climbs_nowhere() {
        for name in ["a", "a/b c.mp4", "...", "ä/.b", "a: b\\c\n"] {
            assert_eq!(
                ObjectKey::named(name.into()),
                Some(ObjectKey::Named(name.into()))
            );
        }
        for name in ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\0"] {
            assert_eq!(ObjectKey::named(name.into()), None, "{name:?}");
        }
    }
}
