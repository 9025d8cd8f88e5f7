//! Media store in a folder.

use super::access_warning;
use super::beneath_dir::{BeneathDir, FileSystem, LocalOpenError};
use super::digest_cache::DigestCache;
use super::file_slice::{self, MediaFile, SMALL_BYTES};
use super::folder_listing;
use super::maintenance;
use super::media_store::{CacheUsage, MediaObject, MediaStore, OpenError};
use super::object_info::{ObjectInfo, ObjectKey, ObjectVariant, ObjectVersion};
use super::open_file_cache::{
    CachedFile, NEGATIVE_CACHE_BYTES, OPEN_FILE_CACHE_BYTES, OpenFileCache,
};
use super::thread_pool::{BlockingTask, ThreadPool, ThreadPools};
use super::version::FileVersion;
use arc_swap::ArcSwap;
use millpond_format::charset::with_charset;
use millpond_format::listing::{ENTRY_BYTES, ListQuery, Listing, MAX_ENTRIES};
use millpond_format::{Access, ContentId, RECORD_BYTES, Record};
use millpond_format::{names, version};
use millpond_ledger::heap;
use millpond_ledger::{Charge, Kind, LedgerHandle};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Semaphore;

/// A folder of media.
///
/// Keys are resolved beneath the folder's handle. They cannot leave it through `..`, an absolute path or a symbolic
/// link.
///
/// On Linux an open file cache holds up to 1,024 files and 4 MiB. A cached file is validated against the folder after
/// [`OPEN_FILE_CACHE_VALID`]. Until then a change, such as a new file, may go unnoticed. A thread closes cached files
/// that were deleted or are unused.
///
/// The same thread looks up the folder's path once a second. If another folder has taken its place, that one is served.
///
/// On Linux, file systems that may not answer (over a network, or FUSE) have threads of their own, 16 for each. As many
/// opens may wait, and further ones are [`OpenError::Busy`].
///
/// Clones share the handle.
#[derive(Debug, Clone)]
pub struct Folder(Arc<FolderState>);

/// State shared by the clones of a folder.
#[derive(Debug)]
struct FolderState {
    /// Path that was passed to [`Folder::open`]. Another folder may take its place.
    given_path: PathBuf,
    /// Real path at the start.
    path: PathBuf,
    root: ArcSwap<BeneathDir>,
    pools: ThreadPools,
    digest_cache: DigestCache,
    open_files: OpenFileCache,
    lookup: Mutex<RootLookup>,
    /// Permits of the listings that are read at the same time.
    listings: Arc<Semaphore>,
    /// Number of listings that wait for a permit or are read.
    listings_under_way: AtomicUsize,
}

/// Maximum number of folders that are read at the same time for listings.
const LISTINGS: usize = 2;

/// Maximum number of listings that wait for that. Each occupies an instance.
const WAITING_LISTINGS: usize = 16;

/// State of looking up the folder's path.
#[derive(Debug, Default)]
struct RootLookup {
    /// Start of the lookup in progress.
    started: Option<Instant>,
    /// Error of the last lookup.
    failed: Option<String>,
}

/// Time after which a lookup in progress counts as hanging.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Default time for which a cached file is used without validation. No human notices it, and a popular file is
/// validated a hundred times a second at most.
pub const OPEN_FILE_CACHE_VALID: Duration = Duration::from_millis(10);

impl Folder {
    /// Opens the folder.
    ///
    /// # Errors
    /// The folder does not exist or cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let pools = ThreadPools::new();
        let root = BeneathDir::open(path, &pools)?;
        let state = Arc::new(FolderState {
            given_path: std::path::absolute(path)?,
            path: root.path().to_owned(),
            root: ArcSwap::from_pointee(root),
            pools,
            digest_cache: DigestCache::new(),
            open_files: OpenFileCache::new(OPEN_FILE_CACHE_VALID),
            lookup: Mutex::default(),
            listings: Arc::new(Semaphore::new(LISTINGS)),
            listings_under_way: AtomicUsize::new(0),
        });
        maintenance::start(
            &state,
            FolderState::follow_path,
            FolderState::close_unneeded,
        )?;
        Ok(Folder(state))
    }

    /// Sets the time for which a cached file is used without validation. Zero validates for every request.
    #[must_use]
    pub fn with_open_file_cache_valid(self, valid: Duration) -> Self {
        self.set_open_file_cache_valid(valid);
        self
    }

    /// Sets that time while the folder is served.
    pub fn set_open_file_cache_valid(&self, valid: Duration) {
        self.0.open_files.set_valid(valid);
    }

    /// Opens an object, and charges it to `ledger` as long as it is open. Blocks on the file system;
    /// [`MediaStore::open`] does not.
    ///
    /// # Errors
    /// As [`MediaStore::open`].
    pub(crate) fn open_object(
        &self,
        key: &ObjectKey,
        ledger: &LedgerHandle,
    ) -> Result<MediaObject, OpenError> {
        let root = self.0.root.load_full();
        self.0.look_up(&root, key, &BlockingOpener(&root), ledger)
    }

    /// Opens an object on threads that may block on its file system.
    async fn open_on(
        &self,
        threads: &ThreadPool,
        key: &ObjectKey,
        ledger: &LedgerHandle,
    ) -> Result<MediaObject, OpenError> {
        let (folder, key, ledger) = (self.clone(), key.clone(), ledger.clone());
        let route = ledger.route().cloned();
        let open = move || folder.open_object(&key, &ledger);
        let opened = threads.open(heap::attribute(route, open));
        let opened = opened.map_err(|full| OpenError::Busy(io::Error::other(full)))?;
        opened.await.map_err(OpenError::Failed)?
    }
}

#[cfg(feature = "uploads")]
impl Folder {
    /// Path that was passed to [`Folder::open`], absolute.
    pub(crate) fn given_path(&self) -> &Path {
        &self.0.given_path
    }

    /// Forgets what is cached about a key, which this process has changed.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.0.open_files.remove(key);
    }

    /// Returns version and modification time of a named file, without the cache. `None` if there is none. Blocks on
    /// the file system.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn current_file(
        &self,
        name: &str,
    ) -> io::Result<Option<(Option<ObjectVersion>, Option<SystemTime>)>> {
        let root = self.0.root.load_full();
        match self.0.find_named(&root, name, &BlockingOpener(&root)) {
            Ok(found) => Ok(Some((found.info.version, found.info.modified))),
            Err(OpenError::NotFound) => Ok(None),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

impl FolderState {
    /// Looks up the folder's path, and switches to another folder if it leads there. Blocks on any file system.
    fn follow_path(&self) {
        self.lookup.lock().started = Some(Instant::now());
        let root = self.root.load_full();
        let found = root.is_at(&self.given_path).and_then(|is_same| {
            let new = (!is_same).then(|| BeneathDir::open(&self.given_path, &self.pools));
            new.transpose()
        });
        let failed = match found {
            Ok(None) => None,
            Ok(Some(new)) => {
                tracing::info!(folder = %self.given_path.display(), "the media folder was replaced by another one");
                self.root.store(Arc::new(new));
                self.open_files.clear();
                None
            }
            Err(error) => Some(format!("cannot open the media folder: {error}")),
        };
        let mut lookup = self.lookup.lock();
        lookup.started = None;
        if failed.is_some() && lookup.failed.is_none() {
            let error = failed.as_deref().unwrap_or_default();
            tracing::error!(folder = %self.given_path.display(), "{error}");
        }
        lookup.failed = failed;
    }

    /// Closes cached files that were deleted, replaced, or not used for this time.
    fn close_unneeded(&self, unused: Duration) {
        self.open_files.close_unneeded(&self.root.load(), unused);
    }

    fn look_up(
        &self,
        root: &BeneathDir,
        key: &ObjectKey,
        opener: &impl Opener,
        ledger: &LedgerHandle,
    ) -> Result<MediaObject, OpenError> {
        let looked_up_ns = self.open_files.now_ns();
        match self.find(root, key, opener) {
            Ok(found) => self.cache_object(key, found, ledger),
            Err(error) => {
                if matches!(error, OpenError::NotFound) {
                    self.open_files.insert_negative(key, looked_up_ns);
                }
                Err(error)
            }
        }
    }

    /// Returns an object to a request, and caches its file.
    fn cache_object(
        &self,
        key: &ObjectKey,
        found: FoundObject,
        ledger: &LedgerHandle,
    ) -> Result<MediaObject, OpenError> {
        let FoundObject {
            file,
            threads,
            info,
            versions,
        } = found;
        let info = Arc::new(info);
        let file = MediaFile::new(file, info.length).on(threads);
        let file = match versions {
            Some(versions) => {
                let file = Arc::new(file.with_bytes());
                let object = CachedFile::new(Arc::clone(&file), Arc::clone(&info), versions);
                self.open_files.insert(key.clone(), object);
                file
            }
            None => Arc::new(file),
        };
        Ok(MediaObject::of_open_file(file, info, ledger)?)
    }

    fn find(
        &self,
        root: &BeneathDir,
        key: &ObjectKey,
        opener: &impl Opener,
    ) -> Result<FoundObject, OpenError> {
        match key {
            ObjectKey::Content(id) => Self::find_content(id, opener),
            ObjectKey::Named(name) => self.find_named(root, name, opener),
        }
    }

    fn find_content(id: &ContentId, opener: &impl Opener) -> Result<FoundObject, OpenError> {
        let mut json = Vec::new();
        let record = open_file(&id.record_path(), opener)?;
        opener.read(&record, RECORD_BYTES, &mut json)?;
        let record_version = record.cacheable_version();
        let record = Record::parse(&json).ok_or(OpenError::NotFound)?;
        let content = open_file(&id.path(), opener)?;
        if content.length != record.size {
            return Err(OpenError::NotFound);
        }
        let info = ObjectInfo {
            length: content.length,
            media_type: record.media_type,
            modified: content.modified,
            created: Some(record.created),
            digest: Some(*id),
            version: None,
            access: record.access,
            variants: record
                .variants
                .into_iter()
                .map(|variant| ObjectVariant {
                    key: ObjectKey::Content(variant.id),
                    media_type: variant.media_type,
                    content_coding: variant.content_coding,
                })
                .collect(),
        };
        let versions = record_version.zip(content.cacheable_version());
        Ok(FoundObject {
            file: content.file,
            threads: content.file_system.threads,
            info,
            versions: versions.map(|(record_version, content_version)| {
                vec![
                    (id.record_path(), record_version),
                    (id.path(), content_version),
                ]
            }),
        })
    }

    fn find_named(
        &self,
        root: &BeneathDir,
        name: &str,
        opener: &impl Opener,
    ) -> Result<FoundObject, OpenError> {
        if !names::is_served(name) {
            return Err(OpenError::NotFound);
        }
        let path = Path::new(name);
        let media_type = names::media_type(name);
        // The version of the parent is read first. An unchanged parent proves that no variant was added or removed.
        let parent = path.parent().unwrap_or(Path::new(""));
        let has_siblings = names::siblings(name, media_type).next().is_some();
        let parent_version = || {
            root.try_version(parent)
                .filter(|version| !version.is_racy())
        };
        let parent_version = has_siblings.then(parent_version);
        let named = open_file(path, opener)?;
        let read = |offset, into: &mut [u8]| opener.read_at(&named.file, into, offset);
        let media_type = with_charset(media_type, named.length, read)?;
        let mut variants = Vec::new();
        for sibling in names::siblings(name, &media_type) {
            if opener.has_file(Path::new(&sibling.name))? {
                variants.push(ObjectVariant {
                    key: ObjectKey::Named(sibling.name),
                    media_type: sibling.media_type,
                    content_coding: sibling.content_coding.map(str::to_owned),
                });
            }
        }
        let digest = self.digest(&named, opener)?;
        let versions = match (named.cacheable_version(), parent_version) {
            // Not cached yet, because the digest will be part of the info.
            _ if digest.is_none() && self.digest_cache.is_digestible(named.length) => None,
            (Some(version), None) => Some(vec![(path.to_owned(), version)]),
            (Some(version), Some(Some(parent_version))) => Some(vec![
                (path.to_owned(), version),
                (parent.to_owned(), parent_version),
            ]),
            _ => None,
        };
        let info = ObjectInfo {
            length: named.length,
            media_type,
            modified: named.modified,
            created: None,
            version: named.object_version(digest.as_ref()),
            digest: digest.map(ContentId::from_digest),
            access: Access::Public,
            variants,
        };
        Ok(FoundObject {
            file: named.file,
            threads: named.file_system.threads,
            info,
            versions,
        })
    }

    /// Returns the digest of a named file, if it is known. The digest of a small file always is, unless the file is
    /// changing.
    fn digest(
        &self,
        named: &RegularFile,
        opener: &impl Opener,
    ) -> Result<Option<[u8; 32]>, OpenError> {
        let Some(version) = named.version else {
            return Ok(None);
        };
        if let Some(known) = self.digest_cache.get(&version) {
            return Ok(Some(known));
        }
        if named.is_small() {
            let mut bytes = Vec::new();
            opener.read(named, named.length, &mut bytes)?;
            let digest = || {
                let digest_cache = &self.digest_cache;
                digest_cache.insert_bytes(&bytes, &named.file, version, named.is_racy)
            };
            return Ok((bytes.len() as u64 == named.length).then(digest).flatten());
        }
        if !named.is_racy && self.digest_cache.is_digestible(named.length) {
            let threads = named.file_system.threads.as_ref();
            self.digest_cache
                .spawn_digest(version, &named.file, threads);
        }
        Ok(None)
    }
}

/// An object that was found. `versions` are the files and folders that it depends on. `None` if one of them is racy.
struct FoundObject {
    file: File,
    threads: Option<ThreadPool>,
    info: ObjectInfo,
    versions: Option<Vec<(PathBuf, FileVersion)>>,
}

/// An open regular file.
struct RegularFile {
    file: File,
    file_system: FileSystem,
    length: u64,
    modified: Option<SystemTime>,
    version: Option<FileVersion>,
    /// Whether a later change may keep the version. Determined before anything is read.
    is_racy: bool,
}

impl RegularFile {
    /// Version of the file, if it may be cached. A file system that may not answer could not validate it without
    /// waiting.
    fn cacheable_version(&self) -> Option<FileVersion> {
        let is_cacheable = !self.is_racy && self.file_system.threads.is_none();
        self.version.filter(|_| is_cacheable)
    }

    /// Whether the digest is computed when the file is opened.
    fn is_small(&self) -> bool {
        const _: () = assert!(SMALL_BYTES as u64 == version::DIGEST_BYTES);
        self.length <= version::DIGEST_BYTES
    }

    /// Version for the entity tag. For a small file it is the digest, which other machines compute alike. A larger
    /// file's digest comes later, and would change the tag.
    fn object_version(&self, digest: Option<&[u8; 32]>) -> Option<ObjectVersion> {
        match digest.filter(|_| self.is_small()) {
            Some(digest) => Some(ObjectVersion::Strong(version::text(digest))),
            None => Some(
                self.version?
                    .to_object_version(self.is_racy || self.is_small()),
            ),
        }
    }
}

/// Opens a regular file.
fn open_file(path: &Path, opener: &impl Opener) -> Result<RegularFile, OpenError> {
    let (file, file_system) = opener.open(path)?;
    let metadata = file.metadata().map_err(open_error)?;
    if !metadata.is_file() {
        return Err(OpenError::NotFound);
    }
    let version = FileVersion::of(&metadata);
    let is_racy = version.as_ref().is_none_or(FileVersion::is_racy);
    Ok(RegularFile {
        version,
        is_racy: is_racy || !file_system.tells_changes,
        length: metadata.len(),
        modified: metadata.modified().ok(),
        file,
        file_system,
    })
}

/// A way to open files beneath the folder.
trait Opener {
    fn open(&self, path: &Path) -> Result<(File, FileSystem), OpenError>;

    /// Returns whether there is a regular file.
    fn has_file(&self, path: &Path) -> Result<bool, OpenError>;

    /// Reads an open file from its start, `max_bytes` at most.
    fn read(
        &self,
        file: &RegularFile,
        max_bytes: u64,
        into: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        let read = (&file.file).take(max_bytes).read_to_end(into);
        read.map(drop).map_err(open_error)
    }

    /// Reads an open file from an offset on, and returns the number of bytes.
    fn read_at(&self, file: &File, into: &mut [u8], offset: u64) -> Result<usize, OpenError> {
        file_slice::read_at(file, into, offset).map_err(open_error)
    }
}

/// Opener that blocks on any file system.
struct BlockingOpener<'a>(&'a BeneathDir);

impl Opener for BlockingOpener<'_> {
    fn open(&self, path: &Path) -> Result<(File, FileSystem), OpenError> {
        self.0.open_file(path).map_err(|error| {
            access_warning::warn(path, &error);
            open_error(error)
        })
    }

    fn has_file(&self, path: &Path) -> Result<bool, OpenError> {
        Ok(self.0.has_file(path))
    }
}

/// Opener that waits for a local disk at most. If a path leads to another file system, each function fails, and
/// `other_threads` are its threads.
struct LocalOpener<'a> {
    root: &'a BeneathDir,
    other_threads: RefCell<Option<ThreadPool>>,
}

impl LocalOpener<'_> {
    fn local_open_error(&self, error: LocalOpenError) -> OpenError {
        match error {
            LocalOpenError::Failed(error) => open_error(error),
            LocalOpenError::Elsewhere(threads) => {
                self.other_threads.replace(Some(threads));
                would_block()
            }
        }
    }
}

impl Opener for LocalOpener<'_> {
    fn open(&self, path: &Path) -> Result<(File, FileSystem), OpenError> {
        self.root.open_local_file(path).map_err(|error| {
            if let LocalOpenError::Failed(error) = &error {
                access_warning::warn(path, error);
            }
            self.local_open_error(error)
        })
    }

    fn has_file(&self, path: &Path) -> Result<bool, OpenError> {
        self.root
            .has_local_file(path)
            .map_err(|error| self.local_open_error(error))
    }
}

/// Opener that does not wait. Each function fails with [`io::ErrorKind::WouldBlock`] if the kernel does not have the
/// file in memory.
struct CachedOpener<'a>(&'a BeneathDir);

impl Opener for CachedOpener<'_> {
    fn open(&self, path: &Path) -> Result<(File, FileSystem), OpenError> {
        self.0
            .try_open_file(path)
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => OpenError::NotFound,
                // A blocking open returns the error.
                _ => would_block(),
            })
    }

    fn has_file(&self, path: &Path) -> Result<bool, OpenError> {
        self.0.try_has_file(path).map_err(|_| would_block())
    }

    fn read(
        &self,
        file: &RegularFile,
        max_bytes: u64,
        into: &mut Vec<u8>,
    ) -> Result<(), OpenError> {
        let length = file.length.min(max_bytes);
        into.resize(usize::try_from(length).unwrap_or(0), 0);
        match file_slice::try_read_at(&file.file, into, 0) {
            Ok(count) if count == into.len() => Ok(()),
            _ => Err(would_block()),
        }
    }

    fn read_at(&self, file: &File, into: &mut [u8], offset: u64) -> Result<usize, OpenError> {
        file_slice::try_read_at(file, into, offset).map_err(|_| would_block())
    }
}

fn would_block() -> OpenError {
    OpenError::Busy(io::ErrorKind::WouldBlock.into())
}

impl MediaStore for Folder {
    async fn open(&self, key: &ObjectKey, ledger: &LedgerHandle) -> Result<MediaObject, OpenError> {
        let root = self.0.root.load_full();
        if let Some(threads) = root.threads() {
            return self.open_on(threads, key, ledger).await;
        }
        let local = {
            let (folder, key, ledger) = (self.clone(), key.clone(), ledger.clone());
            let route = ledger.route().cloned();
            let open = move || {
                let local = LocalOpener {
                    root: &root,
                    other_threads: RefCell::default(),
                };
                let opened = folder.0.look_up(&root, &key, &local, &ledger);
                match local.other_threads.into_inner() {
                    Some(threads) => Err(threads),
                    None => Ok(opened),
                }
            };
            BlockingTask::Runtime(tokio::task::spawn_blocking(heap::attribute(route, open)))
        };
        match local.await.map_err(OpenError::Failed)? {
            Ok(opened) => opened,
            Err(threads) => self.open_on(&threads, key, ledger).await,
        }
    }

    fn try_open(
        &self,
        key: &ObjectKey,
        ledger: &LedgerHandle,
    ) -> Option<Result<MediaObject, OpenError>> {
        let state = &*self.0;
        let root = state.root.load();
        if let Some(open_files) = state.open_files.get(&root, key) {
            let (file, info) = (Arc::clone(&open_files.file), Arc::clone(&open_files.info));
            return Some(MediaObject::of_open_file(file, info, ledger).map_err(OpenError::from));
        }
        if state.open_files.is_known_missing(key) {
            return Some(Err(OpenError::NotFound));
        }
        match state.look_up(&root, key, &CachedOpener(&root), ledger) {
            // A blocking open returns the error.
            Err(OpenError::Busy(_) | OpenError::Failed(_)) => None,
            result => Some(result),
        }
    }

    async fn list(
        &self,
        folder: &str,
        query: &ListQuery,
        ledger: &LedgerHandle,
    ) -> Result<Listing, OpenError> {
        if !folder.is_empty() && !names::is_served(folder) {
            return Err(OpenError::NotFound);
        }
        let root = self.0.root.load_full();
        let job = Box::new(ListJob {
            root: Arc::clone(&root),
            folder: folder.to_owned(),
            query: query.clone(),
            _page: ledger.charge(Kind::Buffers, listing_bytes(query))?,
        });
        if let Some(threads) = root.threads() {
            return job.run_on(threads).await;
        }
        if !folder.is_empty() && !root.try_may_be_folder(Path::new(folder)) {
            return Err(OpenError::NotFound);
        }
        let _under_way = ListingCount::new(&self.0.listings_under_way)?;
        let permit = Arc::clone(&self.0.listings).acquire_owned().await;
        let permit = permit.map_err(|closed| OpenError::Failed(io::Error::other(closed)))?;
        let local = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            job.run_on_local_disk()
        });
        match BlockingTask::Runtime(local)
            .await
            .map_err(OpenError::Failed)?
        {
            Ok(listed) => listed,
            Err((threads, job)) => job.run_on(&threads).await,
        }
    }

    fn cache_usage(&self) -> CacheUsage {
        CacheUsage {
            used_bytes: self.0.open_files.bytes(),
            max_bytes: OPEN_FILE_CACHE_BYTES + NEGATIVE_CACHE_BYTES,
        }
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.0.path)
    }

    fn unavailable(&self) -> Option<String> {
        let lookup = self.0.lookup.lock();
        let hangs = lookup
            .started
            .is_some_and(|started| started.elapsed() > LOOKUP_TIMEOUT);
        let hangs = hangs.then(|| "the media folder does not answer".to_owned());
        hangs.or_else(|| lookup.failed.clone())
    }

    fn runs_on_fiber_stack(&self) -> bool {
        true
    }

    fn limit_waiting(&self, opens: usize) {
        self.0.pools.limit_opens(opens);
    }
}

/// Returns the memory of reading one page of a folder, in bytes: the entries in order, and the system's buffer.
fn listing_bytes(query: &ListQuery) -> usize {
    const SYSTEM_BYTES: usize = 32 * 1024;
    match query.max.min(MAX_ENTRIES) as usize {
        0 => 0,
        entries => (entries + 1) * ENTRY_BYTES + SYSTEM_BYTES,
    }
}

/// Reading of one page of a folder.
struct ListJob {
    root: Arc<BeneathDir>,
    folder: String,
    query: ListQuery,
    /// Lasts as long as the job runs, even if nobody waits for it any more.
    _page: Charge,
}

impl ListJob {
    /// Reads the page on threads that may block on its file system.
    async fn run_on(self: Box<Self>, threads: &ThreadPool) -> Result<Listing, OpenError> {
        let listed = threads.open(move || {
            let metadata_of = |path: &Path| self.root.metadata(path);
            let listed = folder_listing::list(&self.root, &self.folder, &self.query, &metadata_of);
            listed.map_err(open_error)
        });
        let listed = listed.map_err(|full| OpenError::Busy(io::Error::other(full)))?;
        listed.await.map_err(OpenError::Failed)?
    }

    /// Reads the page, and waits for a local disk at most.
    ///
    /// # Errors
    /// The threads of the folder's file system, if that is no local disk, and the job.
    fn run_on_local_disk(self: Box<Self>) -> Result<Result<Listing, OpenError>, Elsewhere> {
        match self.root.check_local_folder(Path::new(&self.folder)) {
            Ok(()) => {
                let metadata_of = |path: &Path| self.root.local_metadata(path);
                let listed =
                    folder_listing::list(&self.root, &self.folder, &self.query, &metadata_of);
                Ok(listed.map_err(open_error))
            }
            Err(LocalOpenError::Failed(error)) => Ok(Err(open_error(error))),
            Err(LocalOpenError::Elsewhere(threads)) => Err((threads, self)),
        }
    }
}

/// A job whose folder is on no local disk, and the threads of its file system.
type Elsewhere = (ThreadPool, Box<ListJob>);

/// Counts one listing until it is dropped.
struct ListingCount<'a>(&'a AtomicUsize);

impl<'a> ListingCount<'a> {
    /// # Errors
    /// [`OpenError::Busy`], if too many wait.
    fn new(under_way: &'a AtomicUsize) -> Result<Self, OpenError> {
        let count = ListingCount(under_way);
        if under_way.fetch_add(1, Ordering::Relaxed) >= LISTINGS + WAITING_LISTINGS {
            return Err(OpenError::Busy(io::Error::other(
                "too many folders are being listed",
            )));
        }
        Ok(count)
    }
}

impl Drop for ListingCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn open_error(error: io::Error) -> OpenError {
    #[cfg(unix)]
    if let Some(code) = error.raw_os_error() {
        use rustix::io::Errno;
        return match Errno::from_raw_os_error(code) {
            // `AGAIN`: a folder on the path was renamed repeatedly.
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => OpenError::Busy(error),
            Errno::IO | Errno::STALE | Errno::TIMEDOUT => OpenError::Failed(error),
            // Missing, denied, not a folder on the path, too many links, name too long. The client learns only that
            // there is no such object.
            _ => OpenError::NotFound,
        };
    }
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => OpenError::NotFound,
        io::ErrorKind::OutOfMemory => OpenError::Busy(error),
        // `cap-std` refuses to leave the folder with an error of its own.
        _ if error.raw_os_error().is_none() => OpenError::NotFound,
        _ => OpenError::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use millpond_ledger::LedgerRegistry;
    use millpond_ledger::{Ledger, Owner};
    use std::fs;

    fn folder() -> (tempfile::TempDir, Folder) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("media")).unwrap();
        fs::write(root.path().join("secret.txt"), "secret").unwrap();
        let media = root.path().join("media");
        fs::write(media.join("a.gif"), "GIF89a").unwrap();
        fs::write(media.join(".env"), "secret").unwrap();
        fs::create_dir(media.join("b")).unwrap();
        fs::write(media.join("b/c d.mp4"), "").unwrap();
        let folder = Folder::open(&media).unwrap();
        (root, folder)
    }

    fn ledger() -> (Arc<LedgerRegistry>, Ledger) {
        let registry: Arc<LedgerRegistry> = Arc::default();
        let ledger = Ledger::new(&registry, Owner::Connection, usize::MAX);
        (registry, ledger)
    }

    fn open(folder: &Folder, name: &str) -> Result<MediaObject, OpenError> {
        folder.open_object(&ObjectKey::Named(name.into()), &ledger().1.handle())
    }

    #[test]
    fn files_by_name() {
        let (_root, folder) = folder();
        let (registry, ledger) = ledger();
        let open = |name: &str| {
            let key = ObjectKey::Named(name.into());
            folder.open_object(&key, &ledger.handle()).unwrap()
        };
        let gif = open("a.gif");
        assert_eq!(gif.info().length, 6);
        assert_eq!(gif.info().media_type, "image/gif");
        let mp4 = open("b/c d.mp4");
        assert_eq!(mp4.info().length, 0);
        assert_eq!(mp4.info().media_type, "video/mp4");
        assert_eq!(registry.in_use().files(), 2);
        drop((gif, mp4));
        assert_eq!(
            (registry.in_use().files(), ledger.balance().total()),
            (0, 0)
        );
    }

    #[test]
    fn nothing_outside_the_root_or_hidden_is_opened() {
        let (_root, folder) = folder();
        let long = "a".repeat(5000);
        for name in [
            "../secret.txt",
            "b/../../secret.txt",
            "/etc/passwd",
            "b/../a.gif",
            "./a.gif",
            "b//c d.mp4",
            "a.gif/",
            "a.gif/x",
            "b",
            "",
            ".",
            "..",
            ".env",
            "a.gif\0",
            &long,
        ] {
            let result = open(&folder, name);
            assert!(matches!(result, Err(OpenError::NotFound)), "{name:.40}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_within_the_root_only() {
        use std::os::unix::fs::symlink;
        let (root, folder) = folder();
        let media = root.path().join("media");
        symlink("a.gif", media.join("inside.gif")).unwrap();
        symlink("../secret.txt", media.join("relative")).unwrap();
        symlink(root.path().join("secret.txt"), media.join("absolute")).unwrap();
        symlink("..", media.join("up")).unwrap();
        symlink("loop", media.join("loop")).unwrap();
        assert!(open(&folder, "inside.gif").is_ok());
        for name in ["relative", "absolute", "up/secret.txt", "loop"] {
            let result = open(&folder, name);
            assert!(matches!(result, Err(OpenError::NotFound)), "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_named_pipe_is_no_object_and_does_not_hang() {
        let (root, folder) = folder();
        let pipe = root.path().join("media/pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        assert!(matches!(open(&folder, "pipe"), Err(OpenError::NotFound)));
    }

    #[test]
    fn content_is_not_served_by_name() {
        let (root, folder) = folder();
        let id = "ab".repeat(32);
        let inside = root.path().join("media/ab");
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join(&id), "secret").unwrap();
        fs::write(inside.join(format!("{id}.json")), "{}").unwrap();
        for name in [format!("ab/{id}"), format!("ab/{id}.json")] {
            let result = open(&folder, &name);
            assert!(matches!(result, Err(OpenError::NotFound)), "{name}");
        }
    }

    #[test]
    fn seed_r2_content_without_a_sound_record_is_not_served() {
        let (root, folder) = folder();
        let id: ContentId = "ab".repeat(32).parse().unwrap();
        let media = root.path().join("media");
        fs::create_dir(media.join("ab")).unwrap();
        fs::write(media.join(id.path()), "12345").unwrap();
        let (_accounts, ledger) = ledger();
        let opens = || {
            folder
                .open_object(&ObjectKey::Content(id), &ledger.handle())
                .is_ok()
        };
        assert!(!opens(), "no record");
        let record = |size: u64, access: &str| {
            format!(
                r#"{{"media_type":"image/gif","size":{size},"created":"2026-01-02T03:04:05Z","access":"{access}"}}"#
            )
        };
        for (json, served) in [
            (String::new(), false),
            (record(5, "public")[1..].to_owned(), false),
            (record(5, "secret"), false),
            (record(6, "public"), false),
            (" ".repeat(20_000) + &record(5, "public"), false),
            (record(5, "public"), true),
            // The guest checks the signature.
            (record(5, "private"), true),
        ] {
            fs::write(media.join(id.record_path()), &json).unwrap();
            assert_eq!(opens(), served, "{json:.80}");
        }
    }
}
