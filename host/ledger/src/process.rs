//! What the kernel tells of this process's memory. Only Linux tells; elsewhere all figures are zero.

use serde::Serialize;

/// A process's memory, in bytes, each figure under its own name: they are different things, and comparing them as
/// if they were one cost the original's operators days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct ProcessMemory {
    /// Resident and the process's own (`RssAnon`): heap, stacks, guest memory.
    pub anonymous_bytes: u64,
    /// Resident pages of files (`RssFile`): the program itself, shared and given up at need.
    pub file_bytes: u64,
    /// The most that both were at one time (`VmHWM`).
    pub high_water_bytes: u64,
}

impl ProcessMemory {
    /// Both resident figures.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.anonymous_bytes + self.file_bytes
    }
}

pub use platform::{current_memory, memory_limit_bytes};

/// Bytes that threads for reading from disks take: 64 of them, each with 128 KiB of its stack and of what the allocator
/// keeps for it.
pub const THREADS_BYTES: usize = 64 * 128 * 1024;

/// Returns what the process takes without a request, in bytes, however much it is to hold in all: what it has now, what
/// it has not yet touched of its program, and its threads.
#[must_use]
pub fn baseline_bytes() -> usize {
    let now = current_memory();
    let untouched = platform::mapped_files_bytes().saturating_sub(now.file_bytes);
    let bytes = now.resident_bytes() + untouched;
    usize::try_from(bytes)
        .unwrap_or(usize::MAX)
        .saturating_add(THREADS_BYTES)
}

/// Files that the process may have open, less some that the program needs itself.
#[must_use]
pub fn open_files_limit() -> usize {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        /// The program's own: standard streams, listeners, the poller, the folder.
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

    /// This process's memory now.
    #[must_use]
    pub fn current_memory() -> ProcessMemory {
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

    /// The program and its libraries, as they are mapped, in bytes.
    pub(super) fn mapped_files_bytes() -> u64 {
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        maps.lines().filter_map(mapped_file_bytes).sum()
    }

    /// `from-to perms offset device inode path`, where there is a path.
    fn mapped_file_bytes(line: &str) -> Option<u64> {
        let mut words = line.split_ascii_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        words.nth(4).filter(|path| path.starts_with('/'))?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        address(to)?.checked_sub(address(from)?)
    }

    /// Memory that this process may have, in bytes: what its control groups allow it, or what the machine has.
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

    /// This process's memory now: not told on this system.
    #[must_use]
    pub fn current_memory() -> ProcessMemory {
        ProcessMemory::default()
    }

    pub(super) fn mapped_files_bytes() -> u64 {
        0
    }

    /// Memory that this process may have: not told on this system.
    #[must_use]
    pub fn memory_limit_bytes() -> Option<u64> {
        None
    }
}
