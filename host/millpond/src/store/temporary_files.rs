//! Temporary files of a store that is added to, and the lock under which its records change.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::NamedTempFile;

/// Folder beneath the root where files lie until they are whole; its leading dot keeps it from being served.
const FOLDER: &str = ".incoming";

/// File in that folder that is locked while records change.
const LOCK: &str = "lock";

/// First characters of the name of each temporary file.
const PREFIX: &str = ".tmp";

/// The temporary files of one store, as one process uses them.
#[derive(Debug)]
pub(super) struct TemporaryFiles {
    folder: PathBuf,
    /// Temporary files that this process has made and not yet moved or removed.
    present: Mutex<HashSet<PathBuf>>,
}

/// The lock under which records of a store change, among all threads and processes that add to it. It is given back
/// when this is dropped, and by the kernel when the process ends.
#[derive(Debug)]
pub(super) struct StoreLock {
    _file: File,
}

/// A temporary file. It is removed when this is dropped, and locked until then, so that no other process takes it for
/// one that was left behind.
#[derive(Debug)]
pub(super) struct TemporaryFile<'a> {
    file: NamedTempFile,
    _present: PresentFile<'a>,
}

/// Keeps a path among those that are present.
#[derive(Debug)]
struct PresentFile<'a> {
    temporary_files: &'a TemporaryFiles,
    path: PathBuf,
}

/// The temporary files of an [`Importer`](super::Importer) are removed, and while this is held it makes no new ones and moves
/// none to its place.
#[derive(Debug)]
#[must_use = "adding goes on as soon as this is dropped"]
pub struct AbandonGuard<'a> {
    _present: MutexGuard<'a, HashSet<PathBuf>>,
}

impl TemporaryFiles {
    /// Opens the folder, makes it where there is none, and removes files that an interrupted process left in it.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let temporary_files = TemporaryFiles {
            folder: root.join(FOLDER),
            present: Mutex::default(),
        };
        make_folder(&temporary_files.folder)?;
        // Whoever makes a temporary file holds the lock until that file is locked, so none is taken for an old one.
        let _lock = temporary_files.lock()?;
        for (path, _) in stale_files(root)? {
            // Another user's cannot be removed, and is no reason to add nothing; `check` tells it.
            let _ = fs::remove_file(path);
        }
        Ok(temporary_files)
    }

    /// Waits until no other thread or process changes records.
    pub(super) fn lock(&self) -> io::Result<StoreLock> {
        let path = self.folder.join(LOCK);
        let mut options = OpenOptions::new();
        options.write(true).create(true);
        // Whoever may open it can hold up all others, so only those may who could add.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o660);
        let file = match options.open(&path) {
            // It may be another's who is of the same group; local file systems lock for readers too.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(&path)?,
            opened => opened?,
        };
        file.lock()?;
        Ok(StoreLock { _file: file })
    }

    /// Makes a temporary file.
    pub(super) fn create(&self, _lock: &StoreLock) -> io::Result<TemporaryFile<'_>> {
        let mut present = self.present();
        let file = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempfile_in(&self.folder)?;
        readable_by_the_server(file.as_file())?;
        // Where locks keep others from reading, the file could not be read by its name; nothing is removed there either.
        #[cfg(unix)]
        file.as_file().lock()?;
        let path = file.path().to_owned();
        present.insert(path.clone());
        drop(present);
        Ok(TemporaryFile {
            file,
            _present: PresentFile {
                temporary_files: self,
                path,
            },
        })
    }

    /// Moves whole files to their places, one after the other: all of them, or none where the process is interrupted.
    pub(super) fn place<const FILES: usize>(
        &self,
        _lock: &StoreLock,
        files: [(TemporaryFile<'_>, &Path); FILES],
    ) -> io::Result<()> {
        // Entries are dropped after the guard, for which they wait.
        let mut entries = Vec::with_capacity(FILES);
        let files = files.map(|(TemporaryFile { file, _present }, path)| {
            entries.push(_present);
            (file, path)
        });
        let _present = self.present();
        for (file, path) in files {
            file.persist(path)?;
        }
        Ok(())
    }

    /// Removes the temporary files of this process.
    pub(super) fn abandon(&self) -> AbandonGuard<'_> {
        let present = self.present();
        for path in present.iter() {
            // The next process that adds removes what cannot be removed now.
            let _ = fs::remove_file(path);
        }
        AbandonGuard { _present: present }
    }

    fn present(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        // A set of paths is whole whoever panicked.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TemporaryFile<'_> {
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(super) fn as_file(&self) -> &File {
        self.file.as_file()
    }
}

impl Drop for PresentFile<'_> {
    fn drop(&mut self) {
        self.temporary_files.present().remove(&self.path);
    }
}

/// Temporary files of a store that no process writes any more, and their lengths in bytes. One that cannot be opened
/// is passed over, because nobody can tell then whether it is in use. Without the store's lock, an empty one may be in
/// use: it is locked as soon as it is made.
pub(super) fn stale_files(root: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut stale = Vec::new();
    let entries = match fs::read_dir(root.join(FOLDER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(stale),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let is_temporary = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // It may have been moved to its place since the folder was read.
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

/// Whether a temporary file is locked by nobody.
#[cfg(unix)]
fn is_unused(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock_shared().is_ok())
}

#[cfg(not(unix))]
fn is_unused(_path: &Path) -> bool {
    false
}

/// Makes a folder, and those above it that are missing. Each can be read by whoever runs the server, as stored files
/// can: a umask may allow a group more, and takes nothing from others.
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
        // Another process has made it meanwhile.
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

/// Temporary files are the owner's alone as the system makes them; stored ones are for whoever runs the server.
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

    fn temporary<'a>(temporary_files: &'a TemporaryFiles, content: &str) -> TemporaryFile<'a> {
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
        assert!(temporary_files.present().is_empty());
    }
}
