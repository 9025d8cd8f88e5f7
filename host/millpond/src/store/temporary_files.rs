//! Temporary files of imports, and the lock of the store.

use parking_lot::{Mutex, MutexGuard};
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;

/// Folder of temporary files in the store. Hidden files are not served.
pub(super) const FOLDER: &str = ".incoming";

/// Lock file in that folder.
const LOCK: &str = "lock";

/// Prefix of the names of temporary files.
const PREFIX: &str = ".tmp";

/// Temporary files of one store and one process.
#[derive(Debug)]
pub(super) struct TemporaryFiles {
    folder: PathBuf,
    /// Temporary files that this process has created, and not yet moved or removed.
    present: Mutex<HashSet<PathBuf>>,
}

/// Lock of a store's records, across threads and processes. Dropping it or the end of the process releases it.
#[derive(Debug)]
pub(super) struct StoreLock {
    _file: File,
}

/// A temporary file. It is locked, so that no other process removes it. Dropping it removes it.
#[derive(Debug)]
pub(super) struct TemporaryFile {
    file: NamedTempFile,
    _present: PresentFile,
}

/// Entry of a temporary file in the set. Dropping it removes the entry.
#[derive(Debug)]
struct PresentFile {
    temporary_files: Arc<TemporaryFiles>,
    path: PathBuf,
}

/// Guard after the temporary files of an [`Importer`](super::Importer) were removed. While it is held, no import
/// continues.
#[derive(Debug)]
#[must_use = "adding goes on as soon as this is dropped"]
pub struct AbandonGuard<'a> {
    _present: MutexGuard<'a, HashSet<PathBuf>>,
}

impl TemporaryFiles {
    /// Opens the folder, or creates it.
    pub(super) fn attach(root: &Path) -> io::Result<Arc<Self>> {
        let temporary_files = TemporaryFiles {
            folder: root.join(FOLDER),
            present: Mutex::default(),
        };
        make_folder(&temporary_files.folder)?;
        Ok(Arc::new(temporary_files))
    }

    /// Opens the folder, or creates it. Removes the temporary files of interrupted processes.
    pub(super) fn open(root: &Path) -> io::Result<Arc<Self>> {
        let temporary_files = TemporaryFiles::attach(root)?;
        // The lock is held from the creation of a temporary file until that is locked, so no file in use is removed.
        let _lock = temporary_files.lock()?;
        for (path, _) in stale_files(root)? {
            // Files of other users cannot be removed. `verify` reports them.
            let _ = fs::remove_file(path);
        }
        Ok(temporary_files)
    }

    /// Waits for the lock of the store.
    pub(super) fn lock(&self) -> io::Result<StoreLock> {
        let path = self.folder.join(LOCK);
        let mut options = OpenOptions::new();
        options.write(true).create(true);
        // Opening the file allows to hold the lock, so only users who may import can open it.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o660);
        let file = match options.open(&path) {
            // The file may belong to another user of the group. Local file systems allow readers to lock.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(&path)?,
            opened => opened?,
        };
        file.lock()?;
        Ok(StoreLock { _file: file })
    }

    /// Creates a temporary file.
    pub(super) fn create(self: &Arc<Self>, _lock: &StoreLock) -> io::Result<TemporaryFile> {
        let mut present = self.present.lock();
        let file = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempfile_in(&self.folder)?;
        readable_by_the_server(file.as_file())?;
        // On systems with mandatory locks, a locked file could not be read by its name. No files are removed there.
        #[cfg(unix)]
        file.as_file().lock()?;
        let path = file.path().to_owned();
        present.insert(path.clone());
        drop(present);
        Ok(TemporaryFile {
            file,
            _present: PresentFile {
                temporary_files: Arc::clone(self),
                path,
            },
        })
    }

    /// Moves complete files to their places, in order. An interruption moves all of them or none.
    pub(super) fn place<const FILES: usize>(
        &self,
        _lock: &StoreLock,
        files: [(TemporaryFile, &Path); FILES],
    ) -> io::Result<()> {
        // The entries are dropped after the guard, because dropping them takes the same lock.
        let mut entries = Vec::with_capacity(FILES);
        let files = files.map(|(TemporaryFile { file, _present }, path)| {
            entries.push(_present);
            (file, path)
        });
        let _present = self.present.lock();
        for (file, path) in files {
            file.persist(path)?;
        }
        Ok(())
    }

    /// Moves a complete file into a folder under a name, and replaces the file of that name.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::CrossesDevices`] if the folder is on another file system.
    #[cfg(feature = "uploads")]
    pub(super) fn place_in(
        &self,
        _lock: &StoreLock,
        file: TemporaryFile,
        folder: &cap_std::fs::Dir,
        name: &std::ffi::OsStr,
    ) -> io::Result<()> {
        let TemporaryFile { file, _present } = file;
        let temporary_name = file.path().file_name().unwrap_or_default().to_owned();
        let authority = cap_std::ambient_authority();
        let own = cap_std::fs::Dir::open_ambient_dir(&self.folder, authority)?;
        // Dropped before `_present`, because dropping that takes the same lock.
        let present = self.present.lock();
        own.rename(temporary_name, folder, name)?;
        // The name is gone, so there is nothing to remove.
        let _ = file.keep();
        drop(present);
        Ok(())
    }

    /// Removes a temporary file that no process uses. Returns whether it was one.
    pub(super) fn remove_stale(&self, _lock: &StoreLock, path: &Path) -> io::Result<bool> {
        if !is_unused(path) {
            return Ok(false);
        }
        fs::remove_file(path)?;
        Ok(true)
    }

    /// Removes the temporary files of this process.
    pub(super) fn abandon(&self) -> AbandonGuard<'_> {
        let present = self.present.lock();
        for path in present.iter() {
            // The next import removes the files that cannot be removed now.
            let _ = fs::remove_file(path);
        }
        AbandonGuard { _present: present }
    }
}

impl TemporaryFile {
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(super) fn as_file(&self) -> &File {
        self.file.as_file()
    }
}

impl Drop for PresentFile {
    fn drop(&mut self) {
        self.temporary_files.present.lock().remove(&self.path);
    }
}

/// Returns the temporary files that no process uses, with their lengths in bytes. A file that cannot be opened is
/// skipped, because it may be in use. Without the lock of the store, an empty file may be in use.
pub(super) fn stale_files(root: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut stale = Vec::new();
    let entries = match fs::read_dir(root.join(FOLDER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(stale),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let is_temporary = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // The file may have been moved meanwhile.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if is_temporary && metadata.is_file() && is_unused(&entry.path()) {
            stale.push((entry.path(), metadata.len()));
        }
    }
    stale.sort_unstable();
    Ok(stale)
}

/// Returns whether no process holds the lock of a temporary file.
#[cfg(unix)]
fn is_unused(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock_shared().is_ok())
}

#[cfg(not(unix))]
fn is_unused(_path: &Path) -> bool {
    false
}

/// Creates a folder, and the missing ones above it. The server's user can read them, whatever the umask.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    let created = match (fs::create_dir(path), path.parent()) {
        (Err(_), _) if path.is_dir() => return Ok(()),
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(parent)?;
            fs::create_dir(path)
        }
        (created, _) => created,
    };
    match created {
        // Another process created it meanwhile.
        Err(_) if path.is_dir() => return Ok(()),
        created => created?,
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path)?.permissions().mode();
        fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o755))?;
    }
    Ok(())
}

/// Temporary files are readable by their owner only. Stored files have to be readable by the server's user.
fn readable_by_the_server(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    fn names(root: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(root.join(FOLDER)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| !path.ends_with(LOCK)).collect()
    }

    fn temporary(temporary_files: &Arc<TemporaryFiles>, content: &str) -> TemporaryFile {
        let temporary = temporary_files
            .create(&temporary_files.lock().unwrap())
            .unwrap();
        temporary.as_file().write_all(content.as_bytes()).unwrap();
        temporary
    }

    #[test]
    fn what_was_left_behind_is_removed_and_what_is_in_use_is_not() {
        let root = tempfile::tempdir().unwrap();
        let first = TemporaryFiles::open(root.path()).unwrap();
        let in_use = temporary(&first, "in use");
        let old = root.path().join(FOLDER).join(".tmpOLD");
        fs::write(&old, "left").unwrap();
        assert_eq!(stale_files(root.path()).unwrap(), [(old.clone(), 4)]);
        let _second = TemporaryFiles::open(root.path()).unwrap();
        assert_eq!(names(root.path()), [in_use.path()]);
        drop(in_use);
        assert!(names(root.path()).is_empty());
    }

    #[test]
    fn what_is_abandoned_is_removed_and_nothing_follows_it() {
        let root = tempfile::tempdir().unwrap();
        let temporary_files = TemporaryFiles::open(root.path()).unwrap();
        let place = root.path().join("placed");
        let (content, record) = (
            temporary(&temporary_files, "a"),
            temporary(&temporary_files, "b"),
        );
        drop(temporary_files.abandon());
        assert!(names(root.path()).is_empty());
        let lock = temporary_files.lock().unwrap();
        let files = [(content, place.as_path()), (record, place.as_path())];
        assert!(temporary_files.place(&lock, files).is_err());
        assert!(!place.exists());
        assert!(temporary_files.present.lock().is_empty());
    }
}
