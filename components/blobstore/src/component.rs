//! The storage: objects of one container of `wasi:blobstore`.

use bindings::wasi::blobstore::blobstore::get_container;
use bindings::wasi::blobstore::types::IncomingValue;
use millpond_format::settings;
use millpond_media_store::bindings::exports::millpond::media::media_store::ErrorCode;
use millpond_media_store::bindings::wasi::cli::environment::get_environment;
use millpond_media_store::bindings::wasi::io::streams::InputStream;
use millpond_media_store::{Metadata, Storage, Store, log};
use std::rc::Rc;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit", "../wit/p2"],
        world: "millpond:adapters/blobstore-imports",
        generate_all,
        with: {
            "wasi:io/error@0.2.12": millpond_media_store::bindings::wasi::io::error,
            "wasi:io/poll@0.2.12": millpond_media_store::bindings::wasi::io::poll,
            "wasi:io/streams@0.2.12": millpond_media_store::bindings::wasi::io::streams,
        },
    });
}

type BlobstoreComponent = Store<Container>;

millpond_media_store::bindings::export!(BlobstoreComponent with_types_in millpond_media_store::bindings);

/// The container that `MILLPOND_CONTAINER` names; `media` by default.
///
/// It has no named files. An object's bytes are read after its length, by its name, and hosts disagree on the unit of its
/// creation time or report none. A named object would have no validator, and the parts of one response could be of two
/// objects.
struct Container(Rc<bindings::wasi::blobstore::container::Container>);

/// An object that existed when it was opened. It is not held open, but the bytes at a content address never change.
struct StoredObject {
    container: Rc<bindings::wasi::blobstore::container::Container>,
    name: String,
}

impl Storage for Container {
    type File = StoredObject;

    fn open() -> Result<Self, ErrorCode> {
        let environment = get_environment();
        let name = settings::value(&environment, "container").unwrap_or("media");
        let container = get_container(name).map_err(|error| {
            log(&format!(
                "cannot open the container {name} of media, which MILLPOND_CONTAINER names: {error}"
            ));
            ErrorCode::Other(Some(error))
        })?;
        Ok(Container(Rc::new(container)))
    }

    fn open_file(&self, path: &str) -> Result<(StoredObject, Metadata), ErrorCode> {
        if !self.0.has_object(path).map_err(store_error)? {
            return Err(ErrorCode::NotFound);
        }
        let metadata = Metadata {
            length: self.0.object_info(path).map_err(store_error)?.size,
            modified: None,
        };
        let object = StoredObject {
            container: Rc::clone(&self.0),
            name: path.to_owned(),
        };
        Ok((object, metadata))
    }

    fn read(file: &StoredObject, length: u64) -> Result<Vec<u8>, ErrorCode> {
        let bytes = file.get(0, length)?;
        IncomingValue::incoming_value_consume_sync(bytes).map_err(store_error)
    }

    fn stream(file: &StoredObject, offset: u64, length: u64) -> Result<InputStream, ErrorCode> {
        let bytes = file.get(offset, length)?;
        IncomingValue::incoming_value_consume_async(bytes).map_err(store_error)
    }
}

impl StoredObject {
    /// Requests bytes; none is read yet.
    ///
    /// The interface has no empty range. For `length` 0 the first byte is requested, and the caller takes none of it.
    fn get(&self, offset: u64, length: u64) -> Result<IncomingValue, ErrorCode> {
        let last = offset.saturating_add(length.saturating_sub(1));
        let found = self.container.get_data(&self.name, offset, last);
        found.map_err(store_error)
    }
}

/// The interface's errors are texts for people, without a kind.
fn store_error(message: String) -> ErrorCode {
    ErrorCode::Other(Some(message))
}
