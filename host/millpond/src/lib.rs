//! Media server library. A WebAssembly component answers the requests, and the memory of every request is accounted
//! for, limited and released.
//!
//! Start with [`Millpond`], which has an example. It is made of a component ([`Source`]), a store of media
//! ([`Folder`](store::Folder)), a [`Config`] for the component, and [`Limits`].
//!
//! [`Millpond`] is a `tower` service. It charges each request to a ledger, admits it, and gives it an instance of its
//! own, which opens media in a [`store`]. The instance is freed before the [`MediaBody`] of the response streams.
//! [`Limits`] sets the maximum of each resource. The [`LedgerRegistry`] knows the memory in use, and the [`Outcome`] of
//! the ended requests.
//!
//! The crate `millpond-server` drives the service over HTTP/1.1, HTTP/2 and TLS. Any other server that takes a `tower`
//! service does too.

#![deny(unsafe_code)]
#![cfg_attr(
    not(feature = "wasi-http"),
    allow(dead_code, unused_imports, reason = "parts that only `wasi:http` uses")
)]

mod body;
mod cache;
pub mod config;
pub mod downstream;
mod engine;
mod error;
mod error_response;
pub mod head_size;
mod limits;
mod media_service;
pub mod memory_plan;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod rate_limit;
#[cfg(feature = "uploads")]
mod request_content;
mod response_body;
mod service;
pub mod store;
#[allow(unsafe_code)]
mod sys;
#[cfg(feature = "uploads")]
mod upload;

pub use body::MediaBody;
pub use config::Config;
pub use engine::code_cache::code_cache_folder;
pub use engine::component::{ComponentError, Inspection, Source};
pub use limits::Limits;
pub use media_service::MediaService;
pub use memory_plan::{InsufficientMemory, MemoryPlan};
pub use millpond_ledger as ledger;
pub use millpond_ledger::{ACCESS_LOG, LedgerRegistry, Outcome, heap, monitor};
#[cfg(feature = "uploads")]
pub use request_content::{CONTENT_CHUNK_BYTES, RequestContent};
pub use response_body::{ResponseBody, Segment, SegmentLimits};
pub use service::{CacheBytes, CachedResponse, Millpond, ProbeError, Replacement};
#[cfg(feature = "uploads")]
pub use upload::{InvalidUploadToken, TOKEN_CHARACTERS, UploadToken, Uploads};
