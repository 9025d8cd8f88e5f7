//! State of an instance of `media-serve`: its imports and its limits.

pub(crate) mod response;

use crate::config::GuestSettings;
use crate::engine::resource_limiter::{FixedCost, InstanceLimiter};
use crate::engine::store_limits::{self, CpuBudget, LimitedStore};
use crate::limits::{Limit, Limits};
use crate::store::{
    self, Access, ContentId, DynMediaStore, Entry, EntryKind, ListOrder, ListQuery, MediaObject,
    MediaStream, ObjectInfo, ObjectVersion, OpenError, OpenStreamError, PartialStream, TryRead,
    spawn_off_fiber,
};
use bytes::{Bytes, BytesMut};
use millpond_format::listing::ENTRY_BYTES;
use millpond_format::timestamp_ns;
use millpond_ledger::{Charge, Kind, Ledger, LedgerHandle, LimitExceeded};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi_io::IoView;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{DynInputStream, InputStream, StreamError, StreamResult};

pub(crate) use bindings::MediaGuestPre;
pub(crate) use bindings::exports::millpond::media::media_serve as serve;
use bindings::millpond::media::{media_store, settings};

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "media-guest",
        imports: {
            "millpond:media/media-store.open": async | trappable,
            "millpond:media/media-store.list": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
        with: {
            "wasi:io": wasmtime_wasi_io::bindings::wasi::io,
            "millpond:media/media-store.object": crate::engine::media::ObjectResource,
        },
    });
}

/// State of the store of one request.
pub(crate) struct StoreData {
    limiter: InstanceLimiter,
    table: ResourceTable,
    media: Arc<dyn DynMediaStore>,
    settings: Arc<GuestSettings>,
    streams: Vec<IssuedStream>,
    /// Objects that the guest opened, in order. `None` if the list is incomplete, so that the response cannot be
    /// stored.
    dependencies: Option<Vec<Dependency>>,
    cpu: CpuBudget,
    /// Memory of the last listing that the guest got.
    listing_charge: Charge,
    ledger: LedgerHandle,
}

/// A lookup in the media store that a response depends on.
#[derive(Debug, Clone)]
pub(crate) struct Dependency {
    pub(crate) key: store::ObjectKey,
    /// Info of the object. `None` if there was none.
    pub(crate) info: Option<Arc<ObjectInfo>>,
}

/// Maximum number of dependencies of a response. An object and its variants are a few.
const MAX_DEPENDENCIES: usize = 8;

/// An object of the guest: `resource object` of `wit/media-store.wit`.
#[allow(
    unreachable_pub,
    reason = "the bindings give it out under another name"
)]
pub struct ObjectResource {
    object: MediaObject,
    /// Index of its dependency.
    dependency: Option<usize>,
}

/// A stream that the guest has received.
struct IssuedStream {
    rep: u32,
    /// Weak, because the guest may drop the stream, and its handle may then be reused.
    unread: Weak<Mutex<MediaStream>>,
    dependency: Option<usize>,
}

impl StoreData {
    /// Defines the imports of the world `media-guest`, and nothing else.
    pub(crate) fn add_to_linker(linker: &mut Linker<Self>) -> wasmtime::Result<()> {
        wasmtime_wasi_io::add_to_linker_async(linker)?;
        settings::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
        media_store::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
    }

    /// Returns a store for one request, with every limit set.
    ///
    /// # Errors
    /// [`LimitExceeded`], if the request's memory does not suffice.
    pub(crate) fn store(
        engine: &Engine,
        fixed_cost: FixedCost,
        limits: &Limits,
        media: &Arc<dyn DynMediaStore>,
        settings: &Arc<GuestSettings>,
        ledger: &Ledger,
    ) -> Result<Store<Self>, LimitExceeded> {
        let state = StoreData {
            limiter: InstanceLimiter::new(ledger, limits, fixed_cost)?,
            table: store_limits::table(limits),
            media: Arc::clone(media),
            settings: Arc::clone(settings),
            streams: Vec::new(),
            dependencies: Some(Vec::new()),
            cpu: CpuBudget::new(limits),
            listing_charge: ledger.handle().empty_charge(Kind::Buffers),
            ledger: ledger.handle(),
        };
        Ok(store_limits::store(engine, limits, state))
    }

    /// Returns the guest's lookups, in order. `None` if the list is incomplete.
    pub(crate) fn take_dependencies(&mut self) -> Option<Vec<Dependency>> {
        self.dependencies.take()
    }

    /// Records a lookup, and returns its index.
    fn record_dependency(
        &mut self,
        key: store::ObjectKey,
        info: Option<Arc<ObjectInfo>>,
    ) -> Option<usize> {
        let dependencies = self.dependencies.as_mut()?;
        let index = dependencies.len();
        if index == MAX_DEPENDENCIES {
            self.dependencies = None;
            return None;
        }
        dependencies.push(Dependency { key, info });
        Some(index)
    }

    /// Removes a stream from the table. Returns its unread bytes and the index of its dependency. `None` if it is not a
    /// stream of the media store.
    pub(crate) fn take_stream(
        &mut self,
        handle: Resource<DynInputStream>,
    ) -> Option<(MediaStream, Option<usize>)> {
        let rep = handle.rep();
        let issued = self.streams.iter().rev().find(|issued| issued.rep == rep)?;
        let (stream, dependency) = (issued.unread.upgrade()?, issued.dependency);
        self.table.delete(handle).ok()?;
        let stream = stream.lock().clone();
        Some((stream, dependency))
    }
}

impl LimitedStore for StoreData {
    fn limiter(&self) -> &InstanceLimiter {
        &self.limiter
    }

    fn limiter_mut(&mut self) -> &mut InstanceLimiter {
        &mut self.limiter
    }

    fn cpu(&self) -> &CpuBudget {
        &self.cpu
    }
}

impl IoView for StoreData {
    fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl settings::Host for StoreData {
    fn get(&mut self) -> wasmtime::Result<Result<settings::Settings, ()>> {
        let settings = self.settings.typed();
        Ok(Ok(settings::Settings {
            mount_path: settings.mount_path.clone(),
            cors_origins: settings.cors_origins.clone(),
            cors_max_age_s: settings.cors_max_age_s,
            timing_allow_origin: settings.timing_allow_origin.clone(),
            cross_origin_resource_policy: settings.cross_origin_resource_policy.clone(),
            content_security_policy: settings.content_security_policy.clone(),
            cache_content: settings.cache_content.clone(),
            cache_files: settings.cache_files.clone(),
            negative_ttl_s: settings.negative_ttl_s,
            browse: settings.browse,
            uploads: settings.uploads,
        }))
    }

    fn signing_keys(&mut self) -> wasmtime::Result<Result<Vec<settings::SigningKey>, ()>> {
        let keys = self.settings.signing_keys().iter();
        let keys = keys.map(|key| settings::SigningKey {
            id: key.id().to_owned(),
            secret: key.secret().to_owned(),
        });
        Ok(Ok(keys.collect()))
    }
}

impl media_store::Host for StoreData {
    async fn open(
        &mut self,
        key: media_store::Key,
    ) -> wasmtime::Result<Result<Resource<ObjectResource>, media_store::ErrorCode>> {
        let key = match key {
            media_store::Key::Content(id) => {
                self.limiter.lift(id.len())?;
                match id.parse::<ContentId>() {
                    Ok(id) => store::ObjectKey::Content(id),
                    Err(_) => return Ok(Err(media_store::ErrorCode::NotFound)),
                }
            }
            media_store::Key::Named(name) => {
                self.limiter.lift(name.len())?;
                match store::ObjectKey::named(name) {
                    Some(key) => key,
                    None => return Ok(Err(media_store::ErrorCode::NotFound)),
                }
            }
        };
        let found = store::open(&self.media, &key, &self.ledger).await;
        match found.and_then(|object| hide_private_by_name(object, &key)) {
            Ok(object) => {
                if object.info().access == Access::Private {
                    self.settings.warn_of_private_without_key();
                }
                let dependency =
                    self.record_dependency(key, Some(Arc::clone(object.shared_info())));
                Ok(Ok(self
                    .table
                    .push(ObjectResource { object, dependency })?))
            }
            Err(error) => {
                match error {
                    OpenError::NotFound => drop(self.record_dependency(key, None)),
                    _ => self.dependencies = None,
                }
                Ok(Err(error_code(error, "cannot open media")?))
            }
        }
    }

    async fn list(
        &mut self,
        folder: String,
        query: media_store::ListQuery,
    ) -> wasmtime::Result<Result<media_store::Listing, media_store::ErrorCode>> {
        self.limiter.lift(folder.len())?;
        let query = self.list_query(query)?;
        let is_path = folder.is_empty() || store::ObjectKey::named(folder.clone()).is_some();
        if !is_path {
            return Ok(Err(media_store::ErrorCode::NotFound));
        }
        let media = Arc::clone(&self.media);
        match media.list(folder, query, self.ledger.clone()).await {
            Ok(listing) => {
                // A folder has no version, so nothing can validate a stored response.
                self.dependencies = None;
                self.listing_charge
                    .resize(listing.entries.len() * ENTRY_BYTES)
                    .map_err(Limit::from)?;
                Ok(Ok(media_store::Listing {
                    entries: listing
                        .entries
                        .into_iter()
                        .map(media_store::Entry::from)
                        .collect(),
                    total: listing.total,
                    has_more: listing.has_more,
                }))
            }
            // A folder that is made meanwhile may go unnoticed for as long as the response is fresh.
            Err(error) => {
                if !matches!(error, OpenError::NotFound) {
                    self.dependencies = None;
                }
                Ok(Err(error_code(error, "cannot list a folder")?))
            }
        }
    }
}

/// Returns the code of a store's error, and logs its text.
///
/// # Errors
/// [`Limit`], if the request reached a limit.
fn error_code(error: OpenError, message: &str) -> Result<media_store::ErrorCode, Limit> {
    match error {
        OpenError::NotFound => Ok(media_store::ErrorCode::NotFound),
        OpenError::Busy(_) => {
            tracing::warn!(%error, "{message}");
            Ok(media_store::ErrorCode::Busy)
        }
        OpenError::Exceeded(exceeded) => Err(Limit::from(exceeded)),
        OpenError::Failed(_) => {
            tracing::error!(%error, "{message}");
            Ok(media_store::ErrorCode::Io(None))
        }
    }
}

impl StoreData {
    /// Makes a query of a guest's.
    ///
    /// # Errors
    /// [`Limit`], if the texts exceed the limit of lifted bytes.
    fn list_query(&mut self, query: media_store::ListQuery) -> Result<ListQuery, Limit> {
        let texts = [
            query.search.as_ref(),
            query.after.as_ref().map(|entry| &entry.name),
        ];
        let lifted = texts.into_iter().flatten().map(String::len).sum();
        self.limiter.lift(lifted)?;
        Ok(ListQuery {
            order: match query.order {
                media_store::ListOrder::Name => ListOrder::Name,
                media_store::ListOrder::Modified => ListOrder::Modified,
                media_store::ListOrder::Length => ListOrder::Length,
            },
            descending: query.descending,
            search: query.search,
            after: query.after.map(|entry| Entry {
                name: entry.name,
                modified_ns: entry.modified,
                kind: match entry.kind {
                    media_store::EntryKind::Folder => EntryKind::Folder,
                    media_store::EntryKind::File(file) => EntryKind::File {
                        length: file.length,
                        media_type: file.media_type,
                    },
                },
            }),
            max: query.max,
        })
    }
}

impl From<Entry> for media_store::Entry {
    fn from(entry: Entry) -> Self {
        media_store::Entry {
            name: entry.name,
            modified: entry.modified_ns,
            kind: match entry.kind {
                EntryKind::Folder => media_store::EntryKind::Folder,
                EntryKind::File { length, media_type } => {
                    media_store::EntryKind::File(media_store::FileEntry { length, media_type })
                }
            },
        }
    }
}

/// Returns the object, unless it is private and was opened by name. A guest verifies signatures for content ids only,
/// and serves names to everyone.
pub(crate) fn hide_private_by_name(
    object: MediaObject,
    key: &store::ObjectKey,
) -> Result<MediaObject, OpenError> {
    let is_name = matches!(key, store::ObjectKey::Named(_));
    if is_name && object.info().access == Access::Private {
        tracing::warn!("private media was requested by name and is hidden");
        return Err(OpenError::NotFound);
    }
    Ok(object)
}

impl media_store::HostObject for StoreData {
    fn info(&mut self, object: Resource<ObjectResource>) -> wasmtime::Result<media_store::Info> {
        let info = self.table.get(&object)?.object.info();
        Ok(media_store::Info {
            length: info.length,
            media_type: info.media_type.clone(),
            modified: info.modified.and_then(timestamp_ns),
            created: info.created.and_then(timestamp_ns),
            digest: info.digest.map(|id| id.to_string()),
            version: info.version.as_ref().map(|version| match version {
                ObjectVersion::Strong(text) => media_store::Version::Strong(text.clone()),
                ObjectVersion::Weak(text) => media_store::Version::Weak(text.clone()),
            }),
            access: match info.access {
                Access::Public => media_store::Access::Public,
                Access::Private => media_store::Access::Private,
            },
        })
    }

    fn variants(
        &mut self,
        object: Resource<ObjectResource>,
    ) -> wasmtime::Result<Vec<media_store::VariantInfo>> {
        let variants = self.table.get(&object)?.object.info().variants.iter();
        Ok(variants
            .map(|variant| media_store::VariantInfo {
                key: match &variant.key {
                    store::ObjectKey::Content(id) => media_store::Key::Content(id.to_string()),
                    store::ObjectKey::Named(name) => media_store::Key::Named(name.clone()),
                },
                media_type: variant.media_type.clone(),
                content_coding: variant.content_coding.clone(),
            })
            .collect())
    }

    fn read(
        &mut self,
        object: Resource<ObjectResource>,
        offset: u64,
        length: u64,
    ) -> wasmtime::Result<Result<Resource<DynInputStream>, media_store::ReadError>> {
        let object = self.table.get(&object)?;
        let dependency = object.dependency;
        let stream = match object.object.read(offset, length) {
            Ok(stream) => stream,
            Err(OpenStreamError::OutOfBounds(_)) => {
                return Ok(Err(media_store::ReadError::OutOfBounds));
            }
            Err(OpenStreamError::Exceeded(exceeded)) => return Err(Limit::from(exceeded).into()),
        };
        let unread = Arc::new(Mutex::new(stream));
        let issued = Arc::downgrade(&unread);
        let stream: DynInputStream = Box::new(GuestStream {
            unread,
            ahead: Bytes::new(),
            ahead_charge: self.ledger.empty_charge(Kind::Buffers),
            failed: None,
        });
        let stream = self.table.push(stream)?;
        self.streams
            .retain(|issued| issued.unread.strong_count() > 0);
        self.streams.push(IssuedStream {
            rep: stream.rep(),
            unread: issued,
            dependency,
        });
        Ok(Ok(stream))
    }

    fn drop(&mut self, object: Resource<ObjectResource>) -> wasmtime::Result<()> {
        self.table.delete(object)?;
        Ok(())
    }
}

/// A stream of the media store for a guest that reads it. Most guests pass it to the host unread.
struct GuestStream {
    unread: Arc<Mutex<MediaStream>>,
    /// Bytes that were read for the guest, and that it has not taken yet.
    ahead: Bytes,
    ahead_charge: Charge,
    failed: Option<std::io::Error>,
}

/// Maximum bytes that a guest reads at a time.
const GUEST_READ_BYTES: usize = 16 * 1024;

/// Reads the next bytes of a stream with missing ones, once they are there.
async fn read_partial(mut partial: PartialStream) -> std::io::Result<Bytes> {
    loop {
        let taken = partial.take_available().map_err(std::io::Error::other)?;
        let Some(slice) = taken else {
            partial.wait().await?;
            continue;
        };
        let read = slice.spawn(|mut slice| {
            let mut buffer = BytesMut::new();
            slice.read(&mut buffer, GUEST_READ_BYTES)?;
            Ok(buffer.freeze())
        });
        return read.await.flatten();
    }
}

#[async_trait::async_trait]
impl Pollable for GuestStream {
    async fn ready(&mut self) {
        if !self.ahead.is_empty() || self.failed.is_some() || self.unread.lock().remaining() == 0 {
            return;
        }
        if let Err(exceeded) = self.ahead_charge.resize(GUEST_READ_BYTES) {
            self.failed = Some(std::io::Error::other(exceeded));
            return;
        }
        let unread = self.unread.lock().clone();
        let read = match unread {
            MediaStream::File(slice) => {
                let read = slice.spawn(|mut slice| {
                    let mut buffer = BytesMut::new();
                    slice.read(&mut buffer, GUEST_READ_BYTES)?;
                    Ok(buffer.freeze())
                });
                read.await.flatten()
            }
            MediaStream::ChunkStream(chunks) => {
                let read = spawn_off_fiber(chunks.read(GUEST_READ_BYTES));
                let read = read.await.map_err(std::io::Error::other).flatten();
                read.map(|(_, chunk)| chunk)
            }
            MediaStream::Partial(partial) => {
                let read = spawn_off_fiber(read_partial(partial)).await;
                read.map_err(std::io::Error::other).flatten()
            }
        };
        match read {
            Ok(read) => self.ahead = read,
            Err(error) => self.failed = Some(error),
        }
    }
}

#[async_trait::async_trait]
impl InputStream for GuestStream {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if let Some(error) = self.failed.take() {
            return Err(StreamError::LastOperationFailed(error.into()));
        }
        let mut unread = self.unread.lock();
        if unread.remaining() == 0 {
            return Err(StreamError::Closed);
        }
        let size = size.min(GUEST_READ_BYTES);
        if self.ahead.is_empty() {
            let MediaStream::File(slice) = &mut *unread else {
                return Ok(Bytes::new());
            };
            let mut buffer = BytesMut::new();
            return match slice.try_read(&mut buffer, size) {
                Ok(TryRead::Read) => Ok(buffer.freeze()),
                Ok(TryRead::WouldBlock) => Ok(Bytes::new()),
                Err(error) => Err(StreamError::LastOperationFailed(error.into())),
            };
        }
        let taken = self.ahead.split_to(size.min(self.ahead.len()));
        unread.skip(taken.len() as u64);
        Ok(taken)
    }
}
