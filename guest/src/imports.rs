//! Imports of the component: a store of media, and settings (`wit/media-store.wit`, `wit/settings.wit`).
//!
//! The traits mirror the interfaces. The same logic runs against the real imports in a component, and against a table of
//! objects in a native test.

use millpond_format::Access;
use millpond_format::listing::{ListQuery, Listing};
use millpond_format::settings::Settings;
use millpond_format::signature::SigningKey;
use std::time::{Duration, SystemTime};

/// Imports of the component.
pub trait Imports {
    /// An open object.
    type Object: Object;

    /// Opens the object of a key.
    ///
    /// # Errors
    /// [`StoreError`].
    fn open(&self, key: &Key) -> Result<Self::Object, StoreError>;

    /// Lists a folder, page by page. `folder` is a path of plain segments, or empty for the root.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such folder, or if the store lists none.
    fn list(&self, folder: &str, query: &ListQuery) -> Result<Listing, StoreError>;

    /// Returns the settings, without secrets.
    ///
    /// # Errors
    /// [`SettingsError`] if they cannot be read.
    fn settings(&self) -> Result<Settings, SettingsError>;

    /// Returns the keys that sign URLs.
    ///
    /// # Errors
    /// [`SettingsError`] if they cannot be read.
    fn signing_keys(&self) -> Result<Vec<SigningKey>, SettingsError>;
}

/// Handle of a stream of `I`'s store: `input-stream` of `wasi:io`.
pub type InputStream<I> = <<I as Imports>::Object as Object>::InputStream;

/// The settings cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingsError;

/// An open object: `resource object` of `wit/media-store.wit`.
pub trait Object {
    /// Handle of a stream of its bytes.
    type InputStream;

    /// Returns the metadata of the object at the time when it was opened.
    fn info(&self) -> Info;

    /// Returns the other representations that the store has of the object.
    fn variants(&self) -> Vec<VariantInfo>;

    /// Returns a stream of `length` bytes from `offset` on.
    ///
    /// # Errors
    /// [`StoreError`].
    fn read(&self, offset: u64, length: u64) -> Result<Self::InputStream, StoreError>;
}

/// Name of one stored object: `variant key` of `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// SHA-256 of the object's bytes, as 64 lower-case hexadecimal digits.
    Content(String),
    /// Relative path of plain segments.
    Named(String),
}

/// Metadata of an object, known without reading it: `record info` of `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Length, in bytes.
    pub length: u64,
    /// Media type, as in a `Content-Type` field.
    pub media_type: String,
    /// Time of the last modification of the bytes.
    pub modified: Option<Timestamp>,
    /// Time at which the object was added to the store.
    pub created: Option<Timestamp>,
    /// SHA-256 of the whole object in lower-case hexadecimal, if the store knows it.
    pub digest: Option<String>,
    /// Version of the object's bytes.
    pub version: Option<Version>,
    /// Clients that may read the object: `enum access` of `wit/media-store.wit`.
    pub access: Access,
}

/// Identifies a state of an object's bytes: `variant version` of `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// No two contents that a key has ever had share this version.
    Strong(String),
    /// Two contents may share this version.
    Weak(String),
}

/// Another representation of the same resource: `record variant-info` of `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariantInfo {
    /// Key of the object that holds it.
    pub key: Key,
    /// Media type.
    pub media_type: String,
    /// Content coding, if it is encoded.
    pub content_coding: Option<String>,
}

/// Nanoseconds since 1970-01-01T00:00:00Z (`timestamp-ns` of `wit/media-store.wit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp(
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub u64,
);

/// Last second that both an HTTP-date and RFC 3339 can represent: 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

impl Timestamp {
    /// Whole seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// The same time in whole seconds, the resolution of an HTTP-date (RFC 9110 section 5.6.7).
    #[must_use]
    pub fn truncated_to_seconds(self) -> SystemTime {
        let seconds = self.seconds().min(LAST_SECOND);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }
}

/// Reason why a store cannot open or read an object: `error-code` and `read-error` of `wit/media-store.wit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreError {
    /// There is no such object.
    NotFound,
    /// The store has reached a limit of its own.
    Busy,
    /// The store failed.
    Failed,
    /// The range is beyond the end of the object.
    OutOfBounds,
}
