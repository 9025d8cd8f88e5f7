//! Unsafe code of this crate: system calls that no library offers, and deserialising compiled code.

use wasmtime::Engine;
use wasmtime::component::Component;

#[cfg(target_os = "linux")]
pub(crate) use linux::{cached_pages, is_priority_pending};

/// Returns a component from compiled code. The caller ensures that [`Component::serialize`] wrote the code.
///
/// # Errors
/// The code is for another version of wasmtime, or for another engine.
pub(crate) fn component_of_code(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: [`Component::serialize`] wrote the code. Its digest shows that it is unchanged, and no other user can
    // write the file. wasmtime checks its version and its engine.
    unsafe { Component::deserialize(engine, code) }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    /// Returns the number of pages of a range that are in memory (`cachestat`, Linux 6.5). `None` if the kernel is
    /// older, or allows the call to the file's writers only.
    pub(crate) fn cached_pages(file: &File, offset: u64, length: u64) -> Option<u64> {
        /// The number is the same on all architectures. The C libraries in use have no name for it yet.
        const CACHESTAT: libc::c_long = 451;
        /// `struct cachestat_range` of `linux/mman.h`.
        #[repr(C)]
        struct CachestatRange {
            offset: u64,
            length: u64,
        }
        /// `struct cachestat`, in pages.
        #[repr(C)]
        #[derive(Default)]
        struct Pages {
            cached: u64,
            _dirty: u64,
            _writeback: u64,
            _evicted: u64,
            _recently_evicted: u64,
        }
        let range = CachestatRange { offset, length };
        let mut pages = Pages::default();
        // SAFETY: the borrowed descriptor is open. Both structures have the kernel's layout, and live until the call
        // returns.
        let result = unsafe {
            libc::syscall(
                CACHESTAT,
                file.as_raw_fd(),
                &raw const range,
                &raw mut pages,
                0,
            )
        };
        (result == 0).then_some(pages.cached)
    }

    /// Returns whether `POLLPRI` is set, or the system cannot tell. For `/proc/self/mountinfo` it is set once after
    /// each mount and unmount.
    pub(crate) fn is_priority_pending(file: &File) -> bool {
        let mut pollfd = libc::pollfd {
            fd: file.as_raw_fd(),
            events: libc::POLLPRI,
            revents: 0,
        };
        // SAFETY: the one structure lives until the call returns, and the borrowed descriptor is open.
        let result = unsafe { libc::poll(&raw mut pollfd, 1, 0) };
        result < 0 || pollfd.revents & (libc::POLLPRI | libc::POLLERR) != 0
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used)]
        use super::*;
        use std::io::Write;

        #[test]
        fn pages_that_were_written_just_now_are_in_memory() {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&[7; 10_000]).unwrap();
            // Older kernels return `None`.
            if let Some(pages) = cached_pages(&file, 0, 10_000) {
                assert!(pages >= 1, "{pages}");
                assert_eq!(cached_pages(&file, 1 << 30, 4096), Some(0));
            }
        }

        #[test]
        fn mounts_that_stay_are_not_told() {
            let mounts = File::open("/proc/self/mountinfo").unwrap();
            is_priority_pending(&mounts);
            assert!(!is_priority_pending(&File::open("/dev/null").unwrap()));
        }
    }
}
