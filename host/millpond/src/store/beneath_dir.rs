//! Handle of a folder. Opens files beneath it only, and uses separate threads for file systems that may not answer.

use super::thread_pool::{ThreadPool, ThreadPools};
use super::version::FileVersion;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, ReadDir};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(super) use platform::BeneathDir;

/// Metadata of an entry of a folder. Symbolic links are followed.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntryMetadata {
    /// Whether it is a folder. Otherwise it is a regular file.
    pub(super) is_folder: bool,
    /// Length, in bytes.
    pub(super) length: u64,
    /// Time of the last modification.
    pub(super) modified: Option<SystemTime>,
}

/// Properties of a file's file system.
#[derive(Debug, Clone)]
pub(super) struct FileSystem {
    /// Threads for its calls. `None` if any thread may call it, because it waits for a local disk at most.
    pub(super) threads: Option<ThreadPool>,
    /// Whether every change of a file changes its version.
    pub(super) tells_changes: bool,
}

/// The error of an open that may only wait for a local disk.
#[derive(Debug)]
pub(super) enum LocalOpenError {
    /// The path leads to another file system, with these threads.
    Elsewhere(ThreadPool),
    /// The system's error.
    Failed(io::Error),
}

impl From<io::Error> for LocalOpenError {
    fn from(error: io::Error) -> Self {
        LocalOpenError::Failed(error)
    }
}

/// Returns whether every change of a file changes its version, on the file's file system. Blocks on it.
#[cfg(target_os = "linux")]
pub(super) fn tells_changes(file: &File) -> bool {
    platform::kind_by_number(file).tells_changes
}

/// Other systems do not say which file system it is.
#[cfg(not(target_os = "linux"))]
pub(super) fn tells_changes(_file: &File) -> bool {
    false
}

/// Returns whether the path leads to this folder. Blocks on any file system.
fn is_at(dir: &Dir, path: &Path) -> io::Result<bool> {
    let there = std::fs::metadata(path)?;
    if !there.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    #[cfg(unix)]
    {
        use cap_std::fs::MetadataExt;
        use std::os::unix::fs::MetadataExt as _;
        let own = dir.dir_metadata()?;
        Ok((own.dev(), own.ino()) == (there.dev(), there.ino()))
    }
    // Other systems do not report the identity of a folder at once. There an open folder cannot be replaced.
    #[cfg(not(unix))]
    {
        let _ = dir;
        Ok(true)
    }
}

/// Opens the folder. Lists it once, because a handle can be opened without the permission to read.
fn open_readable(path: &Path) -> io::Result<Dir> {
    let dir = Dir::open_ambient_dir(path, ambient_authority())?;
    drop(dir.entries()?);
    Ok(dir)
}

/// Opens a file beneath the folder for reading. Blocks on any file system.
fn open_in(dir: &Dir, path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    // Without it, opening a named pipe would wait for a writer.
    #[cfg(unix)]
    {
        use cap_std::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    Ok(dir.open_with(path, &options)?.into_std())
}

fn has_file(dir: &Dir, path: &Path) -> bool {
    dir.metadata(path).is_ok_and(|found| found.is_file())
}

/// Reads the entries of a folder beneath the folder; an empty path is the folder itself. Blocks on any file system.
fn read_dir(dir: &Dir, path: &Path) -> io::Result<ReadDir> {
    match path.as_os_str().is_empty() {
        true => dir.entries(),
        false => dir.open_dir(path)?.entries(),
    }
}

/// Returns the metadata of a file or folder. `None` for everything else. Blocks on any file system.
fn metadata(dir: &Dir, path: &Path) -> Option<EntryMetadata> {
    let found = dir.metadata(path).ok()?;
    (found.is_dir() || found.is_file()).then(|| EntryMetadata {
        is_folder: found.is_dir(),
        length: found.len(),
        modified: found
            .modified()
            .ok()
            .map(cap_std::time::SystemTime::into_std),
    })
}

#[cfg(target_os = "linux")]
mod platform {
    use super::*;
    use crate::store::mounts::{FileSystemKind, Mount, Mounts};
    use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat2, readlinkat};
    use rustix::io::Errno;
    use std::ffi::OsString;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::ffi::OsStringExt;
    use std::path::Component;

    /// An open folder.
    #[derive(Debug)]
    pub(in crate::store) struct BeneathDir {
        dir: Dir,
        /// Real path of the folder when it was opened.
        path: PathBuf,
        mounts: Mounts,
        pools: ThreadPools,
        /// File system of the folder itself.
        own: FileSystem,
    }

    /// Maximum number of symbolic links on a path, as in the kernel.
    const LINKS: usize = 40;

    /// Device number of an unknown file system.
    const UNKNOWN_DEVICE: u64 = u64::MAX - 1;

    impl BeneathDir {
        /// Opens a folder. Blocks on any file system.
        ///
        /// # Errors
        /// The folder does not exist or cannot be read.
        pub(in crate::store) fn open(path: &Path, pools: &ThreadPools) -> io::Result<Self> {
            let dir = open_readable(path)?;
            let path = path.canonicalize()?;
            let mounts = Mounts::beneath(path.clone());
            let own = mounts.of_file(&dir).or_else(|| mounts.of_path(&path));
            let own = match own {
                Some(mount) => file_system(pools, Some(&mount)),
                // Without `/proc`, only the file system itself can tell its type.
                None => match kind_by_number(&dir) {
                    kind @ FileSystemKind { is_local: true, .. } => FileSystem {
                        threads: None,
                        tells_changes: kind.tells_changes,
                    },
                    _ => file_system(pools, None),
                },
            };
            Ok(BeneathDir {
                dir,
                path,
                mounts,
                pools: pools.clone(),
                own,
            })
        }

        /// Threads for all calls, if the folder's own file system may not answer.
        pub(in crate::store) fn threads(&self) -> Option<&ThreadPool> {
            self.own.threads.as_ref()
        }

        /// Real path of the folder when it was opened.
        pub(in crate::store) fn path(&self) -> &Path {
            &self.path
        }

        /// Returns whether the path leads to this folder. Blocks on any file system.
        ///
        /// # Errors
        /// There is no folder at the path.
        pub(in crate::store) fn is_at(&self, path: &Path) -> io::Result<bool> {
            is_at(&self.dir, path)
        }

        /// Returns the version of a file or folder, if the kernel has it in memory.
        pub(in crate::store) fn try_version(&self, path: &Path) -> Option<FileVersion> {
            let is_root = path.as_os_str().is_empty();
            let path = if is_root { Path::new(".") } else { path };
            let (found, _) = self
                .open_beneath(path, OFlags::PATH, WaitMode::Never)
                .ok()?;
            fstat(found).ok().as_ref().map(FileVersion::from)
        }

        /// Opens a file for reading, if the kernel has it in memory.
        ///
        /// # Errors
        /// Errors of `openat2`. Some say only that the call would block.
        pub(in crate::store) fn try_open_file(
            &self,
            path: &Path,
        ) -> io::Result<(File, FileSystem)> {
            self.file_beneath(path, WaitMode::Never)
        }

        /// Returns whether there is a regular file, if the kernel knows it without a disk.
        ///
        /// # Errors
        /// As [`BeneathDir::try_open_file`].
        pub(in crate::store) fn try_has_file(&self, path: &Path) -> io::Result<bool> {
            self.has_file_beneath(path, WaitMode::Never)
        }

        /// Opens a file for reading. Waits for a local disk at most.
        ///
        /// # Errors
        /// [`LocalOpenError`].
        pub(in crate::store) fn open_local_file(
            &self,
            path: &Path,
        ) -> Result<(File, FileSystem), LocalOpenError> {
            let opened = self.file_beneath(path, WaitMode::ForDisk);
            opened.or_else(|error| {
                if is_unknown_syscall(&error) {
                    return Ok(self.open_file(path)?);
                }
                Err(self.local_open_error(path, error))
            })
        }

        /// Returns whether there is a regular file. Waits for a local disk at most.
        ///
        /// # Errors
        /// [`LocalOpenError::Elsewhere`].
        pub(in crate::store) fn has_local_file(&self, path: &Path) -> Result<bool, LocalOpenError> {
            match self.has_file_beneath(path, WaitMode::ForDisk) {
                Ok(has_file) => Ok(has_file),
                Err(error) if is_unknown_syscall(&error) => Ok(has_file(&self.dir, path)),
                Err(error) => match self.local_open_error(path, error) {
                    elsewhere @ LocalOpenError::Elsewhere(_) => Err(elsewhere),
                    LocalOpenError::Failed(_) => Ok(false),
                },
            }
        }

        /// Opens a file for reading. Blocks on any file system.
        ///
        /// # Errors
        /// The system's.
        pub(in crate::store) fn open_file(&self, path: &Path) -> io::Result<(File, FileSystem)> {
            let file = open_in(&self.dir, path)?;
            let file_system = file_system(&self.pools, self.mounts.of_file(&file).as_ref());
            Ok((file, file_system))
        }

        /// Returns whether there is a regular file. Blocks on any file system.
        pub(in crate::store) fn has_file(&self, path: &Path) -> bool {
            has_file(&self.dir, path)
        }

        /// Returns whether a folder may be there. `false` only if the kernel knows it without a disk.
        pub(in crate::store) fn try_may_be_folder(&self, path: &Path) -> bool {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let opened = self.open_beneath(path, flags, WaitMode::Never);
            !matches!(opened, Err(Errno::NOENT | Errno::NOTDIR))
        }

        /// Checks that a folder is on a local disk, so that its entries can be read on any thread.
        ///
        /// # Errors
        /// [`LocalOpenError`].
        pub(in crate::store) fn check_local_folder(
            &self,
            path: &Path,
        ) -> Result<(), LocalOpenError> {
            if path.as_os_str().is_empty() {
                return Ok(());
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let opened = self.open_beneath(path, flags, WaitMode::ForDisk);
            opened.map(drop).map_err(io::Error::from).or_else(|error| {
                match is_unknown_syscall(&error) {
                    true => Ok(()),
                    false => Err(self.local_open_error(path, error)),
                }
            })
        }

        /// Reads the entries of a folder; an empty path is this folder. Blocks on any file system.
        ///
        /// # Errors
        /// The system's.
        pub(in crate::store) fn read_dir(&self, path: &Path) -> io::Result<ReadDir> {
            read_dir(&self.dir, path)
        }

        /// Returns the metadata of a file or folder. `None` for everything else. Blocks on any file system.
        pub(in crate::store) fn metadata(&self, path: &Path) -> Option<EntryMetadata> {
            metadata(&self.dir, path)
        }

        /// Returns the metadata of a file or folder on a local disk. `None` for everything else. Waits for a local disk at
        /// most.
        pub(in crate::store) fn local_metadata(&self, path: &Path) -> Option<EntryMetadata> {
            match self.open_beneath(path, OFlags::PATH, WaitMode::ForDisk) {
                Ok((found, _)) => {
                    let found = File::from(found).metadata().ok()?;
                    (found.is_dir() || found.is_file()).then(|| EntryMetadata {
                        is_folder: found.is_dir(),
                        length: found.len(),
                        modified: found.modified().ok(),
                    })
                }
                Err(Errno::NOSYS | Errno::PERM) => self.metadata(path),
                Err(_) => None,
            }
        }

        fn file_beneath(&self, path: &Path, wait: WaitMode) -> io::Result<(File, FileSystem)> {
            // Without `NONBLOCK`, opening a named pipe would wait for a writer.
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
            let (file, is_elsewhere) = self.open_beneath(path, flags, wait)?;
            let file_system = if is_elsewhere {
                file_system(&self.pools, self.mounts.of_file(&file).as_ref())
            } else {
                self.own.clone()
            };
            Ok((file.into(), file_system))
        }

        fn has_file_beneath(&self, path: &Path, wait: WaitMode) -> io::Result<bool> {
            match self.open_beneath(path, OFlags::PATH, wait) {
                Ok((found, _)) => {
                    let mode = fstat(found)?.st_mode;
                    Ok(FileType::from_raw_mode(mode) == FileType::RegularFile)
                }
                Err(Errno::NOENT) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }

        /// Opens a path without calling a file system that may not answer; `EXDEV` if that is impossible. Returns
        /// whether the path is on another file system than the folder.
        fn open_beneath(
            &self,
            path: &Path,
            flags: OFlags,
            wait: WaitMode,
        ) -> Result<(OwnedFd, bool), Errno> {
            if self.own.threads.is_some() {
                return Err(Errno::XDEV);
            }
            let flags = flags | OFlags::CLOEXEC;
            let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | wait.flags();
            let open = |resolve| openat2(&self.dir, path, flags, Mode::empty(), resolve);
            match wait.retry(|| open(beneath | ResolveFlags::NO_XDEV)) {
                Ok(found) => Ok((found, false)),
                Err(Errno::XDEV) if self.mounts.are_local() => {
                    wait.retry(|| open(beneath)).map(|found| (found, true))
                }
                Err(error) => Err(error),
            }
        }

        fn local_open_error(&self, path: &Path, error: io::Error) -> LocalOpenError {
            if Errno::from_io_error(&error) != Some(Errno::XDEV) {
                return LocalOpenError::Failed(error);
            }
            match self.device_on_the_way(path) {
                Ok(device) => LocalOpenError::Elsewhere(self.pools.of(device)),
                Err(Errno::XDEV) => LocalOpenError::Failed(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "a symbolic link on the path leads out of the folder",
                )),
                Err(errno) => LocalOpenError::Failed(errno.into()),
            }
        }

        /// Returns the device of the file system that a path leads to, without calling it. Resolves the path up to the
        /// mount point, and looks up the rest by its text.
        ///
        /// # Errors
        /// [`Errno::XDEV`] if the path leaves the folder, and [`Errno::AGAIN`] if it no longer leads to another file
        /// system.
        fn device_on_the_way(&self, path: &Path) -> Result<u64, Errno> {
            let mut ahead: Vec<OsString> = segments(path);
            let mut here = PathBuf::new();
            let mut links = 0;
            while let Some(segment) = ahead.pop() {
                if segment == ".." {
                    if !here.pop() {
                        return Err(Errno::XDEV);
                    }
                    continue;
                }
                let next = here.join(&segment);
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let within =
                    ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
                let found = match openat2(&self.dir, &next, flags, Mode::empty(), within) {
                    Ok(found) => found,
                    Err(Errno::XDEV) => {
                        let mut path = self.path.join(&next);
                        path.extend(ahead.iter().rev());
                        let mount = self.mounts.of_path(&path);
                        return Ok(mount.map_or(UNKNOWN_DEVICE, |mount| mount.device));
                    }
                    Err(error) => return Err(error),
                };
                if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::Symlink {
                    here = next;
                    continue;
                }
                links += 1;
                let target = readlinkat(&found, "", Vec::new())?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    return Err(Errno::XDEV);
                }
                if links > LINKS {
                    return Err(Errno::LOOP);
                }
                ahead.extend(segments(&target));
            }
            Err(Errno::AGAIN)
        }
    }

    /// Whether an open may wait for a disk.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum WaitMode {
        Never,
        ForDisk,
    }

    impl WaitMode {
        fn flags(self) -> ResolveFlags {
            match self {
                WaitMode::Never => ResolveFlags::CACHED,
                WaitMode::ForDisk => ResolveFlags::empty(),
            }
        }

        /// Repeats the open if the kernel asks for it, because a folder on the path was renamed (openat2(2)).
        fn retry<T>(self, open: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
            const TIMES: usize = 32;
            let is_again = |result: &Result<T, Errno>| {
                self == WaitMode::ForDisk && matches!(result, Err(Errno::AGAIN | Errno::INTR))
            };
            let mut result = open();
            for _ in 1..TIMES {
                if !is_again(&result) {
                    break;
                }
                result = open();
            }
            result
        }
    }

    fn file_system(pools: &ThreadPools, mount: Option<&Mount>) -> FileSystem {
        let (device, kind) = mount.map_or((UNKNOWN_DEVICE, FileSystemKind::UNKNOWN), |mount| {
            (mount.device, mount.kind)
        });
        FileSystem {
            threads: (!kind.is_local).then(|| pools.of(device)),
            tells_changes: kind.tells_changes,
        }
    }

    /// Returns the kind of a common file system, by the magic number of `statfs`.
    pub(super) fn kind_by_number(dir: &impl AsFd) -> FileSystemKind {
        /// ext2 to ext4, XFS, Btrfs, tmpfs, overlay, ZFS: from `linux/magic.h` and ZFS's sources.
        const LOCAL: [u64; 6] = [
            0xef53,
            0x5846_5342,
            0x9123_683e,
            0x0102_1994,
            0x794c_7630,
            0x2fc1_2fc1,
        ];
        #[allow(
            clippy::unnecessary_cast,
            clippy::cast_sign_loss,
            reason = "the type differs by architecture"
        )]
        let is_local =
            fstatfs(dir).is_ok_and(|mountinfo| LOCAL.contains(&(mountinfo.f_type as u64)));
        FileSystemKind {
            is_local,
            tells_changes: is_local,
        }
    }

    /// Returns the segments of a path, last one first.
    fn segments(path: &Path) -> Vec<OsString> {
        let segments = path
            .components()
            .rev()
            .filter_map(|component| match component {
                Component::Normal(segment) => Some(segment.to_owned()),
                Component::ParentDir => Some("..".into()),
                _ => None,
            });
        segments.collect()
    }

    /// Returns whether the system call is missing: before Linux 5.6, or denied by a sandbox.
    fn is_unknown_syscall(error: &io::Error) -> bool {
        matches!(
            Errno::from_io_error(error),
            Some(Errno::NOSYS | Errno::PERM)
        )
    }
}

/// Other systems report neither cached files nor mounts without blocking.
#[cfg(not(target_os = "linux"))]
mod platform {
    use super::*;

    #[derive(Debug)]
    pub(in crate::store) struct BeneathDir {
        dir: Dir,
        path: PathBuf,
    }

    const ANY: FileSystem = FileSystem {
        threads: None,
        tells_changes: true,
    };

    impl BeneathDir {
        pub(in crate::store) fn open(path: &Path, _pools: &ThreadPools) -> io::Result<Self> {
            Ok(BeneathDir {
                dir: open_readable(path)?,
                path: path.canonicalize()?,
            })
        }

        pub(in crate::store) fn threads(&self) -> Option<&ThreadPool> {
            None
        }

        pub(in crate::store) fn path(&self) -> &Path {
            &self.path
        }

        pub(in crate::store) fn is_at(&self, path: &Path) -> io::Result<bool> {
            is_at(&self.dir, path)
        }

        pub(in crate::store) fn try_version(&self, _path: &Path) -> Option<FileVersion> {
            None
        }

        pub(in crate::store) fn try_open_file(
            &self,
            _path: &Path,
        ) -> io::Result<(File, FileSystem)> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        pub(in crate::store) fn try_has_file(&self, _path: &Path) -> io::Result<bool> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        pub(in crate::store) fn open_local_file(
            &self,
            path: &Path,
        ) -> Result<(File, FileSystem), LocalOpenError> {
            Ok(self.open_file(path)?)
        }

        pub(in crate::store) fn has_local_file(&self, path: &Path) -> Result<bool, LocalOpenError> {
            Ok(self.has_file(path))
        }

        pub(in crate::store) fn open_file(&self, path: &Path) -> io::Result<(File, FileSystem)> {
            Ok((open_in(&self.dir, path)?, ANY))
        }

        pub(in crate::store) fn try_may_be_folder(&self, _path: &Path) -> bool {
            true
        }

        pub(in crate::store) fn check_local_folder(
            &self,
            _path: &Path,
        ) -> Result<(), LocalOpenError> {
            Ok(())
        }

        pub(in crate::store) fn read_dir(&self, path: &Path) -> io::Result<ReadDir> {
            read_dir(&self.dir, path)
        }

        pub(in crate::store) fn metadata(&self, path: &Path) -> Option<EntryMetadata> {
            metadata(&self.dir, path)
        }

        pub(in crate::store) fn local_metadata(&self, path: &Path) -> Option<EntryMetadata> {
            metadata(&self.dir, path)
        }

        pub(in crate::store) fn has_file(&self, path: &Path) -> bool {
            has_file(&self.dir, path)
        }
    }
}
