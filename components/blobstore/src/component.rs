//! The component's edge: `millpond:media/media-store` over one container of `wasi:blobstore`, and the settings over
//! `wasi:cli/environment`.

use bindings::exports::millpond::media::media_store::{
    self as wit, Error, GuestObject, Info, Key, Object, VariantInfo,
};
use bindings::exports::wasi::config::store as config;
use bindings::wasi::blobstore::blobstore::get_container;
use bindings::wasi::blobstore::container::Container;
use bindings::wasi::blobstore::types::IncomingValue;
use bindings::wasi::cli::environment::get_environment;
use bindings::wasi::cli::stderr::get_stderr;
use bindings::wasi::io::streams::InputStream;
use millpond_store::content::{self, ContentId, RECORD_BYTES, Record, timestamp_ns};
use millpond_store::settings;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit", "../wit/p2"],
        world: "millpond:wasi/blobstore",
        generate_all,
    });
    use super::Component;
    export!(Component);
}

struct Component;

impl wit::Guest for Component {
    type Object = Opened;

    fn open(key: Key) -> Result<Object, Error> {
        match key {
            Key::Content(id) => open(&id).map(Object::new),
            // What an object is at the moment nothing tells: its bytes are read after its length, by its name, and
            // when it was created is told in no unit that is agreed on, or not at all. There would be no validator
            // for it, and no telling that all the pieces of an answer are of one object.
            Key::Named(_) => Err(Error::NotFound),
        }
    }
}

/// The container that the media lies in: the one that `MILLPOND_CONTAINER` names.
fn container() -> Result<Container, Error> {
    let named = settings::get(get_environment(), "container");
    let name = named.unwrap_or_else(|| "media".to_owned());
    get_container(&name).map_err(|error| {
        let line = format!("millpond: cannot open the container {name} of media, which MILLPOND_CONTAINER names: {error}\n");
        // Output takes so much at a time, and the first of it says what is amiss.
        let said = &line.as_bytes()[..line.len().min(4096)];
        // Where nobody reads it, the answer's status tells.
        let _ = get_stderr().blocking_write_and_flush(said);
        Error::Failed
    })
}

/// An object that was there when it was asked for. Unlike a file it is not held open; but what lies at the address of its
/// content is always the same.
struct Opened {
    container: Container,
    name: String,
    info: Info,
    variants: Vec<VariantInfo>,
}

fn open(id: &str) -> Result<Opened, Error> {
    let container = container()?;
    let id: ContentId = id.parse().map_err(|_| Error::NotFound)?;
    let record_name = id.record_path().to_string_lossy().into_owned();
    let length = length_of(&container, &record_name)?;
    // A larger one is damaged.
    if length > RECORD_BYTES {
        return Err(Error::NotFound);
    }
    let json = get(&container, &record_name, 0, length)?;
    let json = IncomingValue::incoming_value_consume_sync(json).map_err(failed)?;
    let record = Record::parse(&json).ok_or(Error::NotFound)?;
    let name = id.path().to_string_lossy().into_owned();
    let length = length_of(&container, &name)?;
    if length != record.size {
        return Err(Error::NotFound);
    }
    let variants = record.variants.into_iter();
    Ok(Opened {
        container,
        name,
        info: Info {
            length,
            media_type: record.media_type,
            modified: None,
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

fn length_of(container: &Container, name: &str) -> Result<u64, Error> {
    if !container.has_object(name).map_err(failed)? {
        return Err(Error::NotFound);
    }
    Ok(container.object_info(name).map_err(failed)?.size)
}

/// The bytes of an object from an offset on; none is read yet. Of no bytes there is no range: the first one stands for
/// them, and whoever takes no more than `length` takes none.
fn get(
    container: &Container,
    name: &str,
    offset: u64,
    length: u64,
) -> Result<IncomingValue, Error> {
    let last = offset.saturating_add(length.saturating_sub(1));
    container.get_data(name, offset, last).map_err(failed)
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
        let bytes = get(&self.container, &self.name, offset, length)?;
        IncomingValue::incoming_value_consume_async(bytes).map_err(failed)
    }
}

/// The interface's errors are texts for people, which do not tell one kind from another.
fn failed(_: String) -> Error {
    Error::Failed
}

impl config::Guest for Component {
    fn get(key: String) -> Result<Option<String>, config::Error> {
        Ok(settings::get(get_environment(), &key))
    }

    fn get_all() -> Result<Vec<(String, String)>, config::Error> {
        Ok(settings::listed(get_environment()))
    }
}
