//! The objects that the rows ask for: in memory for the guest alone, in a folder for a host.

use super::table::{self, Common};
use crate::host::noise;
use millpond::store::{Adder, ContentId};
use millpond_guest::config::SANDBOX;
use millpond_guest::imports::{Access, Imports, Info, Key, Object, StoreError, Timestamp, Variant};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// All of them.
pub(crate) struct Fixtures {
    objects: BTreeMap<String, Fixture>,
    created: String,
}

/// One object.
pub(crate) struct Fixture {
    key: Key,
    pub(crate) bytes: Arc<[u8]>,
    media_type: String,
    served: bool,
    /// What the words that depend on it stand for; none where it has no such thing.
    pub(crate) words: BTreeMap<&'static str, Option<String>>,
}

/// When every object was modified: the RFC's own example, and some tenths of microseconds, which is what
/// every common file system keeps.
const MODIFIED_NS: u64 = 784_111_777_123_456_700;

impl Fixtures {
    pub(crate) fn new(common: &Common) -> Self {
        let objects = common
            .fixtures
            .iter()
            .map(|(name, written)| (name.clone(), Fixture::new(common, written)))
            .collect();
        Fixtures {
            objects,
            created: common.words["created"].clone(),
        }
    }

    pub(crate) fn get(&self, name: &str) -> &Fixture {
        let object = self.objects.get(name);
        object.unwrap_or_else(|| panic!("there is no fixture {name:?}"))
    }

    /// Puts them where a host serves from.
    pub(crate) fn put_into(&self, folder: &Path) {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_nanos(MODIFIED_NS);
        let adder = Adder::open(folder).unwrap();
        for fixture in self.objects.values() {
            let path = match &fixture.key {
                Key::Named(name) => {
                    let path = folder.join(name);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(&path, &fixture.bytes).unwrap();
                    path
                }
                Key::Content(id) => {
                    let source = tempfile::NamedTempFile::new().unwrap();
                    fs::write(source.path(), &fixture.bytes).unwrap();
                    let added = adder.add(source.path(), |_| ()).unwrap();
                    assert_eq!(added.id.to_string(), *id);
                    let record = folder.join(added.id.record_path());
                    let mut json: serde_json::Value =
                        serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
                    json["created"] = self.created.clone().into();
                    fs::write(&record, json.to_string()).unwrap();
                    folder.join(added.id.path())
                }
            };
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(modified).unwrap();
        }
    }
}

impl Fixture {
    fn new(common: &Common, written: &table::Fixture) -> Self {
        let bytes: Arc<[u8]> = match &written.bytes {
            table::Bytes::Noise(length) => noise(*length).into(),
            table::Bytes::Text(text) => text.as_bytes().into(),
        };
        let length = bytes.len();
        let id = ContentId::from_digest(Sha256::digest(&bytes).into()).to_string();
        let cache = written.cache.trim_matches(['{', '}']);
        let (key, path, etag, id, modified) = match &written.name {
            Some(name) => (
                Key::Named(name.clone()),
                format!("/media/{name}"),
                format!("\"{length:x}-{MODIFIED_NS:x}\""),
                None,
                Some(common.words["equal"].clone()),
            ),
            None => (
                Key::Content(id.clone()),
                format!("/api/media/{id}"),
                format!("\"{id}\""),
                Some(id),
                None,
            ),
        };
        let digest = written.name.is_none().then(|| {
            use base64ct::{Base64, Encoding};
            format!(
                "sha-256=:{}:",
                Base64::encode_string(&Sha256::digest(&bytes))
            )
        });
        let added = timestamp(&common.words["created"]).0;
        let info_etag = id.as_ref().map(|id| format!("\"{id}-{added:x}\""));
        let is_document = matches!(written.r#type.as_str(), "image/svg+xml" | "text/html");
        let policy = is_document.then(|| SANDBOX.to_owned());
        Fixture {
            words: BTreeMap::from([
                ("path", Some(path)),
                ("id", id),
                ("etag", Some(etag)),
                ("length", Some(length.to_string())),
                ("type", Some(written.r#type.clone())),
                ("cache", Some(common.words[cache].clone())),
                ("modified", modified),
                ("info-etag", info_etag),
                ("digest", digest),
                ("policy", policy),
            ]),
            key,
            bytes,
            media_type: written.r#type.clone(),
            served: written.served,
        }
    }
}

/// The store as the guest sees it, in memory: [`Imports`] without a component around it.
pub(crate) struct Shelf<'a> {
    pub(crate) fixtures: &'a Fixtures,
    pub(crate) files_at: &'a str,
}

/// An open object of the shelf.
pub(crate) struct Item {
    info: Info,
    bytes: Arc<[u8]>,
}

impl Imports for Shelf<'_> {
    type Object = Item;

    fn open(&self, key: &Key) -> Result<Item, StoreError> {
        let mut objects = self.fixtures.objects.values();
        let found = objects.find(|fixture| fixture.served && fixture.key == *key);
        let fixture = found.ok_or(StoreError::NotFound)?;
        Ok(Item::new(
            Arc::clone(&fixture.bytes),
            &fixture.media_type,
            match key {
                Key::Content(id) => Some((id.clone(), timestamp(&self.fixtures.created))),
                Key::Named(_) => None,
            },
        ))
    }

    fn settings(&self) -> Vec<(String, String)> {
        vec![("files-at".into(), self.files_at.to_owned())]
    }

    fn setting(&self, _key: &str) -> Option<String> {
        None
    }
}

impl Item {
    pub(crate) fn new(
        bytes: Arc<[u8]>,
        media_type: &str,
        stored: Option<(String, Timestamp)>,
    ) -> Self {
        let (digest, created) = stored.unzip();
        Item {
            info: Info {
                length: bytes.len() as u64,
                media_type: media_type.to_owned(),
                modified: Some(Timestamp(MODIFIED_NS)),
                created,
                digest,
                access: Access::Public,
            },
            bytes,
        }
    }
}

impl Object for Item {
    /// The bytes that were asked for, which stand for a stream of them.
    type Stream = Vec<u8>;

    fn info(&self) -> Info {
        self.info.clone()
    }

    fn variants(&self) -> Vec<Variant> {
        Vec::new()
    }

    fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, StoreError> {
        let end = offset.checked_add(length).ok_or(StoreError::OutOfBounds)?;
        let range = usize::try_from(offset).ok().zip(usize::try_from(end).ok());
        let (start, end) = range.ok_or(StoreError::OutOfBounds)?;
        let bytes = self.bytes.get(start..end);
        bytes.map(<[u8]>::to_vec).ok_or(StoreError::OutOfBounds)
    }
}

fn timestamp(rfc3339: &str) -> Timestamp {
    let time = humantime::parse_rfc3339(rfc3339).unwrap();
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp(since.as_nanos().try_into().unwrap())
}
