//! Maintenance thread of a folder: looks up the folder's path, and closes cached files.

use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

/// Interval between two lookups of the folder's path. Another folder in its place is noticed after it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Number of intervals between two checks of the cached files. A check frees the space of deleted files.
const INTERVALS_PER_CHECK: u32 = 4;

/// Time after which an unused file is closed, so that its file system can be unmounted.
const UNUSED: Duration = Duration::from_secs(60);

/// Stack of the thread, in bytes. It holds paths.
const STACK_BYTES: usize = 256 * 1024;

/// Maintenance of a folder with the state `T`.
#[derive(Debug)]
pub(super) struct Tasks<T> {
    /// Looks up where the folder's path leads.
    pub(super) follow_path: fn(&T),
    /// Closes cached files that were deleted, replaced, or not used for this time.
    pub(super) close_unneeded: fn(&T, Duration),
}

/// Starts the maintenance thread. It ends when the folder is dropped. A file system that hangs blocks only this thread.
///
/// # Errors
/// The system cannot start a thread.
pub(super) fn start<T: Send + Sync + 'static>(folder: &Arc<T>, tasks: Tasks<T>) -> io::Result<()> {
    let folder = Arc::downgrade(folder);
    let thread = thread::Builder::new().name("millpond-keeper".into());
    thread
        .stack_size(STACK_BYTES)
        .spawn(move || maintain(&folder, &tasks))?;
    Ok(())
}

fn maintain<T>(folder: &Weak<T>, tasks: &Tasks<T>) {
    for interval in 1_u32.. {
        thread::sleep(INTERVAL);
        let Some(folder) = folder.upgrade() else {
            return;
        };
        (tasks.follow_path)(&folder);
        if interval % INTERVALS_PER_CHECK == 0 {
            (tasks.close_unneeded)(&folder, UNUSED);
        }
    }
}
