//! Import of a named file: whole content takes its name at once, and replaces the file that had it.

use super::import::{ImportError, Importer, PendingImport, sync_folder, write_error};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use std::io;
use std::path::{Path, PathBuf};

/// The error of an import under a name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NamedImportError {
    /// A folder has the name.
    #[error("{0} is a folder")]
    IsFolder(String),
    /// A file has the name of a folder on the path.
    #[error("a folder on the path of {0} is a file")]
    NoFolder(String),
    /// A symbolic link on the path leads out of the store.
    #[error("the path of {0} leads out of the store")]
    LeadsOut(String),
    /// The folder is on another file system, so the file cannot be moved there at once.
    #[error("the folder of {0} is on another file system than the store")]
    OtherFileSystem(String),
    /// The content cannot be written.
    #[error(transparent)]
    Import(#[from] ImportError),
}

impl Importer {
    /// Finishes an import under a name, whose segments are those of a served file. Creates the folders on its path.
    /// Blocks on the file system.
    ///
    /// `check` learns whether a file of the name exists, and may refuse. No other import changes that meanwhile.
    /// Returns whether the file existed.
    ///
    /// # Errors
    /// [`NamedImportError`], or the error of `check`.
    pub(crate) fn finish_named<E: From<NamedImportError>>(
        &self,
        import: PendingImport,
        name: &str,
        check: impl FnOnce(bool) -> Result<(), E>,
    ) -> Result<bool, E> {
        let path = Path::new(name);
        let failed = |error| NamedImportError::of(error, name, &self.root.join(path));
        let content = import.content;
        content.as_file().sync_all().map_err(failed)?;
        let lock = self.lock().map_err(NamedImportError::from)?;
        let root = Dir::open_ambient_dir(&self.root, ambient_authority()).map_err(failed)?;
        let exists = match root.metadata(path) {
            Ok(found) if found.is_dir() => {
                return Err(NamedImportError::IsFolder(name.to_owned()).into());
            }
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(failed(error).into()),
        };
        check(exists)?;
        let file_name = path.file_name().unwrap_or_default();
        let folder = open_folder(&root, path.parent().unwrap_or(Path::new(""))).map_err(failed)?;
        let placed = self
            .temporary_files
            .place_in(&lock, content, &folder, file_name);
        placed.map_err(failed)?;
        let whole_path = self.root.join(path);
        let synced = sync_folder(whole_path.parent().unwrap_or(&self.root));
        synced.map_err(failed)?;
        Ok(exists)
    }
}

/// Opens a folder beneath the root, and creates it if it does not exist. The server's user can read it, whatever the
/// umask.
fn open_folder(root: &Dir, path: &Path) -> io::Result<Dir> {
    let mut made = PathBuf::new();
    for segment in path {
        made.push(segment);
        match root.create_dir(&made) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => {
                created?;
                open_to_readers(root, &made)?;
            }
        }
    }
    match made.as_os_str().is_empty() {
        true => root.try_clone(),
        false => root.open_dir(&made),
    }
}

#[cfg(unix)]
fn open_to_readers(root: &Dir, path: &Path) -> io::Result<()> {
    use cap_std::fs::{Permissions, PermissionsExt};
    let mode = root.metadata(path)?.permissions().mode();
    root.set_permissions(path, Permissions::from_mode(mode | 0o755))
}

#[cfg(not(unix))]
fn open_to_readers(_root: &Dir, _path: &Path) -> io::Result<()> {
    Ok(())
}

impl NamedImportError {
    fn of(error: io::Error, name: &str, path: &Path) -> Self {
        let name = name.to_owned();
        match error.kind() {
            io::ErrorKind::IsADirectory => NamedImportError::IsFolder(name),
            io::ErrorKind::NotADirectory => NamedImportError::NoFolder(name),
            io::ErrorKind::CrossesDevices => NamedImportError::OtherFileSystem(name),
            // The system's own error has a number.
            io::ErrorKind::PermissionDenied if error.raw_os_error().is_none() => {
                NamedImportError::LeadsOut(name)
            }
            _ => write_error(path)(error).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    fn import(importer: &Importer, name: &str, content: &str) -> Result<bool, NamedImportError> {
        let mut import = importer.begin().unwrap();
        import.write(content.as_bytes()).unwrap();
        importer.finish_named(import, name, |_| Ok(()))
    }

    #[test]
    fn a_file_takes_its_name_whole_and_folders_are_made() {
        let root = tempfile::tempdir().unwrap();
        let importer = Importer::open(root.path()).unwrap();
        assert!(!import(&importer, "a/b/c.txt", "first").unwrap());
        assert!(import(&importer, "a/b/c.txt", "second").unwrap());
        assert!(!import(&importer, "d.txt", "third").unwrap());
        let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
        assert_eq!((&*read("a/b/c.txt"), &*read("d.txt")), ("second", "third"));
        let left = fs::read_dir(root.path().join(".incoming")).unwrap();
        assert_eq!(left.count(), 1, "the lock alone");
    }

    #[test]
    fn a_name_that_is_a_folder_or_lies_in_a_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let importer = Importer::open(root.path()).unwrap();
        import(&importer, "a/b.txt", "content").unwrap();
        let error = import(&importer, "a", "x").unwrap_err();
        assert!(matches!(error, NamedImportError::IsFolder(_)), "{error}");
        let error = import(&importer, "a/b.txt/c", "x").unwrap_err();
        assert!(matches!(error, NamedImportError::NoFolder(_)), "{error}");
    }

    #[test]
    fn a_refused_import_leaves_the_file_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let importer = Importer::open(root.path()).unwrap();
        import(&importer, "a.txt", "old").unwrap();
        let refuse = |exists: bool| {
            assert!(exists);
            Err(NamedImportError::NoFolder("refused".into()))
        };
        let new = importer.begin().unwrap();
        importer.finish_named(new, "a.txt", refuse).unwrap_err();
        let content = fs::read_to_string(root.path().join("a.txt")).unwrap();
        assert_eq!(content, "old");
        let left = fs::read_dir(root.path().join(".incoming")).unwrap();
        assert_eq!(left.count(), 1, "the lock alone");
    }

    #[cfg(unix)]
    #[test]
    fn no_symbolic_link_leads_an_import_out() {
        use std::os::unix::fs::symlink;
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let importer = Importer::open(root.path()).unwrap();
        fs::create_dir(root.path().join("inside")).unwrap();
        symlink("inside", root.path().join("link")).unwrap();
        symlink(outside.path(), root.path().join("out")).unwrap();
        symlink("../../..", root.path().join("inside/up")).unwrap();
        import(&importer, "link/a.txt", "x").unwrap();
        assert!(root.path().join("inside/a.txt").exists());
        for name in ["out/a.txt", "out/b/a.txt", "inside/up/a.txt"] {
            let error = import(&importer, name, "x").unwrap_err();
            assert!(
                matches!(error, NamedImportError::LeadsOut(_)),
                "{name}: {error:?}"
            );
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        // A link in the place of the file is replaced, and its target stays.
        fs::write(outside.path().join("target"), "target").unwrap();
        symlink("inside/a.txt", root.path().join("file")).unwrap();
        import(&importer, "file", "new").unwrap();
        assert!(
            root.path()
                .join("file")
                .symlink_metadata()
                .unwrap()
                .is_file()
        );
    }
}
