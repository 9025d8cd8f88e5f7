//! Versions of files.

use super::object_info::ObjectVersion;
use millpond_format::version;
use sha2::{Digest, Sha256};
use std::fs::Metadata;
use std::time::{Duration, SystemTime};

/// Version of a file or folder, from the file system. The same version means the same content.
///
/// It includes the change time, because the modification time can be set by the file's writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileVersion {
    device: u64,
    inode: u64,
    length: u64,
    modified: FileTime,
    changed: FileTime,
}

/// Seconds since 1970, and nanoseconds.
type FileTime = (i64, i64);

impl FileVersion {
    /// Returns the version. `None` if the system does not report enough.
    #[cfg(unix)]
    #[allow(
        clippy::unnecessary_wraps,
        reason = "other systems tell no change time"
    )]
    pub(super) fn of(metadata: &Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        Some(FileVersion {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    #[cfg(not(unix))]
    pub(super) fn of(_metadata: &Metadata) -> Option<Self> {
        None
    }

    /// Length, in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Returns whether a later change could have the same version (git: *racily clean*). Timestamps have the resolution
    /// of a clock tick, so two changes within a tick look alike. If a version is not racy, everything read from now on
    /// belongs to it, or the next version differs.
    pub(super) fn is_racy(&self) -> bool {
        /// The longest tick in use has 10 ms.
        const TICKS: Duration = Duration::from_millis(20);
        let seconds = u64::try_from(self.changed.0).unwrap_or(0);
        let nanos = u32::try_from(self.changed.1).unwrap_or(0);
        let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos));
        let age = changed.and_then(|changed| changed.elapsed().ok());
        age.is_none_or(|age| age <= TICKS)
    }

    /// Returns a digest of the version, short enough to keep many.
    pub(super) fn key(&self) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update(self.device.to_be_bytes());
        hash.update(self.inode.to_be_bytes());
        hash.update(self.length.to_be_bytes());
        for (seconds, nanos) in [self.modified, self.changed] {
            hash.update(seconds.to_be_bytes());
            hash.update(nanos.to_be_bytes());
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        key
    }

    /// Returns the version for the interface. The device number is not part of it, because it may change with the next
    /// mount. A weak text never equals a strong one.
    pub(super) fn to_object_version(self, is_weak: bool) -> ObjectVersion {
        let mut hash = Sha256::new();
        hash.update([u8::from(!is_weak)]);
        hash.update(self.inode.to_be_bytes());
        hash.update(self.length.to_be_bytes());
        for (seconds, nanos) in [self.modified, self.changed] {
            hash.update(seconds.to_be_bytes());
            hash.update(nanos.to_be_bytes());
        }
        let text = version::text(&hash.finalize().into());
        match is_weak {
            true => ObjectVersion::Weak(text),
            false => ObjectVersion::Strong(text),
        }
    }
}

#[cfg(target_os = "linux")]
impl From<&rustix::fs::Stat> for FileVersion {
    #[allow(clippy::unnecessary_cast, reason = "the types differ by architecture")]
    fn from(stat: &rustix::fs::Stat) -> Self {
        FileVersion {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            length: stat.st_size as u64,
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs::{self, File};
    use std::path::Path;

    fn settled(path: &Path) -> FileVersion {
        loop {
            let version = FileVersion::of(&fs::metadata(path).unwrap()).unwrap();
            if !version.is_racy() {
                return version;
            }
            std::thread::yield_now();
        }
    }

    /// Tag editors do this, and so do deployments by rename that set one modification time for all files.
    #[test]
    fn contents_of_one_length_and_modification_time_were_one_version() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        let write = |path: &Path, content: &str| {
            fs::write(path, content).unwrap();
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        };
        write(&path, "first ");
        write(&other, "second");
        let first = settled(&path);
        settled(&other);
        write(&path, "in situ");
        write(&path, "edited");
        let edited = settled(&path);
        fs::rename(&other, &path).unwrap();
        let renamed = settled(&path);
        assert_eq!(first.modified, renamed.modified);
        for (one, another) in [(first, edited), (edited, renamed), (first, renamed)] {
            assert_ne!(one, another);
            assert_ne!(
                one.to_object_version(false),
                another.to_object_version(false)
            );
        }
        assert_eq!(renamed, settled(&path));
    }
}
