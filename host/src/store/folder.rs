//! Opens what a key names, and never anything outside the folder.

use super::digests::Digests;
use super::object::{Key, MediaObject, MediaStore, ObjectInfo, ObjectVariant, OpenError};
use crate::ledger::LedgerHandle;
use crate::watch::heap;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions};
use millpond_store::content::{Access, ContentId, RECORD_BYTES, Record};
use millpond_store::names;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// A folder of media, opened once: whatever is asked for is looked up beneath that handle and cannot leave
/// it, be it by `..`, by an absolute path or through a symbolic link (`cap-std` resolves beneath the root).
///
/// Cloning is cheap and shares the handle.
#[derive(Debug, Clone)]
pub struct Folder {
    root: Arc<Dir>,
    path: Arc<Path>,
    digests: Arc<Digests>,
}

impl Folder {
    /// Opens the folder.
    ///
    /// # Errors
    /// When there is no such folder, or it cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = Dir::open_ambient_dir(path, ambient_authority())?;
        // A handle on a folder is had without the right to read it; who lacks that is told at the start.
        drop(root.entries()?);
        Ok(Folder {
            root: Arc::new(root),
            path: path.canonicalize()?.into(),
            digests: Arc::new(Digests::new()),
        })
    }

    /// Opens an object for whoever has that ledger, which is charged for as long as it is open. It blocks on the file
    /// system, so it is no call for an async thread; [`MediaStore::open`] is.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_object(&self, key: &Key, ledger: &LedgerHandle) -> Result<MediaObject, OpenError> {
        let (file, info) = match key {
            Key::Content(id) => self.open_content(id),
            Key::Named(name) => self.open_named(name),
        }?;
        Ok(MediaObject::from_file(file, info, ledger)?)
    }

    fn open_content(&self, id: &ContentId) -> Result<(std::fs::File, ObjectInfo), OpenError> {
        let mut json = Vec::new();
        self.open_file(&id.record_path())?
            .0
            .take(RECORD_BYTES)
            .read_to_end(&mut json)
            .map_err(open_error)?;
        let record = Record::parse(&json).ok_or(OpenError::NotFound)?;
        let (file, length, modified) = self.open_file(&id.path())?;
        if length != record.size {
            return Err(OpenError::NotFound);
        }
        let info = ObjectInfo {
            length,
            media_type: record.media_type,
            modified,
            created: Some(record.created),
            digest: Some(*id),
            access: record.access,
            variants: record
                .variants
                .into_iter()
                .map(|variant| ObjectVariant {
                    key: Key::Content(variant.id),
                    media_type: variant.media_type,
                    content_coding: variant.content_coding,
                })
                .collect(),
        };
        Ok((file, info))
    }

    fn open_named(&self, name: &str) -> Result<(std::fs::File, ObjectInfo), OpenError> {
        if !names::is_served(name) {
            return Err(OpenError::NotFound);
        }
        let (file, length, modified) = self.open_file(Path::new(name))?;
        let media_type = names::media_type(name);
        let info = ObjectInfo {
            length,
            media_type: media_type.to_owned(),
            modified,
            created: None,
            digest: self.digests.of(&file).map(ContentId::from_digest),
            access: Access::Public,
            variants: self.siblings(name, media_type),
        };
        Ok((file, info))
    }

    /// The files beside a named one that hold the same in another form.
    fn siblings(&self, name: &str, media_type: &str) -> Vec<ObjectVariant> {
        names::siblings(name, media_type)
            .filter(|sibling| {
                let found = self.root.metadata(&sibling.name);
                found.is_ok_and(|found| found.is_file())
            })
            .map(|sibling| ObjectVariant {
                key: Key::Named(sibling.name),
                media_type: sibling.media_type,
                content_coding: sibling.content_coding.map(str::to_owned),
            })
            .collect()
    }

    /// Opens a regular file: itself, its length, and when it was modified.
    fn open_file(
        &self,
        path: &Path,
    ) -> Result<(std::fs::File, u64, Option<SystemTime>), OpenError> {
        let mut options = OpenOptions::new();
        options.read(true);
        // Opening a named pipe would else wait for a writer, for ever.
        #[cfg(unix)]
        {
            use cap_std::fs::OpenOptionsExt;
            options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
        }
        let file = self
            .root
            .open_with(path, &options)
            .map_err(open_error)?
            .into_std();
        let metadata = file.metadata().map_err(open_error)?;
        if !metadata.is_file() {
            return Err(OpenError::NotFound);
        }
        Ok((file, metadata.len(), metadata.modified().ok()))
    }
}

impl MediaStore for Folder {
    async fn open(&self, key: &Key, ledger: &LedgerHandle) -> Result<MediaObject, OpenError> {
        let (folder, key, ledger) = (self.clone(), key.clone(), ledger.clone());
        let route = ledger.route().cloned();
        let open = move || folder.open_object(&key, &ledger);
        let opened = match route {
            Some(route) => heap::spawn_blocking(&route, open),
            None => tokio::task::spawn_blocking(open),
        };
        let failed = |error| OpenError::Failed(io::Error::other(error));
        opened.await.map_err(failed)?
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn is_shallow(&self) -> bool {
        true
    }
}

fn open_error(error: io::Error) -> OpenError {
    #[cfg(unix)]
    if let Some(code) = error.raw_os_error() {
        use rustix::io::Errno;
        return match Errno::from_raw_os_error(code) {
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => OpenError::Busy(error),
            Errno::IO | Errno::STALE | Errno::TIMEDOUT => OpenError::Failed(error),
            // No entry, no permission, a folder on the way that is none, too many links, a name too long:
            // to a visitor there is no such object, and to tell which it was would be to tell too much.
            _ => OpenError::NotFound,
        };
    }
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => OpenError::NotFound,
        io::ErrorKind::OutOfMemory => OpenError::Busy(error),
        // `cap-std` refuses an escape without an error of the system's.
        _ if error.raw_os_error().is_none() => OpenError::NotFound,
        _ => OpenError::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ledger::accounts::Accounts;
    use crate::ledger::{Ledger, Owner};
    use std::fs;

    fn folder() -> (tempfile::TempDir, Folder) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("media")).unwrap();
        fs::write(root.path().join("secret.txt"), "secret").unwrap();
        let media = root.path().join("media");
        fs::write(media.join("a.gif"), "GIF89a").unwrap();
        fs::write(media.join(".env"), "secret").unwrap();
        fs::create_dir(media.join("b")).unwrap();
        fs::write(media.join("b/c d.mp4"), "").unwrap();
        let folder = Folder::open(&media).unwrap();
        (root, folder)
    }

    fn ledger() -> (Arc<Accounts>, Ledger) {
        let accounts = Arc::default();
        let ledger = Ledger::new(&accounts, Owner::Connection, usize::MAX);
        (accounts, ledger)
    }

    fn open(folder: &Folder, name: &str) -> Result<MediaObject, OpenError> {
        folder.open_object(&Key::Named(name.into()), &ledger().1.handle())
    }

    #[test]
    fn files_by_name() {
        let (_root, folder) = folder();
        let (accounts, ledger) = ledger();
        let open = |name: &str| {
            let key = Key::Named(name.into());
            folder.open_object(&key, &ledger.handle()).unwrap()
        };
        let gif = open("a.gif");
        assert_eq!(gif.info().length, 6);
        assert_eq!(gif.info().media_type, "image/gif");
        let mp4 = open("b/c d.mp4");
        assert_eq!(mp4.info().length, 0);
        assert_eq!(mp4.info().media_type, "video/mp4");
        assert_eq!(accounts.files(), 2);
        drop((gif, mp4));
        assert_eq!((accounts.files(), ledger.balance().total()), (0, 0));
    }

    #[test]
    fn nothing_outside_the_root_or_hidden_is_opened() {
        let (_root, folder) = folder();
        let long = "a".repeat(5000);
        for name in [
            "../secret.txt",
            "b/../../secret.txt",
            "/etc/passwd",
            "b/../a.gif",
            "./a.gif",
            "b//c d.mp4",
            "b\\c d.mp4",
            "a.gif/",
            "a.gif/x",
            "b",
            "",
            ".",
            "..",
            ".env",
            "a.gif\0",
            &long,
        ] {
            let result = open(&folder, name);
            assert!(matches!(result, Err(OpenError::NotFound)), "{name:.40}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_within_the_root_only() {
        use std::os::unix::fs::symlink;
        let (root, folder) = folder();
        let media = root.path().join("media");
        symlink("a.gif", media.join("inside.gif")).unwrap();
        symlink("../secret.txt", media.join("relative")).unwrap();
        symlink(root.path().join("secret.txt"), media.join("absolute")).unwrap();
        symlink("..", media.join("up")).unwrap();
        symlink("loop", media.join("loop")).unwrap();
        assert!(open(&folder, "inside.gif").is_ok());
        for name in ["relative", "absolute", "up/secret.txt", "loop"] {
            let result = open(&folder, name);
            assert!(matches!(result, Err(OpenError::NotFound)), "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_named_pipe_is_no_object_and_does_not_hang() {
        let (root, folder) = folder();
        let pipe = root.path().join("media/pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        assert!(matches!(open(&folder, "pipe"), Err(OpenError::NotFound)));
    }

    #[test]
    fn content_is_not_served_by_name() {
        let (root, folder) = folder();
        let id = "ab".repeat(32);
        let inside = root.path().join("media/ab");
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join(&id), "secret").unwrap();
        fs::write(inside.join(format!("{id}.json")), "{}").unwrap();
        for name in [format!("ab/{id}"), format!("ab/{id}.json")] {
            let result = open(&folder, &name);
            assert!(matches!(result, Err(OpenError::NotFound)), "{name}");
        }
    }

    #[test]
    fn seed_r2_content_without_a_sound_record_is_not_served() {
        let (root, folder) = folder();
        let id: ContentId = "ab".repeat(32).parse().unwrap();
        let media = root.path().join("media");
        fs::create_dir(media.join("ab")).unwrap();
        fs::write(media.join(id.path()), "12345").unwrap();
        let (_accounts, ledger) = ledger();
        let opens = || {
            folder
                .open_object(&Key::Content(id), &ledger.handle())
                .is_ok()
        };
        assert!(!opens(), "no record");
        let record = |size: u64, access: &str| {
            format!(
                r#"{{"media_type":"image/gif","size":{size},"created":"2026-01-02T03:04:05Z","access":"{access}"}}"#
            )
        };
        for (json, served) in [
            (String::new(), false),
            (record(5, "public")[1..].to_owned(), false),
            (record(5, "secret"), false),
            (record(6, "public"), false),
            (" ".repeat(20_000) + &record(5, "public"), false),
            (record(5, "public"), true),
            // To whoever shows a right to it, which is the guest's to see.
            (record(5, "private"), true),
        ] {
            fs::write(media.join(id.record_path()), &json).unwrap();
            assert_eq!(opens(), served, "{json:.80}");
        }
    }
}
