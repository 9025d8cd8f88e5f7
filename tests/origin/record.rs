//! The record that an origin keeps of its requests.

use super::flushed_stream::Flushes;
use http::HeaderMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

/// A request that an origin got, and the progress of its response.
#[derive(Clone)]
pub(crate) struct RequestRecord {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) fields: HeaderMap,
    pub(crate) at: Instant,
    /// Number of the connection, from 0.
    pub(crate) connection: u64,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct Progress {
    sent_bytes: AtomicU64,
    is_over: AtomicBool,
}

impl RequestRecord {
    pub(crate) fn new(request: &http::request::Parts, connection: u64) -> Self {
        let path = request.uri.path_and_query();
        RequestRecord {
            method: request.method.to_string(),
            path: path.map_or("*", |path| path.as_str()).to_owned(),
            fields: request.headers.clone(),
            at: Instant::now(),
            connection,
            progress: Arc::default(),
        }
    }

    /// Returns the value of a field, such as `range`.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().unwrap())
    }

    /// Returns the number of bytes of the body that the origin has given to its connection. The client may have read fewer.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.progress.sent_bytes.load(Ordering::Acquire)
    }

    /// Whether the response has ended: all of it is sent, or its client has left.
    pub(crate) fn is_over(&self) -> bool {
        self.progress.is_over.load(Ordering::Acquire)
    }
}

/// All requests so far, in their order.
#[derive(Default)]
pub(crate) struct Records {
    list: Mutex<Vec<RequestRecord>>,
    changed: Condvar,
}

impl Records {
    pub(crate) fn add(&self, record: RequestRecord) {
        self.list.lock().unwrap().push(record);
        self.changed.notify_all();
    }

    pub(crate) fn all(&self) -> Vec<RequestRecord> {
        self.list.lock().unwrap().clone()
    }

    /// Waits, and blocks its thread, until the requests are such.
    pub(crate) fn wait_until(&self, are_such: impl Fn(&[RequestRecord]) -> bool) {
        let list = self.list.lock().unwrap();
        let waited = self.changed.wait_while(list, |list| !are_such(list));
        drop(waited.unwrap());
    }

    fn change(&self, change: impl FnOnce()) {
        // A waiting thread must not miss the change between its look and its sleep.
        let _list = self.list.lock().unwrap();
        change();
        self.changed.notify_all();
    }
}

/// The response to a request, while it is sent. Dropped, it is over.
pub(crate) struct ResponseProgress {
    records: Arc<Records>,
    progress: Arc<Progress>,
    flushes: Flushes,
}

impl ResponseProgress {
    pub(crate) fn of(record: &RequestRecord, records: &Arc<Records>, flushes: Flushes) -> Self {
        ResponseProgress {
            records: Arc::clone(records),
            progress: Arc::clone(&record.progress),
            flushes,
        }
    }

    /// Waits until the bytes so far have gone to the kernel.
    pub(crate) async fn flushed(&self) {
        self.flushes.next().await;
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.records.change(|| {
            self.progress.sent_bytes.fetch_add(bytes, Ordering::AcqRel);
        });
    }
}

impl Drop for ResponseProgress {
    fn drop(&mut self) {
        let over = &self.progress.is_over;
        self.records.change(|| over.store(true, Ordering::Release));
    }
}
