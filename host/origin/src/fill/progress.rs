//! Progress of fills: transfers of missing chunks from the origin into a cache file, which any number of readers follow.

use crate::fetch::FetchError;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, watch};

/// A fill in progress: one request to the origin for a run of chunks.
#[derive(Debug)]
pub(crate) struct Fill {
    /// Chunks of the run.
    chunks: Range<u64>,
    state: watch::Sender<FillState>,
    readers: AtomicUsize,
    /// Notified when the last reader has left.
    abandoned: Notify,
}

/// State of a fill.
#[derive(Debug, Clone)]
pub(crate) enum FillState {
    /// All bytes up to this offset are in the file.
    Written(u64),
    /// The fill has ended. The chunk map says what it has written.
    Ended(Result<(), FillError>),
}

/// The error of a fill.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum FillError {
    /// The origin failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The file could not be written.
    #[error("cannot write the cache: {0}")]
    Write(String),
    /// The disk has no room, because files in use take it.
    #[error("the cache is full of files in use")]
    Full,
    /// As many fills as there may be wait already.
    #[error("too many fills wait")]
    Busy,
    /// The content is not that of its id.
    #[error("the content does not have its digest")]
    Corrupt,
    /// No reader is left.
    #[error("all readers have left")]
    Abandoned,
}

/// Fills in progress of one object.
#[derive(Debug, Default)]
pub(crate) struct Fills(Mutex<Vec<Arc<Fill>>>);

/// A reader's interest in a fill. A fill without readers ends.
#[derive(Debug)]
pub(crate) struct FillInterest(Arc<Fill>);

impl Fill {
    fn new(chunks: Range<u64>, offset: u64) -> Self {
        Fill {
            chunks,
            state: watch::Sender::new(FillState::Written(offset)),
            readers: AtomicUsize::new(0),
            abandoned: Notify::new(),
        }
    }

    /// Chunks of the run.
    pub(crate) fn chunks(&self) -> Range<u64> {
        self.chunks.clone()
    }

    /// Records that all bytes up to this offset are in the file.
    pub(crate) fn written(&self, offset: u64) {
        self.state.send_replace(FillState::Written(offset));
    }

    /// Number of readers that follow the fill.
    pub(crate) fn readers(&self) -> usize {
        self.readers.load(Ordering::Acquire)
    }

    /// Waits until no reader is left.
    pub(crate) async fn abandoned(&self) {
        loop {
            let notified = self.abandoned.notified();
            if self.readers() == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl Fills {
    /// Whether there is a fill.
    pub(crate) fn are_active(&self) -> bool {
        !self.0.lock().is_empty()
    }

    /// Returns the fill of a chunk, or starts one. `run` returns the chunks of a new one, which no other fill has; it is
    /// called under the lock, with the fills in progress. `start` begins the new fill.
    pub(crate) fn of_chunk(
        &self,
        chunk: u64,
        run: impl FnOnce(&[Arc<Fill>]) -> Option<(Range<u64>, u64)>,
        start: impl FnOnce(Arc<Fill>),
    ) -> Option<FillInterest> {
        let mut fills = self.0.lock();
        if let Some(fill) = fills.iter().find(|fill| fill.chunks.contains(&chunk)) {
            return Some(FillInterest::new(fill));
        }
        let (chunks, offset) = run(&fills)?;
        let fill = Arc::new(Fill::new(chunks, offset));
        let interest = FillInterest::new(&fill);
        fills.push(Arc::clone(&fill));
        drop(fills);
        start(fill);
        Some(interest)
    }

    /// Ends a fill. Its chunks have to be in the chunk map.
    pub(crate) fn end(&self, fill: &Arc<Fill>, result: Result<(), FillError>) {
        self.0.lock().retain(|other| !Arc::ptr_eq(other, fill));
        fill.state.send_replace(FillState::Ended(result));
    }
}

impl FillInterest {
    fn new(fill: &Arc<Fill>) -> Self {
        fill.readers.fetch_add(1, Ordering::AcqRel);
        FillInterest(Arc::clone(fill))
    }

    /// Chunks of the fill.
    pub(crate) fn chunks(&self) -> Range<u64> {
        self.0.chunks()
    }

    /// Whether the fill has ended.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(*self.0.state.borrow(), FillState::Ended(_))
    }

    /// Returns the offset up to which all bytes are in the file. `None` if the fill has ended.
    pub(crate) fn written(&self) -> Option<u64> {
        match &*self.0.state.borrow() {
            FillState::Written(written) => Some(*written),
            FillState::Ended(_) => None,
        }
    }

    /// Waits until the byte at `offset` is in the file, or the fill has ended. Returns the offset up to which all bytes are
    /// in the file; `None` if the fill has ended without an error.
    ///
    /// # Errors
    /// That of the fill.
    pub(crate) async fn wait_for(&self, offset: u64) -> Result<Option<u64>, FillError> {
        let mut state = self.0.state.subscribe();
        let is_there = |state: &FillState| match state {
            FillState::Written(written) => *written > offset,
            FillState::Ended(_) => true,
        };
        // The sender lives in the fill, which this interest keeps.
        let Ok(state) = state.wait_for(is_there).await else {
            return Ok(None);
        };
        match &*state {
            FillState::Written(written) => Ok(Some(*written)),
            FillState::Ended(Ok(())) => Ok(None),
            FillState::Ended(Err(error)) => Err(error.clone()),
        }
    }

    /// Waits until the fill has ended.
    ///
    /// # Errors
    /// That of the fill.
    pub(crate) async fn ended(&self) -> Result<(), FillError> {
        self.wait_for(u64::MAX).await.map(drop)
    }
}

impl Drop for FillInterest {
    fn drop(&mut self) {
        if self.0.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.abandoned.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn readers_follow_one_fill_and_its_last_one_leaves() {
        let fills = Fills::default();
        let mut started = Vec::new();
        let first = fills.of_chunk(3, |_| Some((2..5, 2)), |fill| started.push(fill));
        let second = fills.of_chunk(4, |_| None, |fill| started.push(fill));
        let (first, second) = (first.unwrap(), second.unwrap());
        let [fill] = &started[..] else {
            unreachable!("one fill was started")
        };
        assert_eq!((fill.readers(), fill.chunks()), (2, 2..5));
        fill.written(10);
        assert_eq!(first.wait_for(9).await.unwrap(), Some(10));
        drop(first);
        let fill = Arc::clone(fill);
        fills.end(&fill, Err(FillError::Full));
        assert!(matches!(second.wait_for(10).await, Err(FillError::Full)));
        assert!(!fills.are_active());
        drop(second);
        fill.abandoned().await;
        assert_eq!(fill.readers(), 0);
    }
}
