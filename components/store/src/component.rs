//! The storage: files of `wasi:filesystem`.

use bindings::wasi::filesystem::preopens::get_directories;
use bindings::wasi::filesystem::types::{
    Descriptor, DescriptorFlags, DescriptorStat, DescriptorType, ErrorCode, OpenFlags, PathFlags,
};
use millpond_format::charset::with_charset;
use millpond_format::listing::{Entry, EntryKind, ListOrder, ListQuery, Listing, PageSelector};
use millpond_format::{names, version};
use millpond_media_store::bindings::exports::millpond::media::media_store::{
    Access, ErrorCode as StoreError, Info, Key, VariantInfo, Version,
};
use millpond_media_store::bindings::wasi::io::streams::InputStream;
use millpond_media_store::{Metadata, OpenObject, Storage, Store, log};
use sha2::{Digest, Sha256};

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit", "../wit/p2"],
        world: "millpond:adapters/filesystem-imports",
        generate_all,
        with: {
            "wasi:io/error@0.2.12": millpond_media_store::bindings::wasi::io::error,
            "wasi:io/poll@0.2.12": millpond_media_store::bindings::wasi::io::poll,
            "wasi:io/streams@0.2.12": millpond_media_store::bindings::wasi::io::streams,
        },
    });
}

type StoreComponent = Store<PreopenedDirectory>;

millpond_media_store::bindings::export!(StoreComponent with_types_in millpond_media_store::bindings);

/// The first folder that the host preopens.
struct PreopenedDirectory(Descriptor);

impl Storage for PreopenedDirectory {
    type File = Descriptor;

    fn open() -> Result<Self, StoreError> {
        let mut directories = get_directories().into_iter();
        let Some((root, _)) = directories.next() else {
            log(
                "there is no folder of media: the host has to open one for the component, as in \
                 `wasmtime serve --dir FOLDER::/media`",
            );
            return Err(StoreError::Other(Some("no folder is preopened".to_owned())));
        };
        Ok(PreopenedDirectory(root))
    }

    fn open_file(&self, path: &str) -> Result<(Descriptor, Metadata), StoreError> {
        let (file, stat) = open_file(&self.0, path)?;
        let metadata = Metadata {
            length: stat.size,
            modified: modified(&stat),
        };
        Ok((file, metadata))
    }

    fn open_named(&self, name: &str) -> Result<OpenObject<Self>, StoreError> {
        open_named(&self.0, name)
    }

    fn list(&self, folder: &str, query: &ListQuery) -> Result<Listing, StoreError> {
        list(&self.0, folder, query)
    }

    fn read(file: &Descriptor, length: u64) -> Result<Vec<u8>, StoreError> {
        let mut all = Vec::new();
        loop {
            let offset = all.len() as u64;
            let left = length.saturating_sub(offset);
            if left == 0 {
                return Ok(all);
            }
            let (mut bytes, is_end) = file.read(left, offset).map_err(store_error)?;
            let is_end = is_end || bytes.is_empty();
            all.append(&mut bytes);
            if is_end {
                return Ok(all);
            }
        }
    }

    fn stream(file: &Descriptor, offset: u64, _length: u64) -> Result<InputStream, StoreError> {
        file.read_via_stream(offset).map_err(store_error)
    }
}

/// Digest and version of a file. The digest of a small file is its version as well.
///
/// No known WASI host reports a file's change time: wasmtime reports the creation time. A larger file therefore has
/// a weak version only.
fn digest_and_version(
    file: &Descriptor,
    stat: &DescriptorStat,
) -> Result<(Option<String>, Version), StoreError> {
    if stat.size <= version::DIGEST_BYTES {
        let bytes = PreopenedDirectory::read(file, stat.size)?;
        if bytes.len() as u64 == stat.size {
            let digest: [u8; 32] = Sha256::digest(bytes).into();
            let text = version::text(&digest);
            let digest = millpond_format::ContentId::from_digest(digest).to_string();
            return Ok((Some(digest), Version::Strong(text)));
        }
    }
    let mut hash = Sha256::new();
    hash.update(stat.size.to_be_bytes());
    hash.update(modified(stat).unwrap_or(0).to_be_bytes());
    if let Ok(metadata) = file.metadata_hash() {
        hash.update(metadata.upper.to_be_bytes());
        hash.update(metadata.lower.to_be_bytes());
    }
    Ok((None, Version::Weak(version::text(&hash.finalize().into()))))
}

fn open_named(root: &Descriptor, name: &str) -> Result<OpenObject<PreopenedDirectory>, StoreError> {
    if !names::is_served(name) {
        return Err(StoreError::NotFound);
    }
    let (file, stat) = open_file(root, name)?;
    let media_type = with_charset(names::media_type(name), stat.size, |offset, into| {
        let (bytes, _) = file.read(into.len() as u64, offset).map_err(store_error)?;
        let count = bytes.len().min(into.len());
        into[..count].copy_from_slice(&bytes[..count]);
        Ok::<_, StoreError>(count)
    })?;
    let exists = |name: &str| {
        let found = root.stat_at(PathFlags::SYMLINK_FOLLOW, name);
        found.is_ok_and(|stat| stat.type_ == DescriptorType::RegularFile)
    };
    let siblings = names::siblings(name, &media_type).filter(|sibling| exists(&sibling.name));
    let variants = siblings
        .map(|sibling| VariantInfo {
            key: Key::Named(sibling.name),
            media_type: sibling.media_type,
            content_coding: sibling.content_coding.map(str::to_owned),
        })
        .collect();
    let (digest, version) = digest_and_version(&file, &stat)?;
    Ok(OpenObject {
        file,
        info: Info {
            length: stat.size,
            media_type,
            modified: modified(&stat),
            created: None,
            digest,
            version: Some(version),
            access: Access::Public,
        },
        variants,
    })
}

/// Maximum number of entries that are read of one folder.
const MAX_READ: usize = 1_000_000;

/// Lists a folder by the rules of the host's own folder (`host/millpond/src/store/folder_listing.rs`).
fn list(root: &Descriptor, folder: &str, query: &ListQuery) -> Result<Listing, StoreError> {
    if !folder.is_empty() && !names::is_served(folder) {
        return Err(StoreError::NotFound);
    }
    let mut selector = PageSelector::new(query);
    let directory = open_folder(root, folder)?;
    if query.max == 0 {
        return Ok(Listing::default());
    }
    let entries = directory.read_directory().map_err(store_error)?;
    let mut read = 0;
    while let Some(found) = entries.read_directory_entry().map_err(store_error)? {
        read += 1;
        if read > MAX_READ {
            log(&format!(
                "a folder has more than {MAX_READ} entries: {folder}"
            ));
            return Err(StoreError::Io(None));
        }
        let (name, path) = (found.name.as_str(), join(folder, &found.name));
        if !selector.matches(name) || !names::is_served(&path) {
            continue;
        }
        let kind = match found.type_ {
            _ if selector.needs_metadata() => None,
            DescriptorType::Directory => Some(EntryKind::Folder),
            DescriptorType::RegularFile => Some(EntryKind::File {
                length: 0,
                media_type: String::new(),
            }),
            _ => None,
        };
        let entry = match kind {
            Some(kind) => Entry {
                name: name.to_owned(),
                modified_ns: None,
                kind,
            },
            None => match entry_of(root, name, &path) {
                Some(entry) => entry,
                None => continue,
            },
        };
        if entry.kind == EntryKind::Folder && has_content(root, name, &path) {
            continue;
        }
        selector.offer(entry);
    }
    let mut listing = selector.into_listing();
    if query.order == ListOrder::Name {
        for entry in &mut listing.entries {
            if let Some(found) = entry_of(root, &entry.name, &join(folder, &entry.name)) {
                *entry = found;
            }
        }
    }
    Ok(listing)
}

fn open_folder(root: &Descriptor, folder: &str) -> Result<Descriptor, StoreError> {
    let path = if folder.is_empty() { "." } else { folder };
    let (flags, access) = (OpenFlags::DIRECTORY, DescriptorFlags::READ);
    let opened = root.open_at(PathFlags::SYMLINK_FOLLOW, path, flags, access);
    opened.map_err(store_error)
}

/// Returns an entry with its metadata. `None` for what is neither a file nor a folder.
fn entry_of(root: &Descriptor, name: &str, path: &str) -> Option<Entry> {
    let stat = root.stat_at(PathFlags::SYMLINK_FOLLOW, path).ok()?;
    Some(Entry {
        name: name.to_owned(),
        modified_ns: modified(&stat),
        kind: match stat.type_ {
            DescriptorType::Directory => EntryKind::Folder,
            DescriptorType::RegularFile => EntryKind::File {
                length: stat.size,
                media_type: names::media_type(name).to_owned(),
            },
            _ => return None,
        },
    })
}

/// Returns whether a folder belongs to the content store, by its name and its first entries.
fn has_content(root: &Descriptor, name: &str, path: &str) -> bool {
    const FIRST: usize = 4;
    if !names::may_be_content_folder(name) {
        return false;
    }
    let Ok(entries) =
        open_folder(root, path).and_then(|folder| folder.read_directory().map_err(store_error))
    else {
        return false;
    };
    let mut first =
        std::iter::from_fn(|| entries.read_directory_entry().ok().flatten()).take(FIRST);
    first.any(|entry| names::is_content(name, &entry.name))
}

fn join(folder: &str, name: &str) -> String {
    match folder {
        "" => name.to_owned(),
        _ => format!("{folder}/{name}"),
    }
}

/// Opens a regular file. The host lets no path and no link lead out of the folder.
fn open_file(root: &Descriptor, path: &str) -> Result<(Descriptor, DescriptorStat), StoreError> {
    let require_regular = |stat: &DescriptorStat| match stat.type_ {
        DescriptorType::RegularFile => Ok(()),
        _ => Err(StoreError::NotFound),
    };
    // Opening a named pipe would wait for a writer and block the host, so the type is checked first.
    let found = root.stat_at(PathFlags::SYMLINK_FOLLOW, path);
    require_regular(&found.map_err(store_error)?)?;
    let (flags, access) = (OpenFlags::empty(), DescriptorFlags::READ);
    let file = root
        .open_at(PathFlags::SYMLINK_FOLLOW, path, flags, access)
        .map_err(store_error)?;
    let stat = file.stat().map_err(store_error)?;
    require_regular(&stat)?;
    Ok((file, stat))
}

fn store_error(error: ErrorCode) -> StoreError {
    match error {
        ErrorCode::InsufficientMemory | ErrorCode::Busy | ErrorCode::WouldBlock => StoreError::Busy,
        ErrorCode::Io => StoreError::Io(None),
        // A reason would tell a client too much, so the object counts as missing.
        _ => StoreError::NotFound,
    }
}

fn modified(stat: &DescriptorStat) -> Option<u64> {
    let modified = stat.data_modification_timestamp?;
    let nanoseconds = modified.seconds.checked_mul(1_000_000_000)?;
    nanoseconds.checked_add(modified.nanoseconds.into())
}
