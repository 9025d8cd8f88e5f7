//! Edge of the component: conversion between the interface's records and this crate's types.

use crate::handler::Handler;
use crate::imports::{
    Imports, Info, Key, Object, SettingsError, StoreError, Timestamp, VariantInfo, Version,
};
use crate::message::{Cacheability, Part, Request, Response};
use bindings::exports::millpond::media::media_serve as wit;
use bindings::millpond::media::media_store;
use bindings::millpond::media::settings;
use millpond_format::Access;
use millpond_format::listing::{Entry, EntryKind, ListOrder, ListQuery, Listing};
use millpond_format::settings::Settings;
use millpond_format::signature::SigningKey;
use std::marker::PhantomData;

#[allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
pub mod bindings {
    //! Bindings of the world `media-guest`.
    wit_bindgen::generate!({
        path: "wit",
        world: "media-guest",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "millpond_guest::component::bindings",
        with: {
            "wasi:io/error@0.2.12": ::wasi::io::error,
            "wasi:io/poll@0.2.12": ::wasi::io::poll,
            "wasi:io/streams@0.2.12": ::wasi::io::streams,
        },
    });
}

/// The component of a handler.
pub struct HandlerComponent<H>(PhantomData<H>);

impl<H: Handler> wit::Guest for HandlerComponent<H> {
    fn handle(request: wit::Request) -> wit::Response {
        let request = Request {
            method: &request.method,
            path_with_query: &request.path_with_query,
            headers: &request.headers,
            received: Timestamp(request.received),
            random: request.random,
            client: request.client.as_deref(),
        };
        H::handle(&request, &Wasi).into()
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

    fn list(&self, folder: &str, query: &ListQuery) -> Result<Listing, StoreError> {
        let listing = media_store::list(
            folder,
            &media_store::ListQuery {
                order: match query.order {
                    ListOrder::Name => media_store::ListOrder::Name,
                    ListOrder::Modified => media_store::ListOrder::Modified,
                    ListOrder::Length => media_store::ListOrder::Length,
                },
                descending: query.descending,
                search: query.search.clone(),
                after: query.after.clone().map(media_store::Entry::from),
                max: query.max,
            },
        )?;
        Ok(Listing {
            entries: listing.entries.into_iter().map(Entry::from).collect(),
            total: listing.total,
            has_more: listing.has_more,
        })
    }

    fn settings(&self) -> Result<Settings, SettingsError> {
        let settings = settings::get().map_err(|()| SettingsError)?;
        Ok(Settings {
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

    fn signing_keys(&self) -> Result<Vec<SigningKey>, SettingsError> {
        let keys = settings::signing_keys().map_err(|()| SettingsError)?;
        let keys = keys.into_iter();
        keys.map(|key| SigningKey::new(&key.id, &key.secret).ok_or(SettingsError))
            .collect()
    }
}

impl Object for media_store::Object {
    type InputStream = wasi::io::streams::InputStream;

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

    fn variants(&self) -> Vec<VariantInfo> {
        let variants = media_store::Object::variants(self).into_iter();
        variants
            .map(|variant| VariantInfo {
                key: match variant.key {
                    media_store::Key::Content(id) => Key::Content(id),
                    media_store::Key::Named(name) => Key::Named(name),
                },
                media_type: variant.media_type,
                content_coding: variant.content_coding,
            })
            .collect()
    }

    fn read(&self, offset: u64, length: u64) -> Result<Self::InputStream, StoreError> {
        media_store::Object::read(self, offset, length).map_err(StoreError::from)
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

impl From<media_store::Entry> for Entry {
    fn from(entry: media_store::Entry) -> Self {
        Entry {
            name: entry.name,
            modified_ns: entry.modified,
            kind: match entry.kind {
                media_store::EntryKind::Folder => EntryKind::Folder,
                media_store::EntryKind::File(file) => EntryKind::File {
                    length: file.length,
                    media_type: file.media_type,
                },
            },
        }
    }
}

impl From<media_store::ErrorCode> for StoreError {
    fn from(error: media_store::ErrorCode) -> Self {
        match error {
            media_store::ErrorCode::NotFound => StoreError::NotFound,
            media_store::ErrorCode::Busy => StoreError::Busy,
            media_store::ErrorCode::Io(_) | media_store::ErrorCode::Other(_) => StoreError::Failed,
        }
    }
}

impl From<media_store::ReadError> for StoreError {
    fn from(error: media_store::ReadError) -> Self {
        match error {
            media_store::ReadError::OutOfBounds => StoreError::OutOfBounds,
            media_store::ReadError::Failed(error) => error.into(),
        }
    }
}

impl From<Response<wasi::io::streams::InputStream>> for wit::Response {
    fn from(response: Response<wasi::io::streams::InputStream>) -> Self {
        wit::Response {
            status_code: response.status.as_u16(),
            headers: response
                .headers
                .into_iter()
                .map(|(name, value)| (name.as_str().to_owned(), value.into_bytes()))
                .collect(),
            body: response.body.into_iter().map(wit::Part::from).collect(),
            cacheability: response.cacheability.map(wit::Cacheability::from),
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

impl From<Cacheability> for wit::Cacheability {
    fn from(cacheability: Cacheability) -> Self {
        let names = cacheability.vary.iter();
        wit::Cacheability {
            vary: names.map(|name| (*name).to_owned()).collect(),
            max_age_ms: cacheability.max_age_ms,
        }
    }
}
