//! The component's edge: `millpond:media/media-store` over one folder of `wasi:filesystem`, and the settings over
//! `wasi:cli/environment`.

use crate::charset::with_charset;
use crate::content::{self, ContentId, RECORD_BYTES, Record, timestamp_ns};
use crate::names;
use crate::settings;
use crate::version;
use bindings::exports::millpond::media::media_store::{
    self as wit, Error, GuestObject, Info, Key, Object, VariantInfo, Version,
};
use bindings::exports::wasi::config::store as config;
use bindings::wasi::cli::environment::get_environment;
use bindings::wasi::cli::stderr::get_stderr;
use bindings::wasi::filesystem::preopens::get_directories;
use bindings::wasi::filesystem::types::{
    Descriptor, DescriptorFlags, DescriptorStat, DescriptorType, ErrorCode, OpenFlags, PathFlags,
};
use bindings::wasi::io::streams::InputStream;
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
        world: "millpond:wasi/store",
        generate_all,
    });
    use super::Component;
    export!(Component);
}

struct Component;

impl wit::Guest for Component {
    type Object = Opened;

    fn open(key: Key) -> Result<Object, Error> {
        let root = root()?;
        match key {
            Key::Content(id) => open_content(&root, &id),
            Key::Named(name) => open_named(&root, &name),
        }
        .map(Object::new)
    }
}

/// The folder that the host opens for the component: the first, where there are several. Without one there is nothing to
/// look in, which is no visitor's mistake.
fn root() -> Result<Descriptor, Error> {
    let mut directories = get_directories().into_iter();
    let Some((root, _)) = directories.next() else {
        say(
            "there is no folder of media: the host has to open one for the component, as in \
             `wasmtime serve --dir FOLDER::/media`",
        );
        return Err(Error::Failed);
    };
    Ok(root)
}

/// Says what is amiss to whoever runs the host.
fn say(what: &str) {
    let line = format!("millpond: {what}\n");
    // Where nobody reads it, the answer's status tells.
    let _ = get_stderr().blocking_write_and_flush(line.as_bytes());
}

/// An open object.
struct Opened {
    file: Descriptor,
    info: Info,
    variants: Vec<VariantInfo>,
}

fn open_content(root: &Descriptor, id: &str) -> Result<Opened, Error> {
    let id: ContentId = id.parse().map_err(|_| Error::NotFound)?;
    let (record, _) = open_file(root, &id.record_path().to_string_lossy())?;
    // A larger one is cut, and then damaged.
    let record = Record::parse(&read(&record, RECORD_BYTES)?).ok_or(Error::NotFound)?;
    if record.access == content::Access::Private && !settings::has_keys(get_environment()) {
        say(
            "private media was asked for, and there is no key to sign URLs for it with: nobody can have it; set \
             MILLPOND_SIGNING_KEYS in the component's environment",
        );
    }
    let (file, stat) = open_file(root, &id.path().to_string_lossy())?;
    if stat.size != record.size {
        return Err(Error::NotFound);
    }
    let variants = record.variants.into_iter();
    Ok(Opened {
        file,
        info: Info {
            length: stat.size,
            media_type: record.media_type,
            modified: modified(&stat),
            created: Some(timestamp_ns(record.created)),
            digest: Some(id.to_string()),
            version: None,
            access: match record.access {
                content::Access::Public => wit::Access::Public,
                content::Access::Private => wit::Access::Private,
            },
        },
        variants: variants
            .map(|variant| VariantInfo {
                key: Key::Content(variant.id.to_string()),
                media_type: variant.media_type,
                content_coding: variant.content_coding,
            })
            .collect(),
    })
}

/// Reads a file from its beginning, `most_bytes` at most.
fn read(file: &Descriptor, most_bytes: u64) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    loop {
        let offset = all.len() as u64;
        let left = most_bytes - offset;
        if left == 0 {
            return Ok(all);
        }
        let (mut bytes, is_end) = file.read(left, offset).map_err(failed)?;
        let is_end = is_end || bytes.is_empty();
        all.append(&mut bytes);
        if is_end {
            return Ok(all);
        }
    }
}

/// The digest of a small file, which is its version too. No WASI host is known that tells a file's change time (wasmtime
/// gives when the file was created), so a larger file has no strong version.
fn digest_and_version(
    file: &Descriptor,
    stat: &DescriptorStat,
) -> Result<(Option<String>, Version), Error> {
    if stat.size <= version::DIGEST_BYTES {
        let bytes = read(file, stat.size)?;
        if bytes.len() as u64 == stat.size {
            let digest: [u8; 32] = Sha256::digest(bytes).into();
            let text = version::text(&digest);
            return Ok((Some(hex::encode(digest)), Version::Strong(text)));
        }
    }
    let mut hash = Sha256::new();
    hash.update(stat.size.to_be_bytes());
    hash.update(modified(stat).unwrap_or(0).to_be_bytes());
    if let Ok(of_metadata) = file.metadata_hash() {
        hash.update(of_metadata.upper.to_be_bytes());
        hash.update(of_metadata.lower.to_be_bytes());
    }
    Ok((None, Version::Weak(version::text(&hash.finalize().into()))))
}

fn open_named(root: &Descriptor, name: &str) -> Result<Opened, Error> {
    if !names::is_served(name) {
        return Err(Error::NotFound);
    }
    let (file, stat) = open_file(root, name)?;
    let media_type = with_charset(names::media_type(name), stat.size, |offset, into| {
        let (bytes, _) = file.read(into.len() as u64, offset).map_err(failed)?;
        let count = bytes.len().min(into.len());
        into[..count].copy_from_slice(&bytes[..count]);
        Ok::<_, Error>(count)
    })?;
    let is_there = |name: &str| {
        let found = root.stat_at(PathFlags::SYMLINK_FOLLOW, name);
        found.is_ok_and(|stat| stat.type_ == DescriptorType::RegularFile)
    };
    let siblings = names::siblings(name, &media_type).filter(|sibling| is_there(&sibling.name));
    let variants = siblings
        .map(|sibling| VariantInfo {
            key: Key::Named(sibling.name),
            media_type: sibling.media_type,
            content_coding: sibling.content_coding.map(str::to_owned),
        })
        .collect();
    let (digest, version) = digest_and_version(&file, &stat)?;
    Ok(Opened {
        file,
        info: Info {
            length: stat.size,
            media_type,
            modified: modified(&stat),
            created: None,
            digest,
            version: Some(version),
            access: wit::Access::Public,
        },
        variants,
    })
}

/// Opens a regular file. The host sees to it that no path and no link leads out of the folder.
fn open_file(root: &Descriptor, path: &str) -> Result<(Descriptor, DescriptorStat), Error> {
    let regular = |stat: &DescriptorStat| match stat.type_ {
        DescriptorType::RegularFile => Ok(()),
        _ => Err(Error::NotFound),
    };
    // Looked at before it is opened: opening a named pipe waits for a writer, and the host with it.
    let found = root.stat_at(PathFlags::SYMLINK_FOLLOW, path);
    regular(&found.map_err(failed)?)?;
    let (flags, access) = (OpenFlags::empty(), DescriptorFlags::READ);
    let file = root
        .open_at(PathFlags::SYMLINK_FOLLOW, path, flags, access)
        .map_err(failed)?;
    let stat = file.stat().map_err(failed)?;
    regular(&stat)?;
    Ok((file, stat))
}

impl GuestObject for Opened {
    fn info(&self) -> Info {
        self.info.clone()
    }

    fn variants(&self) -> Vec<VariantInfo> {
        self.variants.clone()
    }

    fn read(&self, offset: u64, length: u64) -> Result<InputStream, Error> {
        let end = offset.checked_add(length);
        if end.is_none_or(|end| end > self.info.length) {
            return Err(Error::OutOfBounds);
        }
        self.file.read_via_stream(offset).map_err(failed)
    }
}

fn failed(error: ErrorCode) -> Error {
    match error {
        ErrorCode::InsufficientMemory | ErrorCode::Busy | ErrorCode::WouldBlock => Error::Busy,
        ErrorCode::Io => Error::Failed,
        // To a visitor there is no such object, and to tell why would be to tell too much.
        _ => Error::NotFound,
    }
}

fn modified(stat: &DescriptorStat) -> Option<u64> {
    let modified = stat.data_modification_timestamp?;
    let nanoseconds = modified.seconds.checked_mul(1_000_000_000)?;
    nanoseconds.checked_add(modified.nanoseconds.into())
}

impl config::Guest for Component {
    fn get(key: String) -> Result<Option<String>, config::Error> {
        Ok(settings::get(get_environment(), &key))
    }

    fn get_all() -> Result<Vec<(String, String)>, config::Error> {
        Ok(settings::listed(get_environment()))
    }
}
