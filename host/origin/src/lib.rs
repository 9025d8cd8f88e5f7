//! Media stores over object storage and HTTP origins, with a bounded cache on disk.

mod fetch;

pub use fetch::{Fetch, FetchError, FreshnessFields, HeadResponse, ObjectHead, Validators};
