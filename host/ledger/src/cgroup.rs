//! Memory limit of the process's control groups (cgroups(7)), of version 1 and 2.
//!
//! The limit is the lowest from the process's own group up to the topmost visible one.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Returns the limit in bytes, if there is one. `root` is the root of the file system: `/`, except in tests.
pub(crate) fn limit_bytes(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let (groups, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    let mounts = mounts.lines().filter_map(CgroupMount::parse);
    let limits = mounts.filter_map(|mount| {
        let group = groups.lines().find_map(|line| mount.group(line))?;
        mount.limit_bytes(root, &group)
    });
    limits.min()
}

/// Mount of a hierarchy of control groups.
struct CgroupMount {
    version: CgroupVersion,
    /// Group that is mounted at `point`.
    top: PathBuf,
    point: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CgroupVersion {
    One,
    Two,
}

impl CgroupMount {
    /// Parses a line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)). Returns `None` unless its hierarchy accounts
    /// for memory.
    fn parse(line: &str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (top, point) = (mount.next()?, mount.next()?);
        let mut system = system.split(' ');
        let version = match system.next()? {
            "cgroup2" => CgroupVersion::Two,
            "cgroup" if system.next_back()?.split(',').any(|word| word == "memory") => {
                CgroupVersion::One
            }
            _ => return None,
        };
        Some(CgroupMount {
            version,
            top: unescaped(top),
            point: unescaped(point),
        })
    }

    /// Parses a line of `/proc/self/cgroup` (cgroups(7)). Returns the process's group if the line is of this hierarchy.
    fn group(&self, line: &str) -> Option<PathBuf> {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_of_hierarchy = match self.version {
            CgroupVersion::One => controllers.split(',').any(|name| name == "memory"),
            CgroupVersion::Two => number == "0" && controllers.is_empty(),
        };
        is_of_hierarchy.then(|| PathBuf::from(path))
    }

    /// Returns the lowest limit of the group and of the visible groups above it.
    fn limit_bytes(&self, root: &Path, group: &Path) -> Option<u64> {
        let point = root.join(self.point.strip_prefix("/").unwrap_or(&self.point));
        // A container may see its group at the mount point although `/proc/self/cgroup` gives the path on the host.
        let relative = group.strip_prefix(&self.top).unwrap_or(Path::new(""));
        let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        let relative = if relative.components().all(is_plain) {
            relative
        } else {
            Path::new("")
        };
        let folders = relative.ancestors().map(|above| point.join(above));
        folders
            .filter_map(|folder| self.version.limit_bytes(&folder))
            .min()
    }
}

impl CgroupVersion {
    /// Returns the limit of one group. `memory.high` counts as a limit: above it the kernel reclaims memory and
    /// throttles the processes.
    fn limit_bytes(self, folder: &Path) -> Option<u64> {
        let number = |name: &str| -> Option<u64> {
            let text = fs::read_to_string(folder.join(name)).ok()?;
            text.trim().parse().ok()
        };
        match self {
            CgroupVersion::Two => [number("memory.max"), number("memory.high")]
                .into_iter()
                .flatten()
                .min(),
            CgroupVersion::One => {
                // `hierarchical_memory_limit` includes the groups above, which may not be visible here.
                let whole = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
                let mut lines = whole.lines();
                let whole = lines.find_map(|line| line.strip_prefix("hierarchical_memory_limit "));
                [
                    number("memory.limit_in_bytes"),
                    whole.and_then(|bytes| bytes.trim().parse().ok()),
                ]
                .into_iter()
                .flatten()
                .min()
            }
        }
    }
}

/// Decodes a path of `mountinfo`, in which a space is `\040`.
fn unescaped(text: &str) -> PathBuf {
    let mut path = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        path.push_str(before);
        let code = after
            .get(..3)
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(code) if code.is_ascii() => {
                path.push(char::from(code));
                rest = &after[3..];
            }
            _ => {
                path.push('\\');
                rest = after;
            }
        }
    }
    path.push_str(rest);
    path.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const V2: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";

    /// Limit of a process that has these `cgroup` and `mountinfo`, and these files.
    fn limit(groups: &str, mounts: &str, files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        let own = [
            ("proc/self/cgroup", groups),
            ("proc/self/mountinfo", mounts),
        ];
        for (path, text) in own.iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        limit_bytes(root.path())
    }

    #[test]
    fn the_tightest_limit_on_the_way_up_counts() {
        let files = |slice, service, high| {
            [
                ("sys/fs/cgroup/memory.max", "max\n"),
                ("sys/fs/cgroup/a.slice/memory.max", slice),
                ("sys/fs/cgroup/a.slice/b.service/memory.max", service),
                ("sys/fs/cgroup/a.slice/b.service/memory.high", high),
                ("sys/fs/cgroup/other/memory.max", "1\n"),
            ]
        };
        let of = |slice, service, high| {
            limit("0::/a.slice/b.service\n", V2, &files(slice, service, high))
        };
        assert_eq!(of("max\n", "max\n", "max\n"), None);
        assert_eq!(of("max\n", "134217728\n", "max\n"), Some(128 << 20));
        assert_eq!(of("67108864\n", "134217728\n", "max\n"), Some(64 << 20));
        assert_eq!(
            of("67108864\n", "134217728\n", "33554432\n"),
            Some(32 << 20)
        );
    }

    #[test]
    fn version_1_has_its_own_files_and_hierarchies() {
        let mounts = "31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 23 0:28 / /sys/fs/cgroup/memory rw shared:11 - cgroup cgroup rw,memory\n";
        let groups = "5:cpu,cpuacct:/x\n4:memory:/a/b\n0::/c\n";
        let none = "9223372036854771712\n";
        let files = [
            ("sys/fs/cgroup/cpu/x/memory.limit_in_bytes", "1"),
            (
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "134217728\n",
            ),
            ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", none),
        ];
        assert_eq!(limit(groups, mounts, &files), Some(128 << 20));
        // A limit of a group above the visible ones.
        let stat = "cache 0\nhierarchical_memory_limit 67108864\nhierarchical_memsw_limit 1\n";
        let told = ("sys/fs/cgroup/memory/a/b/memory.stat", stat);
        assert_eq!(
            limit(groups, mounts, &[&files[..], &[told]].concat()),
            Some(64 << 20)
        );
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_mount_point() {
        let files = [("sys/fs/cgroup/memory.max", "134217728\n")];
        for (group, mount) in [
            ("0::/\n", V2.to_owned()),
            // Without a cgroup namespace of its own, docker mounts the group and gives its path on the host.
            ("0::/docker/ab\n", V2.replacen(" / ", " /docker/ab ", 1)),
            ("0::/docker/ab\n", V2.replacen(" / ", " /else ", 1)),
            // A process that was moved out of the visible groups.
            ("0::/../c\n", V2.to_owned()),
        ] {
            assert_eq!(
                limit(group, &mount, &files),
                Some(128 << 20),
                "{group} {mount}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_limit() {
        assert_eq!(limit_bytes(Path::new("/none")), None);
        for (groups, mounts) in [
            ("", V2),
            ("0::/\n", ""),
            ("x", V2),
            ("0::/", "a - cgroup2"),
            ("::", " - "),
        ] {
            assert_eq!(limit(groups, mounts, &[]), None);
        }
        assert_eq!(unescaped(r"/a\040b\134c\"), Path::new(r"/a b\c\"));
        assert_eq!(unescaped(r"/a\é\9"), Path::new(r"/a\é\9"));
    }
}
