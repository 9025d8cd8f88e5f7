//! All that is unsafe in this crate: calls of the system that no library has, and code that was compiled before.

use wasmtime::Engine;
use wasmtime::component::Component;

#[cfg(target_os = "linux")]
pub(crate) use linux::{cached_pages, is_priority_pending};

/// Makes a component of its code. The caller knows that [`Component::serialize`] wrote the code.
///
/// # Errors
/// When wasmtime finds the code to be of another version or for another engine.
pub(crate) fn component_of_code(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the code is what `Component::serialize` wrote. Its digest says that it is unchanged, and nobody but
    // this user can have written it. wasmtime checks that it is this version's and this engine's.
    unsafe { Component::deserialize(engine, code) }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    /// Returns how many pages of that part of the file the kernel has in memory (`cachestat`, Linux 6.5). `None` on older
    /// systems, and where only those are told who may write the file.
    pub(crate) fn cached_pages(file: &File, offset: u64, length: u64) -> Option<u64> {
        /// Its number is the same on all architectures; the names of it are newer than the C libraries in use.
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
        // SAFETY: the descriptor is open for as long as it is borrowed; both structures are as the kernel has them and
        // live until the call returns.
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

    /// Whether there is something exceptional to be read (`POLLPRI`), or the system cannot tell. Of
    /// `/proc/self/mountinfo` that is so once after each mount and unmount.
    pub(crate) fn is_priority_pending(file: &File) -> bool {
        let mut pollfd = libc::pollfd {
            fd: file.as_raw_fd(),
            events: libc::POLLPRI,
            revents: 0,
        };
        // SAFETY: there is one structure, which lives until the call returns, and the descriptor is open for as long.
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
            // Older systems do not tell.
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
