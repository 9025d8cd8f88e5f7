//! Looks at a folder now and then, beside all requests: where its path leads, and whether its kept files are still there.

use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

/// How long the folder's path may lead elsewhere unseen.
const TURN: Duration = Duration::from_secs(1);

/// Turns after which the kept files are looked at. Space of deleted ones is not free until then.
const TURNS_OF_KEPT: u32 = 4;

/// Files that nobody has asked for in so long are closed, so that what they lie on can be unmounted.
const UNUSED: Duration = Duration::from_secs(60);

/// Stack of the thread, in bytes: paths.
const STACK_BYTES: usize = 256 * 1024;

/// A folder that is looked at now and then.
pub(super) trait Maintained: Send + Sync + 'static {
    /// Looks up where the folder's path leads.
    fn look_up_root(&self);

    /// Closes files that were deleted, and ones that nobody has asked for in so long.
    fn close_unneeded(&self, unused: Duration);
}

/// Begins to look, on a thread of its own, until the folder is dropped. One that hangs holds nobody else up.
///
/// # Errors
/// When there is no thread to be had.
pub(super) fn begin<M: Maintained>(folder: &Arc<M>) -> io::Result<()> {
    let folder = Arc::downgrade(folder);
    let keep = move || maintain(&folder);
    let thread = thread::Builder::new().name("millpond-keeper".into());
    thread.stack_size(STACK_BYTES).spawn(keep)?;
    Ok(())
}

fn maintain<M: Maintained>(folder: &Weak<M>) {
    for turn in 1_u32.. {
        thread::sleep(TURN);
        let Some(folder) = folder.upgrade() else {
            return;
        };
        folder.look_up_root();
        if turn % TURNS_OF_KEPT == 0 {
            folder.close_unneeded(UNUSED);
        }
    }
}
