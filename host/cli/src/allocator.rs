//! Allocator of the command: jemalloc, which keeps statistics and returns memory to the system.

use millpond::heap::{Heap, HeapStats};
use std::ffi::c_char;
use tikv_jemalloc_ctl::{background_thread, epoch, stats, thread};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Options that jemalloc reads before `main`. Few arenas, because each retains pages of its own. Empty pages return
/// to the system within a second.
// SAFETY: jemalloc documents this symbol as a pointer to a string that ends with a zero byte, and it is one.
#[allow(unsafe_code)]
#[unsafe(export_name = "_rjem_malloc_conf")]
static CONFIGURATION: Option<&'static c_char> = {
    let text = c"narenas:4,background_thread:false,dirty_decay_ms:1000,muzzy_decay_ms:0";
    // SAFETY: the pointer is to a static string.
    Some(unsafe { &*text.as_ptr() })
};

/// Starts the threads that return empty pages to the system. jemalloc could start them before `main`. They would be
/// outside the sandbox then, because a thread is in the sandbox of the thread that starts it.
pub(crate) fn start_background_threads() {
    if let Err(error) = background_thread::write(true) {
        tracing::warn!(%error, "cannot start the threads of the allocator");
    }
}

/// Statistics of jemalloc.
pub(crate) struct Jemalloc;

impl Heap for Jemalloc {
    fn stats(&self) -> HeapStats {
        // The statistics are as of the last advance. A value that cannot be read is zero.
        let _ = epoch::advance();
        let bytes = |figure: Result<usize, _>| figure.unwrap_or(0) as u64;
        HeapStats {
            allocated_bytes: bytes(stats::allocated::read()),
            active_bytes: bytes(stats::active::read()),
            resident_bytes: bytes(stats::resident::read()),
        }
    }

    fn thread_bytes(&self) -> i64 {
        thread_local! {
            /// Counters of this thread.
            static COUNTERS: Option<(thread::ThreadLocal<u64>, thread::ThreadLocal<u64>)> =
                thread::allocatedp::read().ok().zip(thread::deallocatedp::read().ok());
        }
        COUNTERS
            .try_with(|counters| {
                let (allocated, freed) = counters.as_ref()?;
                Some(allocated.get().wrapping_sub(freed.get()).cast_signed())
            })
            .ok()
            .flatten()
            .unwrap_or(0)
    }

    fn report(&self) -> String {
        let mut report = Vec::new();
        let options = tikv_jemalloc_ctl::stats_print::Options::default();
        match tikv_jemalloc_ctl::stats_print::stats_print(&mut report, options) {
            Ok(()) => String::from_utf8_lossy(&report).into_owned(),
            Err(error) => format!("jemalloc wrote no report: {error}"),
        }
    }
}
