//! The component's edge: WIT records to the plain types of this crate, and back.

use crate::answer;
use crate::imports::{
    Access, Imports, Info, Key, Object, SettingsError, StoreError, Timestamp, Variant, Version,
};
use crate::message::{Part, Request, Reuse};
use bindings::exports::millpond::media::media_serve as wit;
use bindings::millpond::media::media_store;
use bindings::wasi::config::store as config;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "media-guest",
        generate_all,
        with: {
            "wasi:io/error@0.2.12": ::wasi::io::error,
            "wasi:io/poll@0.2.12": ::wasi::io::poll,
            "wasi:io/streams@0.2.12": ::wasi::io::streams,
        },
    });
    use super::Component;
    export!(Component);
}

struct Component;

impl wit::Guest for Component {
    fn handle(request: wit::Request) -> wit::Response {
        let request = Request {
            method: &request.method,
            target: &request.target,
            fields: &request.fields,
            received: Timestamp(request.received),
            nonce: request.nonce,
            client: request.client.as_deref(),
        };
        answer::handle(&request, &Wasi).into()
    }
}

/// The imports of the world `media-guest`.
struct Wasi;

impl Imports for Wasi {
    type Object = media_store::Object;

    fn open(&self, key: &Key) -> Result<media_store::Object, StoreError> {
        media_store::open(&match key {
            Key::Content(id) => media_store::Key::Content(id.clone()),
            Key::Named(name) => media_store::Key::Named(name.clone()),
        })
        .map_err(StoreError::from)
    }

    fn settings(&self) -> Result<Vec<(String, String)>, SettingsError> {
        config::get_all().map_err(|_| SettingsError)
    }

    fn setting(&self, key: &str) -> Result<Option<String>, SettingsError> {
        config::get(key).map_err(|_| SettingsError)
    }
}

impl Object for media_store::Object {
    type Stream = wasi::io::streams::InputStream;

    fn info(&self) -> Info {
        let info = media_store::Object::info(self);
        Info {
            length: info.length,
            media_type: info.media_type,
            modified: info.modified.map(Timestamp),
            created: info.created.map(Timestamp),
            digest: info.digest,
            version: info.version.map(|version| match version {
                media_store::Version::Strong(text) => Version::Strong(text),
                media_store::Version::Weak(text) => Version::Weak(text),
            }),
            access: match info.access {
                media_store::Access::Public => Access::Public,
                media_store::Access::Private => Access::Private,
            },
        }
    }

    fn variants(&self) -> Vec<Variant> {
        let variants = media_store::Object::variants(self).into_iter();
        variants
            .map(|variant| Variant {
                key: match variant.key {
                    media_store::Key::Content(id) => Key::Content(id),
                    media_store::Key::Named(name) => Key::Named(name),
                },
                media_type: variant.media_type,
                content_coding: variant.content_coding,
            })
            .collect()
    }

    fn read(&self, offset: u64, length: u64) -> Result<Self::Stream, StoreError> {
        media_store::Object::read(self, offset, length).map_err(StoreError::from)
    }
}

impl From<media_store::Error> for StoreError {
    fn from(error: media_store::Error) -> Self {
        match error {
            media_store::Error::NotFound => StoreError::NotFound,
            media_store::Error::Busy => StoreError::Busy,
            media_store::Error::Failed => StoreError::Failed,
            media_store::Error::OutOfBounds => StoreError::OutOfBounds,
        }
    }
}

impl From<crate::message::Response<wasi::io::streams::InputStream>> for wit::Response {
    fn from(response: crate::message::Response<wasi::io::streams::InputStream>) -> Self {
        wit::Response {
            status: response.status.as_u16(),
            fields: response
                .fields
                .into_iter()
                .map(|(name, value)| (name.as_str().to_owned(), value.into_bytes()))
                .collect(),
            body: response.body.into_iter().map(wit::Part::from).collect(),
            reuse: response.reuse.map(wit::Reuse::from),
        }
    }
}

impl From<Part<wasi::io::streams::InputStream>> for wit::Part {
    fn from(part: Part<wasi::io::streams::InputStream>) -> Self {
        match part {
            Part::Bytes(bytes) => wit::Part::Bytes(bytes),
            Part::Stream { source, length } => {
                wit::Part::Stream(wit::StreamPart { source, length })
            }
        }
    }
}

impl From<Reuse> for wit::Reuse {
    fn from(reuse: Reuse) -> Self {
        wit::Reuse {
            depends_on: reuse
                .depends_on
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
            valid_for_ms: reuse.valid_for_ms,
        }
    }
}
