//! The interface `millpond:media/media-store` over any storage, and the settings over `wasi:cli/environment`.
//!
//! A store component implements `Storage` for its storage and exports `Store` of it.
#![cfg(target_family = "wasm")]

use bindings::exports::millpond::media::media_store::{
    self as wit_store, Access, ErrorCode, Guest, GuestObject, Info, Key, Object, ReadError,
    VariantInfo,
};
use bindings::exports::millpond::media::settings as wit;
use bindings::wasi::cli::environment::get_environment;
use bindings::wasi::cli::stderr::get_stderr;
use bindings::wasi::io::streams::InputStream;
use millpond_format::listing::{Entry, EntryKind, ListOrder, ListQuery, Listing};
use millpond_format::settings::{self, InvalidSetting, SIGNING_KEYS, Settings};
use millpond_format::signature::SigningKey;
use millpond_format::{self as format, ContentId, RECORD_BYTES, Record, timestamp_ns};
use std::marker::PhantomData;
use std::path::Path;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
pub mod bindings {
    //! Bindings of the world `media-store-provider`.
    wit_bindgen::generate!({
        path: ["../../wit", "../wit/p2"],
        world: "millpond:adapters/media-store-provider",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "millpond_media_store::bindings",
    });
}

/// A place where media is stored.
pub trait Storage: Sized + 'static {
    /// An open file of the storage.
    type File: 'static;

    /// Opens the storage.
    ///
    /// # Errors
    /// If the host provides no storage.
    fn open() -> Result<Self, ErrorCode>;

    /// Opens the file at a path relative to the root.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] if there is no regular file.
    fn open_file(&self, path: &str) -> Result<(Self::File, Metadata), ErrorCode>;

    /// Opens a named file. By default there is none.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] if there is no such file, or if it may not be served.
    fn open_named(&self, _name: &str) -> Result<OpenObject<Self>, ErrorCode> {
        Err(ErrorCode::NotFound)
    }

    /// Lists a folder. By default there is none.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] if there is no such folder, or if the storage lists none.
    fn list(&self, _folder: &str, _query: &ListQuery) -> Result<Listing, ErrorCode> {
        Err(ErrorCode::NotFound)
    }

    /// Reads the first `length` bytes of a file; fewer if the file is shorter.
    ///
    /// # Errors
    /// If reading fails.
    fn read(file: &Self::File, length: u64) -> Result<Vec<u8>, ErrorCode>;

    /// Returns a stream whose first `length` bytes are those of the file from `offset` on. Nothing is read yet.
    ///
    /// # Errors
    /// If the storage refuses it.
    fn stream(file: &Self::File, offset: u64, length: u64) -> Result<InputStream, ErrorCode>;
}

/// Metadata of a file.
#[derive(Debug, Clone, Copy)]
pub struct Metadata {
    /// Length, in bytes.
    pub length: u64,
    /// Modification time, in nanoseconds since 1970.
    pub modified: Option<u64>,
}

/// An open object: `resource object` of `wit/media-store.wit`.
pub struct OpenObject<S: Storage> {
    /// The open file.
    pub file: S::File,
    /// Its description.
    pub info: Info,
    /// Its other representations.
    pub variants: Vec<VariantInfo>,
}

/// The component over a storage.
pub struct Store<S>(PhantomData<S>);

impl<S: Storage> Guest for Store<S> {
    type Object = OpenObject<S>;

    fn open(key: Key) -> Result<Object, ErrorCode> {
        let storage = S::open()?;
        match key {
            Key::Content(id) => open_content(&storage, &id),
            Key::Named(name) => storage.open_named(&name),
        }
        .map(Object::new)
    }

    fn list(folder: String, query: wit_store::ListQuery) -> Result<wit_store::Listing, ErrorCode> {
        let query = ListQuery {
            order: match query.order {
                wit_store::ListOrder::Name => ListOrder::Name,
                wit_store::ListOrder::Modified => ListOrder::Modified,
                wit_store::ListOrder::Length => ListOrder::Length,
            },
            descending: query.descending,
            search: query.search,
            after: query.after.map(|entry| Entry {
                name: entry.name,
                modified_ns: entry.modified,
                kind: match entry.kind {
                    wit_store::EntryKind::Folder => EntryKind::Folder,
                    wit_store::EntryKind::File(file) => EntryKind::File {
                        length: file.length,
                        media_type: file.media_type,
                    },
                },
            }),
            max: query.max,
        };
        let listing = S::open()?.list(&folder, &query)?;
        let entries = listing.entries.into_iter();
        Ok(wit_store::Listing {
            entries: entries.map(wit_entry).collect(),
            total: listing.total,
            has_more: listing.has_more,
        })
    }
}

fn wit_entry(entry: Entry) -> wit_store::Entry {
    wit_store::Entry {
        name: entry.name,
        modified: entry.modified_ns,
        kind: match entry.kind {
            EntryKind::Folder => wit_store::EntryKind::Folder,
            EntryKind::File { length, media_type } => {
                wit_store::EntryKind::File(wit_store::FileEntry { length, media_type })
            }
        },
    }
}

impl<S: Storage> GuestObject for OpenObject<S> {
    fn info(&self) -> Info {
        self.info.clone()
    }

    fn variants(&self) -> Vec<VariantInfo> {
        self.variants.clone()
    }

    fn read(&self, offset: u64, length: u64) -> Result<InputStream, ReadError> {
        let end = offset.checked_add(length);
        if end.is_none_or(|end| end > self.info.length) {
            return Err(ReadError::OutOfBounds);
        }
        S::stream(&self.file, offset, length).map_err(ReadError::Failed)
    }
}

fn open_content<S: Storage>(storage: &S, id: &str) -> Result<OpenObject<S>, ErrorCode> {
    let id: ContentId = id.parse().map_err(|_| ErrorCode::NotFound)?;
    let (file, metadata) = storage.open_file(&text(&id.record_path()))?;
    // A larger record is corrupt.
    if metadata.length > RECORD_BYTES {
        return Err(ErrorCode::NotFound);
    }
    let record = Record::parse(&S::read(&file, metadata.length)?).ok_or(ErrorCode::NotFound)?;
    if record.access == format::Access::Private && signing_keys().is_ok_and(|keys| keys.is_empty())
    {
        log(
            "private media was requested, but no key is configured to sign URLs with: no client can read it; set \
             MILLPOND_SIGNING_KEYS in the component's environment",
        );
    }
    let (file, metadata) = storage.open_file(&text(&id.path()))?;
    if metadata.length != record.size {
        return Err(ErrorCode::NotFound);
    }
    Ok(OpenObject {
        file,
        info: Info {
            length: metadata.length,
            media_type: record.media_type,
            modified: metadata.modified,
            created: timestamp_ns(record.created),
            digest: Some(id.to_string()),
            version: None,
            access: match record.access {
                format::Access::Public => Access::Public,
                format::Access::Private => Access::Private,
            },
        },
        variants: record.variants.into_iter().map(variant_info).collect(),
    })
}

fn variant_info(variant: format::Variant) -> VariantInfo {
    VariantInfo {
        key: Key::Content(variant.id.to_string()),
        media_type: variant.media_type,
        content_coding: variant.content_coding,
    }
}

/// Paths of the store are ASCII.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Writes a message for the operator of the host to standard error.
pub fn log(message: &str) {
    /// Maximum that a host accepts in one call.
    const MAX_BYTES: usize = 4096;
    let line = format!("millpond: {message}\n");
    let line = &line.as_bytes()[..line.len().min(MAX_BYTES)];
    // If the host closed standard error, the status of the response has to suffice.
    let _ = get_stderr().blocking_write_and_flush(line);
}

impl<S: Storage> wit::Guest for Store<S> {
    fn get() -> Result<wit::Settings, ()> {
        let settings = Settings::from_environment(&get_environment()).map_err(log_invalid)?;
        Ok(wit::Settings {
            mount_path: settings.mount_path,
            cors_origins: settings.cors_origins,
            cors_max_age_s: settings.cors_max_age_s,
            timing_allow_origin: settings.timing_allow_origin,
            cross_origin_resource_policy: settings.cross_origin_resource_policy,
            content_security_policy: settings.content_security_policy,
            cache_content: settings.cache_content,
            cache_files: settings.cache_files,
            negative_ttl_s: settings.negative_ttl_s,
            browse: settings.browse,
            uploads: settings.uploads,
        })
    }

    fn signing_keys() -> Result<Vec<wit::SigningKey>, ()> {
        let keys = signing_keys().map_err(log_invalid)?;
        let keys = keys.iter().map(|key| wit::SigningKey {
            id: key.id().to_owned(),
            secret: key.secret().to_owned(),
        });
        Ok(keys.collect())
    }
}

fn signing_keys() -> Result<Vec<SigningKey>, InvalidSetting> {
    let environment = get_environment();
    settings::parse_signing_keys(settings::value(&environment, SIGNING_KEYS).unwrap_or_default())
}

fn log_invalid(error: InvalidSetting) {
    log(&error.to_string());
}
