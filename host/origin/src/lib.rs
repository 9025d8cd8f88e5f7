//! Media stores over object storage and HTTP origins, with a bounded cache on disk.

mod aws_files;
mod cache;
mod client;
mod fetch;
mod fill;
mod freshness;
mod import;
mod listing;
mod lookup;
#[cfg(feature = "metrics")]
mod metrics;
mod object_path;
mod operations;
mod origin;
mod origin_url;
mod store;

pub use cache::{CACHE_MIN_BYTES, CacheLimits, DiskCacheUsage};
pub use fetch::{Fetch, FetchError, FreshnessFields, HeadResponse, ObjectHead, ObjectValidators};
pub use freshness::FreshnessDefaults;
pub use import::{
    CONTENT_MAX_BYTES, HashedFile, OriginImportError, OriginImporter, UploadJournals, UploadedMedia,
};
#[cfg(feature = "metrics")]
pub use metrics::register_metrics;
pub use operations::{CachedObjectInfo, OriginFigures, Purge, WarmError, WarmState};
pub use origin::{Origin, OriginError, OriginOptions, credential_files};
pub use origin_url::{OriginUrl, OriginUrlError};
pub use store::{OriginLimits, OriginStore};
