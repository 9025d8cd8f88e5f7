//! Table of mounts (`/proc/self/mountinfo`, proc(5)). The kernel returns it without calling any file system.

use parking_lot::Mutex;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustix::fs::{AtFlags, StatxFlags, statx};

/// Mounts beneath a folder. The table is read again after each mount and unmount.
#[derive(Debug)]
pub(super) struct Mounts {
    /// Real path of the folder.
    folder: PathBuf,
    /// `None` if the system has no such file.
    mountinfo: Option<Mutex<File>>,
    table: ArcSwap<Vec<Mount>>,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    id: u64,
    /// Device number of the file system.
    pub(super) device: u64,
    /// Mount point.
    path: PathBuf,
    pub(super) kind: FileSystemKind,
}

/// Properties of a file system, by its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileSystemKind {
    /// Whether it waits for devices of this machine only. Others wait for a network or another process, and may not
    /// answer.
    pub(super) is_local: bool,
    /// Whether every change of a file sets its change time (`st_ctime`).
    pub(super) tells_changes: bool,
}

/// Local file systems with a change time.
const LOCAL: [&str; 17] = [
    "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jffs2", "jfs", "nilfs2", "ntfs3",
    "overlay", "ramfs", "reiserfs", "rootfs", "tmpfs", "ubifs", "xfs",
];

/// Local file systems with a change time, in modules outside of the kernel.
const LOCAL_OF_OTHERS: [&str; 1] = ["zfs"];

/// Local file systems without a change time, or with a different one.
const LOCAL_WITHOUT_CHANGES: [&str; 10] = [
    "cramfs", "erofs", "exfat", "hfs", "hfsplus", "iso9660", "msdos", "romfs", "squashfs", "vfat",
];

/// Remote file systems that report the change time of the server.
const REMOTE_WITH_CHANGES: [&str; 8] = [
    "9p", "ceph", "gfs2", "lustre", "nfs", "nfs4", "ocfs2", "virtiofs",
];

impl FileSystemKind {
    /// An unknown file system.
    pub(super) const UNKNOWN: FileSystemKind = FileSystemKind {
        is_local: false,
        tells_changes: false,
    };

    fn of_type(name: &str) -> Self {
        let is_local = LOCAL.contains(&name) || LOCAL_OF_OTHERS.contains(&name);
        FileSystemKind {
            is_local: is_local || LOCAL_WITHOUT_CHANGES.contains(&name),
            tells_changes: is_local || REMOTE_WITH_CHANGES.contains(&name),
        }
    }
}

impl Mounts {
    /// Returns the mounts beneath a folder, by its real path.
    pub(super) fn beneath(folder: PathBuf) -> Self {
        let mountinfo = File::open("/proc/self/mountinfo").ok();
        let mounts = Mounts {
            folder,
            mountinfo: mountinfo.map(Mutex::new),
            table: ArcSwap::default(),
        };
        if let Some(mountinfo) = &mounts.mountinfo {
            let mut mountinfo = mountinfo.lock();
            mounts.read(&mut mountinfo);
        }
        mounts
    }

    /// Returns whether every mount beneath the folder is local.
    pub(super) fn are_local(&self) -> bool {
        let table = self.table();
        !table.is_empty() && table.iter().all(|mount| mount.kind.is_local)
    }

    /// Returns the mount of an open file, without calling its file system.
    pub(super) fn of_file(&self, file: &impl AsFd) -> Option<Mount> {
        let (flags, wanted) = (
            AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC,
            StatxFlags::MNT_ID,
        );
        let mountinfo = statx(file, "", flags, wanted).ok()?;
        if mountinfo.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
            return None;
        }
        let table = self.table();
        table
            .iter()
            .find(|mount| mount.id == mountinfo.stx_mnt_id)
            .cloned()
    }

    /// Returns the mount of a real path, by the path alone.
    pub(super) fn of_path(&self, path: &Path) -> Option<Mount> {
        let table = self.table();
        let above = table.iter().filter(|mount| path.starts_with(&mount.path));
        // Of several mounts at one place, the last one is visible.
        above
            .max_by_key(|mount| mount.path.as_os_str().len())
            .cloned()
    }

    /// Returns the current mounts: the folder's own, and those beneath it.
    fn table(&self) -> Arc<Vec<Mount>> {
        if let Some(mountinfo) = &self.mountinfo {
            let mut mountinfo = mountinfo.lock();
            if crate::sys::is_priority_pending(&mountinfo) {
                self.read(&mut mountinfo);
            }
        }
        self.table.load_full()
    }

    fn read(&self, mountinfo: &mut File) {
        let mut text = Vec::new();
        let read = mountinfo
            .rewind()
            .and_then(|()| mountinfo.read_to_end(&mut text));
        let mut table = Vec::new();
        if read.is_ok() {
            let all = text.split(|byte| *byte == b'\n').filter_map(Mount::parse);
            table.extend(all.filter(|mount| {
                mount.path.starts_with(&self.folder) || self.folder.starts_with(&mount.path)
            }));
            // Of the mounts above the folder, only the lowest one matters.
            let lowest = table
                .iter()
                .filter(|mount| self.folder.starts_with(&mount.path));
            let lowest = lowest.max_by_key(|mount| mount.path.as_os_str().len());
            if let Some(lowest) = lowest.map(|mount| mount.path.clone()) {
                table.retain(|mount| mount.path.starts_with(&lowest));
            }
        }
        table.shrink_to_fit();
        self.table.store(Arc::new(table));
    }
}

impl Mount {
    /// Parses a line of `/proc/self/mountinfo`: `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|byte| *byte == b' ');
        let id = number(words.next()?)?;
        let device = words.nth(1)?;
        let (major, minor) = device.split_at(device.iter().position(|byte| *byte == b':')?);
        let path = unescape(words.nth(1)?);
        let mut rest = words.skip_while(|word| *word != b"-").skip(1);
        Some(Mount {
            id,
            device: (number(major)? << 32) | number(minor.get(1..)?)?,
            path: OsString::from_vec(path).into(),
            kind: FileSystemKind::of_type(str::from_utf8(rest.next()?).ok()?),
        })
    }
}

fn number(text: &[u8]) -> Option<u64> {
    str::from_utf8(text).ok()?.parse().ok()
}

/// Decodes spaces, tabs, line ends and backslashes, which are a backslash and three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'\\').then(|| after.get(..3)).flatten();
        let octal = escaped.and_then(|digits| str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                path.push(byte);
                rest = &after[3..];
            }
            None => {
                path.push(*first);
                rest = after;
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_as_the_kernel_writes_them() {
        let line = br"36 35 98:3 / /srv/my\040films\134x rw,noatime master:1 shared:2 - fuse.sshfs host: rw";
        let mount = Mount::parse(line).unwrap();
        assert_eq!(mount.id, 36);
        assert_eq!(mount.device, (98 << 32) | 3);
        assert_eq!(mount.path, Path::new(r"/srv/my films\x"));
        assert_eq!(mount.kind, FileSystemKind::UNKNOWN);
        for line in [
            &b""[..],
            b"36",
            b"36 35 98:0 / /mnt rw",
            b"36 35 98 / /mnt rw - ext4 x rw",
            b"a b c d e f - g",
        ] {
            assert_eq!(Mount::parse(line), None);
        }
    }

    #[test]
    fn types_of_file_systems() {
        for (name, is_local, tells_changes) in [
            ("ext4", true, true),
            ("zfs", true, true),
            ("vfat", true, false),
            ("nfs4", false, true),
            ("fuse.sshfs", false, false),
            ("fuseblk", false, false),
            ("of next year", false, false),
        ] {
            let kind = FileSystemKind {
                is_local,
                tells_changes,
            };
            assert_eq!(FileSystemKind::of_type(name), kind, "{name}");
        }
    }

    #[test]
    fn a_files_mount_is_the_one_of_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        let mounts = Mounts::beneath(path.clone());
        let file = tempfile::tempfile_in(&path).unwrap();
        let of_path = mounts.of_path(&path.join("a/b")).unwrap();
        assert_eq!(mounts.of_file(&file), Some(of_path.clone()));
        assert!(
            path.starts_with(&of_path.path),
            "{}",
            of_path.path.display()
        );
        assert_eq!(mounts.are_local(), of_path.kind.is_local);
    }
}
