//! Progress of fills: transfers of missing chunks from the origin into a cache file, which any number of readers follow.

use crate::cache::chunk_map::CHUNK_BYTES;
use crate::fetch::FetchError;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::{Notify, watch};

/// A fill in progress: one request to the origin for a run of chunks.
#[derive(Debug)]
pub(crate) struct Fill {
    /// First chunk of the run.
    start: u64,
    /// Chunk after the last one. Another fill may take the end of the run over.
    end: AtomicU64,
    /// Whether another fill may.
    is_divisible: bool,
    state: watch::Sender<FillState>,
    readers: AtomicUsize,
    /// Notified when the last reader has left.
    abandoned: Notify,
}

/// Run of chunks that one request fetches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) chunks: Range<u64>,
    /// Whether another fill may take over the end of it.
    pub(crate) is_divisible: bool,
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
    /// The task of the fill panicked.
    #[error("the fill ended by a panic")]
    Panicked,
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
    fn new(run: Run) -> Self {
        let offset = run.chunks.start * CHUNK_BYTES;
        Fill {
            start: run.chunks.start,
            end: AtomicU64::new(run.chunks.end),
            is_divisible: run.is_divisible,
            state: watch::Sender::new(FillState::Written(offset)),
            readers: AtomicUsize::new(0),
            abandoned: Notify::new(),
        }
    }

    /// Chunks of the run.
    pub(crate) fn chunks(&self) -> Range<u64> {
        self.start..self.end.load(Ordering::Acquire)
    }

    /// Whether the fill is so far from a chunk that another one gets it sooner.
    fn is_far_from(&self, chunk: u64) -> bool {
        /// Distance that is read rather than requested anew, in bytes. It takes about as long as a request.
        const NEAR_BYTES: u64 = 4 * CHUNK_BYTES;
        let FillState::Written(written) = *self.state.borrow() else {
            return false;
        };
        self.is_divisible && written + NEAR_BYTES < chunk * CHUNK_BYTES
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

    /// Returns the fill of a chunk, or starts one. A fill that is far from the chunk leaves it and the rest to a new one.
    /// `run` returns the run of a new one, which no other fill has; it is called under the lock, with the fills in progress.
    /// `start` begins the new fill.
    pub(crate) fn of_chunk(
        &self,
        chunk: u64,
        run: impl FnOnce(&[Arc<Fill>]) -> Option<Run>,
        start: impl FnOnce(Arc<Fill>),
    ) -> Option<FillInterest> {
        let mut fills = self.0.lock();
        if let Some(fill) = fills.iter().find(|fill| fill.chunks().contains(&chunk)) {
            if !fill.is_far_from(chunk) {
                return Some(FillInterest::new(fill));
            }
            fill.end.store(chunk, Ordering::Release);
        }
        let fill = Arc::new(Fill::new(run(&fills)?));
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
    /// The error of the fill.
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
    /// The error of the fill.
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
        let run = Run {
            chunks: 2..5,
            is_divisible: true,
        };
        let first = fills.of_chunk(3, |_| Some(run), |fill| started.push(fill));
        let second = fills.of_chunk(4, |_| None, |fill| started.push(fill));
        let (first, second) = (first.unwrap(), second.unwrap());
        let [fill] = &started[..] else {
            unreachable!("one fill was started")
        };
        assert_eq!((fill.readers(), fill.chunks()), (2, 2..5));
        let start = 2 * CHUNK_BYTES;
        fill.written(start + 10);
        assert_eq!(first.wait_for(start + 9).await.unwrap(), Some(start + 10));
        drop(first);
        let fill = Arc::clone(fill);
        fills.end(&fill, Err(FillError::Full));
        assert!(matches!(
            second.wait_for(start + 10).await,
            Err(FillError::Full)
        ));
        assert!(!fills.are_active());
        drop(second);
        fill.abandoned().await;
        assert_eq!(fill.readers(), 0);
    }
    #[tokio::test]
    async fn a_reader_far_ahead_gets_a_fill_of_its_own_and_no_chunk_is_fetched_twice() {
        let fills = Fills::default();
        let mut started = Vec::new();
        let run = |chunks, is_divisible| Run {
            chunks,
            is_divisible,
        };
        let _first = fills.of_chunk(0, |_| Some(run(0..64, true)), |fill| started.push(fill));
        let near = fills
            .of_chunk(4, |_| None, |fill| started.push(fill))
            .unwrap();
        assert_eq!(near.chunks(), 0..64);
        let far = fills.of_chunk(40, |_| Some(run(40..64, false)), |fill| started.push(fill));
        let chunks: Vec<_> = started.iter().map(|fill| fill.chunks()).collect();
        assert_eq!(chunks, [0..40, 40..64]);
        assert_eq!(far.unwrap().chunks(), 40..64);
        // A fill that cannot be divided is waited for.
        let last = fills.of_chunk(63, |_| None, |fill| started.push(fill));
        assert_eq!(last.unwrap().chunks(), 40..64);
    }
}
