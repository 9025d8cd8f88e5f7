//! Reader of a range of an object of which the cache lacks some bytes.

use super::Filler;
use super::progress::{FillError, FillInterest};
use crate::cache::chunk_map::CHUNK_BYTES;
use crate::cache::object::CachedObject;
use crate::fetch::FetchError;
use bytes::Bytes;
use millpond::store::{ForwardReason, PartialFile, ReadAt, SharedFile};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// Maximum number of fills of a chunk that fail before its reader fails.
const ATTEMPTS: usize = 3;

/// Distance from the end of a fill at which a reader starts the next one, in bytes.
const READ_AHEAD_BYTES: u64 = 8 * 1024 * 1024;

/// An object that its file has in part.
pub(crate) struct PartialObject {
    pub(crate) filler: Arc<Filler>,
    pub(crate) object: Arc<CachedObject>,
    pub(crate) file: SharedFile,
}

/// Reader of a range.
pub(crate) struct RangeReader {
    filler: Arc<Filler>,
    source: Mutex<(Arc<CachedObject>, SharedFile)>,
    /// Offset after the last byte of the range.
    end: u64,
    /// Fill that the reader follows.
    current: Mutex<Option<FillInterest>>,
    /// Fill of the chunks after that.
    ahead: Mutex<Option<FillInterest>>,
}

impl PartialFile for PartialObject {
    type Reader = RangeReader;

    fn has(&self, offset: u64, length: u64) -> bool {
        self.object.chunks().available(offset, length) == length
    }

    fn reader(&self, offset: u64, length: u64) -> (RangeReader, ForwardReason) {
        let end = offset.saturating_add(length);
        let (first, last) = (offset / CHUNK_BYTES, end.saturating_sub(1) / CHUNK_BYTES);
        let has_some = (first..=last).any(|chunk| self.object.chunks().has(chunk));
        let reason = match has_some {
            true => ForwardReason::Partial,
            false => ForwardReason::Miss,
        };
        let reader = RangeReader {
            filler: Arc::clone(&self.filler),
            source: Mutex::new((Arc::clone(&self.object), self.file.clone())),
            end,
            current: Mutex::new(None),
            ahead: Mutex::new(None),
        };
        (reader, reason)
    }
}

impl ReadAt for RangeReader {
    async fn read_at(&self, offset: u64, max_bytes: usize) -> io::Result<Bytes> {
        let mut failures = 0;
        loop {
            let (object, file) = self.source.lock().clone();
            if object.is_changed() {
                return Err(io::Error::other(FetchError::Changed));
            }
            let available = object.chunks().available(offset, max_bytes as u64);
            if available > 0 {
                self.read_ahead(&object, &file, offset + available);
                return read(&file, offset, available).await;
            }
            let chunk = offset / CHUNK_BYTES;
            let Some(interest) = self.follow(&object, &file, chunk).await? else {
                continue;
            };
            match interest.wait_for(offset).await {
                Ok(Some(written)) => {
                    let count = (written - offset).min(max_bytes as u64);
                    *self.current.lock() = Some(interest);
                    self.read_ahead(&object, &file, offset + count);
                    return read(&file, offset, count).await;
                }
                Ok(None) => {}
                Err(error) => {
                    failures += 1;
                    if failures == ATTEMPTS || !is_transient(&error) {
                        return Err(io::Error::other(error));
                    }
                }
            }
        }
    }
}

impl RangeReader {
    /// Returns the fill of a missing chunk. `None` if the chunk is there, or another file has taken the place of this one.
    async fn follow(
        &self,
        object: &Arc<CachedObject>,
        file: &SharedFile,
        chunk: u64,
    ) -> io::Result<Option<FillInterest>> {
        let is_of_chunk = |fill: &FillInterest| fill.chunks().contains(&chunk) && !fill.has_ended();
        for followed in [&self.current, &self.ahead] {
            let fill = followed.lock().take().filter(is_of_chunk);
            if fill.is_some() {
                return Ok(fill);
            }
        }
        if let Some(renewed) = self.filler.renew(object).await? {
            *self.source.lock() = renewed;
            return Ok(None);
        }
        Ok(self.filler.follow(object, file, chunk, self.end))
    }

    /// Starts the fill of the next missing chunk of the range, if the reader is near it.
    fn read_ahead(&self, object: &Arc<CachedObject>, file: &SharedFile, offset: u64) {
        let horizon = offset.saturating_add(READ_AHEAD_BYTES).min(self.end);
        let mut at = offset;
        if let Some(fill) = &*self.current.lock()
            && !fill.has_ended()
        {
            at = at.max(fill.chunks().end * CHUNK_BYTES);
        }
        let mut ahead = self.ahead.lock();
        if ahead.as_ref().is_some_and(|fill| !fill.has_ended()) || at >= horizon {
            return;
        }
        at += object.chunks().available(at, horizon - at);
        if at < horizon && !object.is_discarded() {
            *ahead = self.filler.follow(object, file, at / CHUNK_BYTES, self.end);
        }
    }
}

/// Reads bytes that the file has. Such a read needs a buffer of its own, which the host has charged.
async fn read(file: &SharedFile, offset: u64, count: u64) -> io::Result<Bytes> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    file.read_at(offset, count).await
}

/// Whether another fill of the chunk may succeed.
fn is_transient(error: &FillError) -> bool {
    match error {
        FillError::Fetch(FetchError::NoRanges | FetchError::Unavailable(_))
        | FillError::Abandoned => true,
        FillError::Fetch(_)
        | FillError::Write(_)
        | FillError::Full
        | FillError::Busy
        | FillError::Corrupt => false,
    }
}
