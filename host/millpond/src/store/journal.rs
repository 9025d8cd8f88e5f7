//! Journal of an import of many files: an interrupted import is resumed without reading again what it has stored.

use super::beneath_dir::tells_changes;
use super::import::{ImportError, Importer, write_error};
use super::temporary_files::{FOLDER, TemporaryFiles};
use super::version::FileVersion;
use millpond_format::ContentId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;

/// Prefix of the names of journals, which lie beside the temporary files.
const PREFIX: &str = "journal-";

/// Maximum number of files that an interrupted import is known to have stored. They take 100 MiB. Further files are read
/// again.
const KNOWN_FILES: usize = 1_000_000;

/// Maximum length of a line that is read, in bytes. Every line that this program writes is shorter.
const LINE_BYTES: usize = 128;

/// Journal of one import. Several processes may have one each.
///
/// A file counts as unchanged if it has the same version: device, inode, length, modification time and change time. A
/// file system over a network, or one without change times, does not prove that, so its files are read again.
#[derive(Debug)]
pub struct ImportJournal {
    folder: PathBuf,
    temporary_files: Arc<TemporaryFiles>,
    known: HashMap<VersionKey, ContentId>,
    unsure: usize,
    /// Journals of interrupted imports. They are locked, so that no other process removes them.
    interrupted: Vec<(PathBuf, File)>,
    own: Mutex<Option<NamedTempFile>>,
}

/// Digest of a file's version, cut to the bytes that a million files need.
type VersionKey = [u8; 16];

/// A file before it is read.
#[derive(Debug, Clone)]
pub struct UnreadFile {
    path: PathBuf,
    /// `None` if a change of the file would go unnoticed.
    key: Option<VersionKey>,
}

impl ImportJournal {
    /// Opens the journals that interrupted imports into a store have left.
    ///
    /// # Errors
    /// [`ImportError::Read`].
    pub fn open(importer: &Importer) -> Result<Self, ImportError> {
        let folder = importer.root.join(FOLDER);
        let mut journal = ImportJournal {
            known: HashMap::new(),
            unsure: 0,
            interrupted: Vec::new(),
            own: Mutex::default(),
            temporary_files: Arc::clone(&importer.temporary_files),
            folder,
        };
        let read_error = |source| ImportError::Read {
            path: journal.folder.clone(),
            source,
        };
        // Under this lock a journal is made and locked, and removed. One that nobody has locked is thus an interrupted
        // import's.
        let _lock = importer.temporary_files.lock().map_err(read_error)?;
        let entries = fs::read_dir(&journal.folder).map_err(read_error)?;
        let paths: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // A journal that cannot be read or locked is in use, or another user's.
            if name.starts_with(PREFIX)
                && let Ok(file) = File::options().read(true).write(true).open(&path)
                && file.try_lock().is_ok()
            {
                // A line that was not written whole is the last.
                let _ = journal.read(&file);
                journal.interrupted.push((path, file));
            }
        }
        Ok(journal)
    }

    fn read(&mut self, file: &File) -> io::Result<()> {
        let mut lines = BufReader::new(file);
        loop {
            let mut line = Vec::new();
            let mut limited = io::Read::take(&mut lines, LINE_BYTES as u64);
            if limited.read_until(b'\n', &mut line)? == 0 || !line.ends_with(b"\n") {
                return Ok(());
            }
            let line = String::from_utf8(line).map_err(io::Error::other)?;
            let mut key = VersionKey::default();
            let Some((version, id)) = line.trim_end().split_once(' ') else {
                self.unsure += 1;
                continue;
            };
            let id = id.parse::<ContentId>().map_err(io::Error::other)?;
            hex::decode_to_slice(version, &mut key).map_err(io::Error::other)?;
            match self.known.len() < KNOWN_FILES {
                true => drop(self.known.insert(key, id)),
                false => self.unsure += 1,
            }
        }
    }

    /// Number of files that interrupted imports have stored, and that are not read again while they are unchanged.
    #[must_use]
    pub fn known_files(&self) -> usize {
        self.known.len()
    }

    /// Number of files that interrupted imports have stored, and that are read again, because nothing proves that they
    /// are unchanged.
    #[must_use]
    pub fn unsure_files(&self) -> usize {
        self.unsure
    }

    /// Looks up a file before it is read. Returns its id if an interrupted import has stored it, and it is unchanged.
    #[must_use]
    pub fn look_up(&self, path: &Path) -> (UnreadFile, Option<ContentId>) {
        let key = version_key(path);
        let id = key.and_then(|key| self.known.get(&key).copied());
        let path = path.to_owned();
        (UnreadFile { path, key }, id)
    }

    /// Records that a file was stored.
    ///
    /// # Errors
    /// [`ImportError::Write`].
    pub fn record(&self, unread: &UnreadFile, id: &ContentId) -> Result<(), ImportError> {
        // The file may have changed while it was read.
        let is_unchanged = unread.key.is_some() && version_key(&unread.path) == unread.key;
        let line = match unread.key.filter(|_| is_unchanged) {
            Some(key) => format!("{} {id}\n", hex::encode(key)),
            None => "unsure\n".into(),
        };
        let mut own = self.own.lock();
        let written = self
            .file(&mut own)
            .and_then(|file| file.write_all(line.as_bytes()));
        written.map_err(write_error(&self.folder))
    }

    fn file<'a>(&self, own: &'a mut Option<NamedTempFile>) -> io::Result<&'a mut File> {
        let file = match own.take() {
            Some(file) => file,
            None => {
                let _lock = self.temporary_files.lock()?;
                let mut journal = tempfile::Builder::new();
                let mut journal = journal.prefix(PREFIX).tempfile_in(&self.folder)?;
                journal.as_file().lock()?;
                // It is left behind unless the import is finished.
                journal.disable_cleanup(true);
                journal
            }
        };
        Ok(own.insert(file).as_file_mut())
    }

    /// Removes the journals, after every file was stored.
    ///
    /// # Errors
    /// [`ImportError::Write`].
    pub fn finish(self) -> Result<(), ImportError> {
        let lock = self.temporary_files.lock();
        let _lock = lock.map_err(write_error(&self.folder))?;
        // The files stay locked until they are removed.
        let own = self.own.lock();
        let own = own.as_ref().map(|own| own.path().to_owned());
        let interrupted = self.interrupted.iter().map(|(path, _)| path.clone());
        for path in interrupted.chain(own) {
            fs::remove_file(&path).map_err(write_error(&path))?;
        }
        Ok(())
    }
}

/// Returns the version of a file. `None` if a change would not change it.
fn version_key(path: &Path) -> Option<VersionKey> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let version = FileVersion::of(&metadata)?;
    if version.is_racy() || !tells_changes(&File::open(path).ok()?) {
        return None;
    }
    Some(version.key())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn store_one(importer: &Importer, journal: &ImportJournal, path: &Path) -> ContentId {
        // Until the last change of the file is older than the tick of the file system's clock.
        let unread = loop {
            let (unread, known) = journal.look_up(path);
            assert_eq!(known, None);
            if unread.key.is_some() {
                break unread;
            }
        };
        let id = importer.add(path, |_| ()).unwrap().id;
        journal.record(&unread, &id).unwrap();
        id
    }

    #[test]
    fn a_stored_file_is_known_until_it_changes() {
        let root = tempfile::tempdir().unwrap();
        let importer = Importer::open(&root.path().join("store")).unwrap();
        let path = root.path().join("source");
        fs::write(&path, "content").unwrap();
        let journal = ImportJournal::open(&importer).unwrap();
        let id = store_one(&importer, &journal, &path);
        // Another process has its own while this one runs.
        let other = ImportJournal::open(&importer).unwrap();
        assert_eq!((other.known_files(), other.look_up(&path).1), (0, None));
        drop(journal);

        let resumed = ImportJournal::open(&importer).unwrap();
        assert_eq!(resumed.known_files(), 1);
        assert_eq!(resumed.look_up(&path).1, Some(id));
        fs::write(&path, "Content").unwrap();
        assert_eq!(resumed.look_up(&path).1, None);
        resumed.finish().unwrap();
        let after = ImportJournal::open(&importer).unwrap();
        assert_eq!(after.known_files(), 0);
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_read_again() {
        let root = tempfile::tempdir().unwrap();
        let importer = Importer::open(&root.path().join("store")).unwrap();
        let path = root.path().join("source");
        fs::write(&path, "content").unwrap();
        let journal = ImportJournal::open(&importer).unwrap();
        let (unread, _) = journal.look_up(&path);
        let id = importer.add(&path, |_| ()).unwrap().id;
        fs::write(&path, "Content").unwrap();
        journal.record(&unread, &id).unwrap();
        drop(journal);
        let resumed = ImportJournal::open(&importer).unwrap();
        assert_eq!((resumed.known_files(), resumed.unsure_files()), (0, 1));
    }

    /// The journal of an import that had just begun was taken for an interrupted one's, and removed by another import.
    #[test]
    fn journals_of_imports_at_the_same_time_were_removed() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("a.txt");
        fs::write(&file, "a").unwrap();
        let importer = Importer::open(root.path()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let journal = ImportJournal::open(&importer).unwrap();
                        store_one(&importer, &journal, &file);
                        journal.finish().unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn a_torn_line_and_garbage_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        let importer = Importer::open(root.path()).unwrap();
        let id = ContentId::from_digest([7; 32]);
        let line = format!("{} {id}\n", "ab".repeat(16));
        for (text, known) in [
            (format!("{line}{}", &line[..40]), 1),
            (format!("{line}xyz {id}\n{line}"), 1),
            ("x".repeat(10_000), 0),
            ("\u{0}\n \n".into(), 0),
        ] {
            let path = root.path().join(".incoming/journal-x");
            fs::write(&path, text).unwrap();
            let journal = ImportJournal::open(&importer).unwrap();
            assert_eq!(journal.known_files(), known);
            journal.finish().unwrap();
            assert!(!path.exists());
        }
    }
}
