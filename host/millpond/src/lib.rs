//! Serves media from a WebAssembly component, with the memory of every request known, bounded and given back.
//!
//! [`Millpond`] is a `tower` service. The life of a request is one function of it (in `service`): the request is charged to
//! its ledger, admitted, and given an instance of its own by the engine, which asks the [`store`]. The response is
//! checked, the instance freed, and the [`MediaBody`] streams. [`Limits`] says what a request may take,
//! [`LedgerRegistry`] what is held right now, and [`Outcome`] how they ended.

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
pub mod head_size;
pub mod limits;
mod media_service;
pub mod memory_plan;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod rate_limit;
mod service;
pub mod store;
#[allow(unsafe_code)]
mod sys;

pub use body::MediaBody;
pub use config::Config;
pub use engine::component::{ComponentError, EMBEDDED, Inspection, Source};
pub use limits::{Limit, Limits};
pub use media_service::MediaService;
pub use memory_plan::{InsufficientMemory, MemoryPlan};
pub use millpond_ledger as ledger;
pub use millpond_ledger::{
    ACCESS_LOG, Budget, LedgerRegistry, LiveRequest, Observer, Outcome, RequestCount, Route,
    RouteSnapshot, Snapshot, heap, monitor,
};
pub use service::{CacheBytes, CachedResponse, Millpond, ProbeError};
