//! What the component is given: a store of media and a few settings (`wit/media-store.wit`).
//!
//! The traits mirror the WIT interfaces, so that the same logic runs against the real imports in a
//! component and against a table of objects in a native test.

use std::time::{Duration, SystemTime};

/// Everything that the component imports.
pub trait Imports {
    /// An open object.
    type Object: Object;

    /// Opens the object of that key.
    ///
    /// # Errors
    /// As `error` in `wit/media-store.wit`.
    fn open(&self, key: &Key) -> Result<Self::Object, StoreError>;

    /// The settings that are no secrets, by key, as `wit/world.wit` lists them.
    ///
    /// # Errors
    /// When the host cannot read them.
    fn settings(&self) -> Result<Vec<(String, String)>, SettingsError>;

    /// One setting, which may be a secret.
    ///
    /// # Errors
    /// As [`Imports::settings`].
    fn setting(&self, key: &str) -> Result<Option<String>, SettingsError>;
}

/// The host cannot read its settings: `error` of `wasi:config/store`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingsError;

/// An open object: `resource object` in `wit/media-store.wit`.
pub trait Object {
    /// A handle on a stream of its bytes.
    type Stream;

    /// What the store knew of the object when it was opened.
    fn info(&self) -> Info;

    /// The other representations that the store has of it.
    fn variants(&self) -> Vec<Variant>;

    /// A stream of exactly `length` bytes from `offset` on.
    ///
    /// # Errors
    /// As `error` in `wit/media-store.wit`.
    fn read(&self, offset: u64, length: u64) -> Result<Self::Stream, StoreError>;
}

/// What names one stored object: `variant key` in `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The SHA-256 of the object's bytes, 64 lower-case hexadecimal digits.
    Content(String),
    /// A relative path of plain segments.
    Named(String),
}

/// What a store knows of an object without reading it: `record info` in `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Length, in bytes.
    pub length: u64,
    /// Media type, as it stands in a `Content-Type` field.
    pub media_type: String,
    /// When the bytes were last modified.
    pub modified: Option<Timestamp>,
    /// When the object was added to the store.
    pub created: Option<Timestamp>,
    /// SHA-256 of the whole object, in lower-case hexadecimal, where the store knows it.
    pub digest: Option<String>,
    /// Tells this state of the object's bytes from every other.
    pub version: Option<Version>,
    /// Who may have it.
    pub access: Access,
}

/// A state of an object's bytes: `variant version` in `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// No two contents that a key has ever had share it.
    Strong(String),
    /// Two contents may share it.
    Weak(String),
}

/// Who may have an object: `enum access` in `wit/media-store.wit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Public,
    /// Whoever shows a right to it.
    Private,
}

/// Another representation of the same resource: `record variant-info` in `wit/media-store.wit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// The key of the object that holds it.
    pub key: Key,
    /// Its media type.
    pub media_type: String,
    /// Its content coding.
    pub content_coding: Option<String>,
}

/// A point in time: nanoseconds since 1970-01-01T00:00:00Z (`timestamp-ns` in `wit/media-store.wit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp(
    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub u64,
);

/// The last second that both an HTTP-date and RFC 3339 can write: 9999-12-31T23:59:59Z.
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
        let seconds = (self.0 / 1_000_000_000).min(LAST_SECOND);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }
}

/// Why a store did not do as asked: `enum error` in `wit/media-store.wit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreError {
    /// There is no such object.
    NotFound,
    /// The store is at a limit of its own.
    Busy,
    /// Reading failed.
    Failed,
    /// The bytes asked for reach past the end of the object.
    OutOfBounds,
}
