//! The objects that the rows ask for: in memory for the guest alone, in a folder for a host.

use super::table::{self, Common, Settings};
use crate::host::noise;
use millpond::store::{ContentId, Importer};
use millpond_format::listing::PageSelector;
use millpond_format::{names, settings, signature};
use millpond_guest::settings::SANDBOX;
use millpond_guest::{
    Access, Entry, EntryKind, Imports, Info, Key, ListQuery, Listing, Object, SettingsError,
    StoreError, Timestamp, VariantInfo, Version,
};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
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
    modified: Timestamp,
    coding: Option<String>,
    /// The name of the fixture that it is another representation of.
    variant_of: Option<String>,
    access: Access,
    served: bool,
    /// Values of the words that depend on it. `None` if it has no such value.
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
            .map(|(name, written)| (name.clone(), Fixture::new(common, name, written)))
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
        let adder = |access| match access {
            Access::Public => Importer::open(folder).unwrap(),
            Access::Private => Importer::open(folder).unwrap().private(),
        };
        let mut stored = BTreeMap::new();
        for fixture in self.objects.values() {
            let modified = SystemTime::UNIX_EPOCH + Duration::from_nanos(fixture.modified.0);
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
                    let adder = adder(fixture.access);
                    let added = adder.add(source.path(), |_| ()).unwrap();
                    assert_eq!(added.id.to_string(), *id);
                    let record = folder.join(added.id.record_path());
                    let mut json: serde_json::Value =
                        serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
                    json["created"] = self.created.clone().into();
                    fs::write(&record, json.to_string()).unwrap();
                    let path = folder.join(added.id.path());
                    stored.insert(id.clone(), added);
                    path
                }
            };
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(modified).unwrap();
        }
        // The listing of a folder tells when its folders were modified.
        for fixture in self.objects.values() {
            let Key::Named(name) = &fixture.key else {
                continue;
            };
            for above in Path::new(name).ancestors().skip(1) {
                let modified = SystemTime::UNIX_EPOCH + Duration::from_nanos(MODIFIED_NS);
                let above = File::open(folder.join(above)).unwrap();
                above.set_modified(modified).unwrap();
            }
        }
        // The variants of a named file are found by their names.
        for fixture in self.objects.values() {
            let original = fixture.variant_of.as_ref().map(|name| &self.get(name).key);
            if let (Key::Content(id), Some(Key::Content(original))) = (&fixture.key, original) {
                let (original, variant) = (&stored[original].id, &stored[id]);
                let adder = adder(fixture.access);
                adder
                    .add_variant(original, variant, fixture.coding.clone())
                    .unwrap();
            }
        }
    }

    /// The other representations of what has that key.
    fn variants_of(&self, key: &Key) -> Vec<VariantInfo> {
        let objects = self.objects.values();
        let of_it = objects.filter(|fixture| {
            let original = fixture.variant_of.as_ref();
            original.is_some_and(|name| self.get(name).key == *key)
        });
        of_it
            .map(|fixture| VariantInfo {
                key: fixture.key.clone(),
                media_type: fixture.media_type.clone(),
                content_coding: fixture.coding.clone(),
            })
            .collect()
    }
}

impl Fixture {
    fn new(common: &Common, own_name: &str, written: &table::Fixture) -> Self {
        let bytes = bytes(written);
        let length = bytes.len();
        let id = content_id(&bytes);
        // A variant is asked for where its original is.
        let original = written
            .variant_of
            .as_ref()
            .map(|name| &common.fixtures[name]);
        let asked = original.unwrap_or(written);
        let cache = written.cache.trim_matches(['{', '}']);
        let (key, path, id, modified) = match &written.name {
            Some(name) => (
                Key::Named(name.clone()),
                format!("/media/{}", asked.name.as_ref().unwrap_or(name)),
                None,
                // `Last-Modified` must not be in the future, so the field is absent.
                written
                    .modified
                    .is_none()
                    .then(|| common.words["equal"].clone()),
            ),
            None => (
                Key::Content(id.clone()),
                format!("/api/media/{}", content_id(&self::bytes(asked))),
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
        let is_document = DOCUMENTS.iter().any(|kind| written.r#type.contains(kind));
        let policy = is_document.then(|| SANDBOX.to_owned());
        Fixture {
            words: BTreeMap::from([
                ("path", Some(path)),
                ("id", id),
                ("etag", Some(etag(written, original))),
                (
                    "original-etag",
                    original.map(|original| etag(original, None)),
                ),
                ("length", Some(length.to_string())),
                ("type", Some(written.r#type.clone())),
                ("cache", Some(common.words[cache].clone())),
                ("modified", modified),
                ("info-etag", info_etag),
                ("digest", digest),
                ("policy", policy),
                ("coding", written.coding.clone()),
                (
                    "vary",
                    vary(common, written.variant_of.as_deref().unwrap_or(own_name)),
                ),
            ]),
            key,
            bytes,
            media_type: written.r#type.clone(),
            modified: modified_at(written),
            coding: written.coding.clone(),
            variant_of: written.variant_of.clone(),
            access: match written.private {
                true => Access::Private,
                false => Access::Public,
            },
            served: written.served,
        }
    }
}

/// Parts of the fixtures' media types in which browsers run scripts.
const DOCUMENTS: [&str; 3] = ["html", "xml", "message/"];

fn modified_at(written: &table::Fixture) -> Timestamp {
    let seconds = written.modified;
    Timestamp(seconds.map_or(MODIFIED_NS, |seconds| seconds * 1_000_000_000))
}

/// The entity tag: a named variant's also says what it is, since it may have the bytes of another.
fn etag(written: &table::Fixture, original: Option<&table::Fixture>) -> String {
    let bytes = bytes(written);
    if written.name.is_none() {
        return format!("\"{}\"", content_id(&bytes));
    }
    let other_type = original.filter(|original| original.r#type != written.r#type);
    let coding = original.and(written.coding.as_ref());
    let parts = [other_type.map(|_| &written.r#type), coding];
    let parts = parts.into_iter().flatten();
    let of_variant: String = parts.map(|part| format!("-{part}")).collect();
    format!("\"{}{of_variant}\"", version(&bytes))
}

/// The version of a named file, all of which are small here.
fn version(bytes: &[u8]) -> String {
    millpond_format::version::text(&Sha256::digest(bytes).into())
}

fn bytes(written: &table::Fixture) -> Arc<[u8]> {
    match &written.bytes {
        table::Bytes::Noise(length) => noise(*length).into(),
        table::Bytes::Text(text) => text.as_bytes().into(),
        table::Bytes::Latin1(text) => {
            let characters = text.chars();
            characters.map(|c| u8::try_from(c).unwrap()).collect()
        }
    }
}

fn content_id(bytes: &[u8]) -> String {
    ContentId::from_digest(Sha256::digest(bytes).into()).to_string()
}

/// `Vary` of an object: the fields that its representations differ in.
fn vary(common: &Common, original: &str) -> Option<String> {
    let of_type = &common.fixtures[original].r#type;
    let all = common.fixtures.values();
    let variants: Vec<_> = all
        .filter(|fixture| fixture.variant_of.as_deref() == Some(original))
        .collect();
    let by_type = variants.iter().any(|variant| variant.r#type != *of_type);
    let by_coding = variants.iter().any(|variant| variant.coding.is_some());
    let names = [
        by_type.then_some("accept"),
        by_coding.then_some("accept-encoding"),
    ];
    let names: Vec<_> = names.into_iter().flatten().collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// The store as the guest sees it, in memory: [`Imports`] without a component around it.
pub(crate) struct Shelf<'a> {
    pub(crate) fixtures: &'a Fixtures,
    pub(crate) settings: &'a Settings,
}

/// An open object of the shelf.
pub(crate) struct Item {
    info: Info,
    bytes: Arc<[u8]>,
    variants: Vec<VariantInfo>,
}

impl Imports for Shelf<'_> {
    type Object = Item;

    fn open(&self, key: &Key) -> Result<Item, StoreError> {
        let mut objects = self.fixtures.objects.values();
        let found = objects.find(|fixture| fixture.served && fixture.key == *key);
        let fixture = found.ok_or(StoreError::NotFound)?;
        let item = Item::new(
            Arc::clone(&fixture.bytes),
            &fixture.media_type,
            match key {
                Key::Content(id) => Some((id.clone(), timestamp(&self.fixtures.created))),
                Key::Named(_) => None,
            },
        );
        let info = Info {
            access: fixture.access,
            modified: Some(fixture.modified),
            ..item.info
        };
        let variants = self.fixtures.variants_of(key);
        Ok(Item {
            info,
            variants,
            ..item
        })
    }

    /// The folders are those on the paths of the named files.
    fn list(&self, folder: &str, query: &ListQuery) -> Result<Listing, StoreError> {
        let prefix = match folder {
            "" => String::new(),
            _ => format!("{folder}/"),
        };
        let mut entries = BTreeSet::new();
        let mut selector = PageSelector::new(query);
        for fixture in self.fixtures.objects.values() {
            let Key::Named(name) = &fixture.key else {
                continue;
            };
            let Some(below) = name.strip_prefix(&prefix) else {
                continue;
            };
            let (name, is_folder) = match below.split_once('/') {
                Some((name, _)) => (name, true),
                None => (below, false),
            };
            let is_new = entries.insert(name);
            if !is_new || !names::is_served(name) || !selector.matches(name) {
                continue;
            }
            selector.offer(Entry {
                name: name.to_owned(),
                modified_ns: Some(match is_folder {
                    true => MODIFIED_NS,
                    false => fixture.modified.0,
                }),
                kind: match is_folder {
                    true => EntryKind::Folder,
                    false => EntryKind::File {
                        length: fixture.bytes.len() as u64,
                        media_type: names::media_type(name).to_owned(),
                    },
                },
            });
        }
        match entries.is_empty() || (!folder.is_empty() && !names::is_served(folder)) {
            true => Err(StoreError::NotFound),
            false => Ok(selector.into_listing()),
        }
    }

    fn settings(&self) -> Result<settings::Settings, SettingsError> {
        let all = self.settings.iter();
        let environment: Vec<_> = all
            .map(|(key, value)| (settings::variable(key), value.clone()))
            .collect();
        settings::Settings::from_environment(&environment).map_err(|_| SettingsError)
    }

    fn signing_keys(&self) -> Result<Vec<signature::SigningKey>, SettingsError> {
        let keys = self.settings.get(settings::SIGNING_KEYS);
        settings::parse_signing_keys(keys.map_or("", String::as_str)).map_err(|_| SettingsError)
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
                version: Some(Version::Strong(version(&bytes))),
                access: Access::Public,
            },
            bytes,
            variants: Vec::new(),
        }
    }
}

impl Object for Item {
    /// The bytes that were asked for, which stand for a stream of them.
    type InputStream = Vec<u8>;

    fn info(&self) -> Info {
        self.info.clone()
    }

    fn variants(&self) -> Vec<VariantInfo> {
        self.variants.clone()
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
