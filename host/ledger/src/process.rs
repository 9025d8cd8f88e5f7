//! Memory of the process, as the kernel reports it. On systems other than Linux all figures are zero.

use serde::Serialize;

/// Memory of a process, in bytes. The figures measure different things, so compare a figure with itself only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct ProcessMemory {
    /// Resident memory of the process's own (`RssAnon`): heap, stacks, guest memory.
    pub anonymous_bytes: u64,
    /// Resident pages of files (`RssFile`, `RssShmem`), such as the program. The kernel can reclaim them.
    pub file_bytes: u64,
    /// Maximum resident memory so far (`VmHWM`).
    pub high_water_bytes: u64,
}

impl ProcessMemory {
    /// Resident memory: anonymous memory and file pages.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.anonymous_bytes + self.file_bytes
    }
}

pub(crate) use platform::current_memory;
pub use platform::memory_limit_bytes;

/// Maximum memory of the threads that read from disks, in bytes. There are 64 at most, each with 128 KiB of stack and
/// allocator cache.
pub const THREADS_BYTES: usize = 64 * 128 * 1024;

/// Returns the memory that the process takes without any request, in bytes. It is the sum of its current memory, the
/// part of its program that is not yet resident, and its threads.
#[must_use]
pub fn baseline_bytes() -> usize {
    let now = current_memory();
    let untouched = platform::mapped_files_bytes().saturating_sub(now.file_bytes);
    let bytes = now.resident_bytes() + untouched;
    usize::try_from(bytes)
        .unwrap_or(usize::MAX)
        .saturating_add(THREADS_BYTES)
}

/// Returns the number of files that requests may open: the process's limit (`RLIMIT_NOFILE`) minus its own files.
#[must_use]
pub fn open_files_limit() -> usize {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        /// Files of the process itself: standard streams, listeners, epoll, the media folder.
        const OWN_FILES: u64 = 64;
        if let Some(files) = getrlimit(Resource::Nofile).current {
            return usize::try_from(files.saturating_sub(OWN_FILES)).unwrap_or(usize::MAX);
        }
    }
    usize::MAX
}

#[cfg(target_os = "linux")]
mod platform {
    use super::ProcessMemory;
    use crate::cgroup;
    use std::fs;
    use std::path::Path;

    /// Returns the current memory of this process.
    pub(crate) fn current_memory() -> ProcessMemory {
        parse_status(&fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    fn parse_status(status: &str) -> ProcessMemory {
        let field = |name: &str| kibibytes(status, name).unwrap_or(0);
        ProcessMemory {
            anonymous_bytes: field("RssAnon:"),
            file_bytes: field("RssFile:") + field("RssShmem:"),
            high_water_bytes: field("VmHWM:"),
        }
    }

    /// Size of the mapped program and its libraries, in bytes.
    pub(super) fn mapped_files_bytes() -> u64 {
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        maps.lines().filter_map(mapped_file_bytes).sum()
    }

    /// Parses `from-to perms offset device inode path`. Returns `None` for a mapping without a path.
    fn mapped_file_bytes(line: &str) -> Option<u64> {
        let mut words = line.split_ascii_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        words.nth(4).filter(|path| path.starts_with('/'))?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        address(to)?.checked_sub(address(from)?)
    }

    /// Returns the memory that this process may have, in bytes: the lower of its control groups' limit and the
    /// machine's memory.
    #[must_use]
    pub fn memory_limit_bytes() -> Option<u64> {
        let root = Path::new("/");
        let machine = fs::read_to_string("/proc/meminfo").ok()?;
        let machine = kibibytes(&machine, "MemTotal:")?;
        let groups = cgroup::limit_bytes(root);
        Some(groups.map_or(machine, |groups| groups.min(machine)))
    }

    fn kibibytes(text: &str, name: &str) -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let number: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
        Some(number * 1024)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_kernel_tells() {
            let now = current_memory();
            assert!(now.anonymous_bytes > 0 && now.file_bytes > 0);
            assert!(now.high_water_bytes >= now.anonymous_bytes);
            assert!(memory_limit_bytes() > Some(now.resident_bytes()));
            assert!(mapped_files_bytes() >= now.file_bytes);
        }

        #[test]
        fn what_is_no_status_is_zero() {
            for text in ["", "RssAnon:", "RssAnon: x kB", "\0"] {
                assert_eq!(parse_status(text), ProcessMemory::default());
                assert_eq!(mapped_file_bytes(text), None);
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use super::ProcessMemory;

    /// Returns zeros: this system does not report the memory of a process.
    pub(crate) fn current_memory() -> ProcessMemory {
        ProcessMemory::default()
    }

    pub(super) fn mapped_files_bytes() -> u64 {
        0
    }

    /// Returns `None`: this system does not report a limit.
    #[must_use]
    pub fn memory_limit_bytes() -> Option<u64> {
        None
    }
}
