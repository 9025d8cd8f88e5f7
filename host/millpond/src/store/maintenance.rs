//! Maintenance thread of a folder: looks up the folder's path, and closes cached files.

use std::io;
use std::sync::Arc;
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

/// Starts the maintenance thread. It ends when the folder is dropped. A file system that hangs blocks only this thread.
///
/// `follow_path` looks up where the folder's path leads. `close_unneeded` closes cached files that were deleted,
/// replaced, or not used for that time.
///
/// # Errors
/// The system cannot start a thread.
pub(super) fn start<T: Send + Sync + 'static>(
    folder: &Arc<T>,
    follow_path: fn(&T),
    close_unneeded: fn(&T, Duration),
) -> io::Result<()> {
    let folder = Arc::downgrade(folder);
    let maintain = move || {
        for interval in 1_u32.. {
            thread::sleep(INTERVAL);
            let Some(folder) = folder.upgrade() else {
                return;
            };
            follow_path(&folder);
            if interval % INTERVALS_PER_CHECK == 0 {
                close_unneeded(&folder, UNUSED);
            }
        }
    };
    let thread = thread::Builder::new().name("millpond-keeper".into());
    thread.stack_size(STACK_BYTES).spawn(maintain)?;
    Ok(())
}
