//! Maintenance of a folder, apart from all requests: follows the folder's path, and closes cached files.

use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

/// Interval between two lookups of the folder's path. A replaced folder is noticed after it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Intervals between two checks of the cached files. The space of deleted files is free after them.
const INTERVALS_PER_CHECK: u32 = 4;

/// Time without a request after which a cached file is closed, so that its file system can be unmounted.
const UNUSED: Duration = Duration::from_secs(60);

/// Stack of the thread, in bytes. It holds paths.
const STACK_BYTES: usize = 256 * 1024;

/// The maintenance of a folder whose state is `T`.
#[derive(Debug)]
pub(super) struct Tasks<T> {
    /// Looks up where the folder's path leads.
    pub(super) follow_path: fn(&T),
    /// Closes the files that were deleted, and those without a request for the given time.
    pub(super) close_unneeded: fn(&T, Duration),
}

/// Starts the maintenance on a thread of its own. The thread ends when the folder has been dropped. A file system that hangs
/// holds up this thread only.
///
/// # Errors
/// The system starts no thread.
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
