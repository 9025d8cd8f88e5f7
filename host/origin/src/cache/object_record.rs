//! Record of a cached object, as its cache file has it.

use crate::fetch::{FreshnessFields, ObjectHead, ObjectValidators};
use millpond::store::{
    Access, ContentId, ObjectInfo, ObjectKey, ObjectVariant, ObjectVersion, Record,
};
use millpond_format::names;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Metadata of a cached object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ObjectRecord {
    /// Key of the object.
    pub(crate) key: RecordedKey,
    /// Length, in bytes.
    pub(crate) length: u64,
    /// Entity tag, as the origin wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) entity_tag: Option<String>,
    /// Time of the last modification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) modified: Option<SystemTime>,
    /// Media type that the origin stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    /// `Cache-Control` of the origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cache_control: Option<String>,
    /// Time of its arrival, less its age then.
    pub(crate) stored: SystemTime,
    /// Record of media by content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<Record>,
}

/// Key of a cached object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RecordedKey {
    /// Media by content.
    Content(ContentId),
    /// Media by name.
    Named(String),
}

/// Maximum length of a record, in bytes: that of media by content, a name, and fields of the origin.
pub(super) const OBJECT_RECORD_BYTES: u64 = 64 * 1024;

/// Maximum length of a field of the origin that a record keeps, in bytes. A longer one is not kept, and an object with a
/// longer entity tag is invalid.
pub(crate) const FIELD_BYTES: usize = 1024;

impl ObjectRecord {
    /// Returns the record of an object that has arrived now.
    pub(crate) fn new(key: &ObjectKey, head: &ObjectHead, content: Option<Record>) -> Self {
        let now = SystemTime::now();
        let short = |text: &Option<String>| text.clone().filter(|text| text.len() <= FIELD_BYTES);
        ObjectRecord {
            key: key.into(),
            length: head.length,
            entity_tag: head.validators.entity_tag.clone(),
            modified: head.validators.modified,
            media_type: short(&head.media_type),
            cache_control: short(&head.freshness.cache_control),
            stored: now.checked_sub(head.freshness.age).unwrap_or(UNIX_EPOCH),
            content,
        }
    }

    /// Returns the metadata that each response of the origin has to agree with.
    pub(crate) fn head(&self) -> ObjectHead {
        let age = SystemTime::now().duration_since(self.stored);
        ObjectHead {
            length: self.length,
            validators: ObjectValidators {
                entity_tag: self.entity_tag.clone(),
                modified: self.modified,
            },
            media_type: self.media_type.clone(),
            freshness: FreshnessFields {
                cache_control: self.cache_control.clone(),
                age: age.unwrap_or(Duration::ZERO),
            },
        }
    }

    /// Whether two records are of the same bytes.
    pub(crate) fn is_same_version(&self, other: &ObjectRecord) -> bool {
        self.length == other.length
            && self.entity_tag == other.entity_tag
            && self.modified == other.modified
            && self.content == other.content
    }

    /// Returns the key.
    pub(crate) fn object_key(&self) -> ObjectKey {
        match &self.key {
            RecordedKey::Content(id) => ObjectKey::Content(*id),
            RecordedKey::Named(name) => ObjectKey::Named(name.clone()),
        }
    }

    /// Returns the information about the object for a component.
    pub(crate) fn info(&self) -> ObjectInfo {
        let name = match &self.key {
            RecordedKey::Content(_) => "",
            RecordedKey::Named(name) => name,
        };
        let media_type = match (&self.content, &self.media_type) {
            (Some(record), _) => record.media_type.clone(),
            (None, Some(media_type)) => media_type.clone(),
            (None, None) => names::media_type(name).to_owned(),
        };
        let access = self
            .content
            .as_ref()
            .map_or(Access::Public, |record| record.access);
        let mut info = ObjectInfo::new(self.length, media_type, access);
        info.modified = self.modified;
        match (&self.content, &self.key) {
            (Some(record), RecordedKey::Content(id)) => {
                info.digest = Some(*id);
                info.created = Some(record.created);
                let variants = record.variants.iter().map(|variant| {
                    let key = ObjectKey::Content(variant.id);
                    let mut variant_info = ObjectVariant::new(key, variant.media_type.clone());
                    variant_info
                        .content_coding
                        .clone_from(&variant.content_coding);
                    variant_info
                });
                info.variants = variants.collect();
            }
            _ => info.version = self.entity_tag.as_deref().and_then(version),
        }
        info
    }
}

impl From<&ObjectKey> for RecordedKey {
    fn from(key: &ObjectKey) -> Self {
        match key {
            ObjectKey::Content(id) => RecordedKey::Content(*id),
            ObjectKey::Named(name) => RecordedKey::Named(name.clone()),
        }
    }
}

/// Returns the version that an entity tag stands for (RFC 9110 section 8.8.3). `None` for one that is malformed.
fn version(entity_tag: &str) -> Option<ObjectVersion> {
    let (is_weak, opaque) = match entity_tag.strip_prefix("W/") {
        Some(opaque) => (true, opaque),
        None => (false, entity_tag),
    };
    let text = opaque.strip_prefix('"')?.strip_suffix('"')?;
    let is_visible = |byte: u8| byte.is_ascii_graphic() && byte != b'"';
    if text.is_empty() || !text.bytes().all(is_visible) {
        return None;
    }
    Some(match is_weak {
        true => ObjectVersion::Weak(text.to_owned()),
        false => ObjectVersion::Strong(text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    impl ObjectRecord {
        /// Returns a record of an object of this length.
        pub(crate) fn example(length: u64) -> Self {
            ObjectRecord {
                key: RecordedKey::Named("a b/c.gif".into()),
                length,
                entity_tag: Some("\"1\"".into()),
                modified: Some(UNIX_EPOCH + Duration::from_secs(1)),
                media_type: None,
                cache_control: Some("max-age=3".into()),
                stored: UNIX_EPOCH + Duration::from_secs(2),
                content: None,
            }
        }
    }

    #[test]
    fn entity_tags_become_versions() {
        let strong = |text: &str| Some(ObjectVersion::Strong(text.into()));
        for (entity_tag, expected) in [
            ("\"a-1\"", strong("a-1")),
            ("W/\"a\"", Some(ObjectVersion::Weak("a".into()))),
            ("\"\"", None),
            ("a", None),
            ("\"a b\"", None),
            ("\"a\"b\"", None),
            ("\"\u{e4}\"", None),
        ] {
            assert_eq!(version(entity_tag), expected, "{entity_tag}");
        }
    }

    #[test]
    fn the_media_type_is_the_origins_or_that_of_the_name() {
        let mut record = ObjectRecord::example(3);
        assert_eq!(record.info().media_type, "image/gif");
        record.media_type = Some("image/png".into());
        assert_eq!(record.info().media_type, "image/png");
    }
}
