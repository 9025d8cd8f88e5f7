//! Reader of a range of an object of which the cache lacks some bytes.

use super::Filler;
use super::progress::{FillError, FillInterest};
use crate::cache::chunk_map::CHUNK_BYTES;
use crate::cache::object::CachedObject;
use crate::fetch::FetchError;
use millpond::store::{ForwardReason, PartialFile, PartialReader, SharedFile};
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
    /// Offset after the last byte of the range.
    end: u64,
    state: Mutex<ReaderState>,
}

struct ReaderState {
    object: Arc<CachedObject>,
    file: SharedFile,
    /// Whether the host has another file than this one.
    is_renewed: bool,
    /// Fill that the reader follows.
    current: Option<FillInterest>,
    /// Fill of the chunks after that.
    ahead: Option<FillInterest>,
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
            end,
            state: Mutex::new(ReaderState {
                object: Arc::clone(&self.object),
                file: self.file.clone(),
                is_renewed: false,
                current: None,
                ahead: None,
            }),
        };
        (reader, reason)
    }
}

impl PartialReader for RangeReader {
    fn available(&self, offset: u64, most: u64) -> (u64, Option<SharedFile>) {
        let mut state = self.state.lock();
        if state.object.is_changed() {
            // `wait` returns the error.
            return (0, None);
        }
        let mut count = state.object.chunks().available(offset, most);
        if count == 0 {
            let written = state.current.as_ref().and_then(FillInterest::written);
            count = written.map_or(0, |written| written.saturating_sub(offset).min(most));
        }
        if count > 0 {
            self.read_ahead(&mut state, offset + count);
        }
        let renewed = std::mem::take(&mut state.is_renewed).then(|| state.file.clone());
        (count, renewed)
    }

    async fn wait(&self, offset: u64) -> io::Result<()> {
        let mut failures = 0;
        loop {
            let object = Arc::clone(&self.state.lock().object);
            if object.is_changed() {
                return Err(io::Error::other(FetchError::Changed));
            }
            if object.chunks().available(offset, 1) > 0 {
                return Ok(());
            }
            let Some(fill) = self.follow(&object, offset / CHUNK_BYTES).await? else {
                continue;
            };
            match fill.wait_for(offset).await {
                Ok(Some(_)) => {
                    self.state.lock().current = Some(fill);
                    return Ok(());
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
        chunk: u64,
    ) -> io::Result<Option<FillInterest>> {
        {
            let mut state = self.state.lock();
            let state = &mut *state;
            let is_of_chunk =
                |fill: &FillInterest| fill.chunks().contains(&chunk) && !fill.has_ended();
            for followed in [&mut state.current, &mut state.ahead] {
                let fill = followed.take().filter(is_of_chunk);
                if fill.is_some() {
                    return Ok(fill);
                }
            }
        }
        if let Some((object, file)) = self.filler.renew(object).await? {
            let mut state = self.state.lock();
            (state.object, state.file, state.is_renewed) = (object, file, true);
            return Ok(None);
        }
        let file = self.state.lock().file.clone();
        Ok(self.filler.follow(object, &file, chunk, self.end))
    }

    /// Starts the fill of the next missing chunk of the range, if the reader is near it.
    fn read_ahead(&self, state: &mut ReaderState, offset: u64) {
        let horizon = offset.saturating_add(READ_AHEAD_BYTES).min(self.end);
        let mut at = offset;
        if let Some(fill) = state.current.as_ref().filter(|fill| !fill.has_ended()) {
            at = at.max(fill.chunks().end * CHUNK_BYTES);
        }
        let is_ahead = state.ahead.as_ref().is_some_and(|fill| !fill.has_ended());
        if is_ahead || at >= horizon {
            return;
        }
        let object = &state.object;
        at += object.chunks().available(at, horizon - at);
        if at < horizon && !object.is_discarded() {
            let chunk = at / CHUNK_BYTES;
            state.ahead = self.filler.follow(object, &state.file, chunk, self.end);
        }
    }
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
        | FillError::Corrupt
        | FillError::Panicked => false,
    }
}
