//! Content of an upload on its way to the disk: one buffer is filled while a thread that may block writes the other.

use super::error::UploadError;
use crate::request_content::{CONTENT_CHUNK_BYTES, RequestContent};
use crate::store::{ContentId, PendingImport};
use bytes::Bytes;
use http_body::{Body, Frame};
use millpond_ledger::{Charge, Route, heap};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinHandle, spawn_blocking};

/// Size of a buffer, in bytes. A write of this size costs little beside its system call.
const BUFFER_BYTES: usize = 64 * 1024;

/// Memory of an upload beside that of every request, in bytes: two buffers, a chunk in the parser, and one on its way
/// from there.
pub(crate) const UPLOAD_BYTES: usize = 2 * BUFFER_BYTES + 2 * CONTENT_CHUNK_BYTES;

/// Unfinished file of an upload. Dropping it removes the file, on a thread that may block.
#[derive(Debug)]
pub(super) struct UploadFile {
    held: Option<Box<HeldFile>>,
}

/// A file, with everything that an upload holds until the file is finished or removed.
#[derive(Debug)]
struct HeldFile {
    import: PendingImport,
    _charges: Arc<[Charge; 2]>,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl UploadFile {
    pub(super) fn new(
        import: PendingImport,
        charges: Arc<[Charge; 2]>,
        permit: Arc<OwnedSemaphorePermit>,
    ) -> Self {
        UploadFile {
            held: Some(Box::new(HeldFile {
                import,
                _charges: charges,
                _permit: permit,
            })),
        }
    }

    /// Id of the content so far.
    pub(super) fn id(&self) -> Option<ContentId> {
        self.held.as_ref().map(|held| held.import.id())
    }

    /// Finishes the file with a function that blocks, and then releases all that the upload holds.
    pub(super) fn finish<T>(mut self, finish: impl FnOnce(PendingImport) -> T) -> Option<T> {
        let HeldFile {
            import,
            _charges,
            _permit,
        } = *self.held.take()?;
        Some(finish(import))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.held {
            Some(held) => held.import.write(bytes),
            None => Ok(()),
        }
    }
}

impl Drop for UploadFile {
    fn drop(&mut self) {
        let held = self.held.take();
        if let (Some(held), Ok(runtime)) = (held, Handle::try_current()) {
            // A runtime that shuts down drops it at once.
            drop(runtime.spawn_blocking(move || drop(held)));
        }
    }
}

/// Source of a file's content.
pub(super) trait ContentSource {
    /// Returns the next bytes. `None` at the end.
    ///
    /// # Errors
    /// [`UploadError`].
    fn next_chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>, UploadError>> + Send;
}

impl ContentSource for RequestContent {
    /// Skips trailer fields.
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, UploadError> {
        loop {
            let frame = poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await;
            match frame.map(|frame| frame.map(Frame::into_data)) {
                None => return Ok(None),
                Some(Ok(Ok(bytes))) => return Ok(Some(bytes)),
                Some(Ok(Err(_trailers))) => {}
                Some(Err(error)) => return Err(UploadError::of_content(&error)),
            }
        }
    }
}

/// Receives the content of an upload into its file. Returns the file, with all bytes written.
///
/// # Errors
/// [`UploadError`]. Nothing is left of the file then.
pub(super) async fn receive(
    mut content: impl ContentSource,
    file: UploadFile,
    max_bytes: u64,
    route: Option<Arc<Route>>,
) -> Result<UploadFile, UploadError> {
    let mut writer = Writer {
        state: WriterState::Idle(file, Vec::with_capacity(BUFFER_BYTES)),
        route,
    };
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut received_bytes = 0_u64;
    while let Some(chunk) = content.next_chunk().await? {
        received_bytes += chunk.len() as u64;
        if received_bytes > max_bytes {
            return Err(UploadError::TooLarge(max_bytes));
        }
        for part in chunk.chunks(BUFFER_BYTES) {
            if buffer.len() + part.len() > BUFFER_BYTES {
                buffer = writer.write(buffer).await?;
            }
            buffer.extend_from_slice(part);
        }
    }
    if !buffer.is_empty() {
        writer.write(buffer).await?;
    }
    let (file, _spare) = writer.idle().await?;
    Ok(file)
}

/// Writes one buffer at a time on a thread that may block.
struct Writer {
    state: WriterState,
    route: Option<Arc<Route>>,
}

enum WriterState {
    /// The file, and a spare buffer.
    Idle(UploadFile, Vec<u8>),
    Busy(JoinHandle<io::Result<(UploadFile, Vec<u8>)>>),
    Failed,
}

impl Writer {
    /// Waits for the last write, and starts the next. Returns an empty buffer.
    async fn write(&mut self, full: Vec<u8>) -> Result<Vec<u8>, UploadError> {
        let (mut file, spare) = self.idle().await?;
        let write = move || {
            let mut full = full;
            file.write(&full)?;
            full.clear();
            Ok((file, full))
        };
        let write = heap::attribute(self.route.clone(), write);
        self.state = WriterState::Busy(spawn_blocking(write));
        Ok(spare)
    }

    /// Waits for the last write. Returns the file and a spare buffer.
    async fn idle(&mut self) -> Result<(UploadFile, Vec<u8>), UploadError> {
        match std::mem::replace(&mut self.state, WriterState::Failed) {
            WriterState::Idle(file, spare) => Ok((file, spare)),
            WriterState::Busy(writing) => {
                let written = writing.await.map_err(io::Error::other).flatten();
                written.map_err(|error| UploadError::of_store(&error))
            }
            WriterState::Failed => Err(UploadError::Store("a write failed before".into())),
        }
    }
}
