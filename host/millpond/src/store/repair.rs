//! Repair of a store, entry by entry. No content is deleted: corrupt files are moved to a hidden folder.

use super::import::{
    ImportError, Importer, StoredRecord, read_error, sniff, sync_folder, write_error,
};
use super::record::open_regular;
use super::temporary_files::{StoreLock, TemporaryFiles, make_folder};
use super::verify::{Corruption, VerifiedEntry, digest};
use super::version::FileVersion;
use millpond_format::{Access, ContentId, Record};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Folder in the store for corrupt files. Hidden files are not served.
pub const LOST_AND_FOUND: &str = ".lost+found";

/// Repairs the entries that [`verify`](super::verify) reports. Other processes may use the store at the same time.
#[derive(Debug)]
pub struct Repairer {
    importer: Importer,
}

/// Action that repaired an entry. Its text says so.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepairAction {
    /// An orphaned temporary file was removed.
    Removed,
    /// The files of the entry were moved there, relative to the root of the store. A file beside them has the reason.
    SetAside(PathBuf),
    /// The content is whole, and got a new record with this access.
    DescribedAnew(Access),
    /// The missing variant was removed from the record.
    VariantRemoved,
    /// The entry changed after it was verified, so nothing was done.
    ChangedMeanwhile,
    /// The entry cannot be read, so nothing was done.
    Unreadable,
}

impl fmt::Display for RepairAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RepairAction::Removed => f.write_str("removed"),
            RepairAction::SetAside(to) => write!(f, "moved to {}", to.display()),
            RepairAction::DescribedAnew(Access::Public) => f.write_str("wrote a new record"),
            RepairAction::DescribedAnew(Access::Private) => f.write_str(
                "wrote a new record, as private media; `millpond publish` makes it public",
            ),
            RepairAction::VariantRemoved => f.write_str("removed the variant from the record"),
            RepairAction::ChangedMeanwhile => f.write_str("changed meanwhile; check again"),
            RepairAction::Unreadable => f.write_str("cannot be repaired by this user"),
        }
    }
}

impl RepairAction {
    /// Returns whether the entry is in order now.
    #[must_use]
    pub fn is_repaired(&self) -> bool {
        !matches!(
            self,
            RepairAction::ChangedMeanwhile | RepairAction::Unreadable
        )
    }
}

impl Repairer {
    /// Opens a store. Removes nothing.
    ///
    /// # Errors
    /// [`ImportError::Write`].
    pub fn open(root: &Path) -> Result<Self, ImportError> {
        let temporary_files = TemporaryFiles::attach(root).map_err(write_error(root))?;
        Ok(Repairer {
            importer: Importer {
                root: root.to_owned(),
                temporary_files,
                access: Access::Public,
            },
        })
    }

    /// Repairs an entry, and returns the action. `None` if the entry is not corrupt.
    ///
    /// # Errors
    /// [`ImportError::Read`], [`ImportError::Write`].
    pub fn repair(&self, entry: &VerifiedEntry) -> Result<Option<RepairAction>, ImportError> {
        let Some(corruption) = &entry.corruption else {
            return Ok(None);
        };
        if let Corruption::OrphanedTemporaryFile = corruption {
            let path = self.importer.root.join(&entry.path);
            let lock = self.importer.lock()?;
            let removed = self.importer.temporary_files.remove_stale(&lock, &path);
            return Ok(Some(match removed.map_err(write_error(&path))? {
                true => RepairAction::Removed,
                false => RepairAction::ChangedMeanwhile,
            }));
        }
        let name = entry.path.file_name().and_then(|name| name.to_str());
        let name = name.map(|name| name.strip_suffix(".json").unwrap_or(name));
        let Some(id) = name.and_then(|name| name.parse::<ContentId>().ok()) else {
            return Ok(Some(RepairAction::Unreadable));
        };
        let action = match corruption {
            Corruption::Digest(_) => self.set_content_aside(&id, corruption)?,
            Corruption::NoContent => self.set_record_aside(&id, corruption)?,
            Corruption::NoRecord | Corruption::Record => self.describe_anew(&id, corruption)?,
            Corruption::NoVariant(variant) => self.remove_variant(&id, variant)?,
            Corruption::OrphanedTemporaryFile | Corruption::Read(_) => RepairAction::Unreadable,
        };
        Ok(Some(action))
    }

    /// Moves corrupt content aside, with its record. Reads the content again, because it may have been replaced.
    fn set_content_aside(
        &self,
        id: &ContentId,
        corruption: &Corruption,
    ) -> Result<RepairAction, ImportError> {
        let path = self.importer.root.join(id.path());
        let file = match open_regular(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(RepairAction::ChangedMeanwhile);
            }
            opened => opened.map_err(read_error(&path))?,
        };
        let (_, found) = digest(&file, &mut |_| ()).map_err(read_error(&path))?;
        let read = file.metadata().map_err(read_error(&path))?;
        let lock = self.importer.lock()?;
        let now = fs::metadata(&path).map_err(read_error(&path))?;
        if found == *id || FileVersion::of(&read) != FileVersion::of(&now) {
            return Ok(RepairAction::ChangedMeanwhile);
        }
        // The record first, so that the media is never served in part.
        let paths = [id.record_path(), id.path()];
        let to = self.set_aside(&lock, id, &paths, corruption)?;
        Ok(RepairAction::SetAside(to))
    }

    /// Moves a record without content aside.
    fn set_record_aside(
        &self,
        id: &ContentId,
        corruption: &Corruption,
    ) -> Result<RepairAction, ImportError> {
        let lock = self.importer.lock()?;
        if self.importer.root.join(id.path()).exists() {
            return Ok(RepairAction::ChangedMeanwhile);
        }
        let to = self.set_aside(&lock, id, &[id.record_path()], corruption)?;
        Ok(RepairAction::SetAside(to))
    }

    /// Writes a new record for whole content. Moves a corrupt record aside. A record of another size keeps its access.
    fn describe_anew(
        &self,
        id: &ContentId,
        corruption: &Corruption,
    ) -> Result<RepairAction, ImportError> {
        let importer = &self.importer;
        let path = importer.root.join(id.path());
        let lock = importer.lock()?;
        let size = fs::metadata(&path).map_err(read_error(&path))?.len();
        let (access, variants, created) = match importer.find(id)? {
            StoredRecord::Record(record) if record.size == size => {
                return Ok(RepairAction::ChangedMeanwhile);
            }
            StoredRecord::Record(record) => (record.access, record.variants, record.created),
            // Nobody knows whether the media was public.
            StoredRecord::Corrupt | StoredRecord::Missing => {
                (Access::Private, Vec::new(), SystemTime::now())
            }
        };
        self.set_aside(&lock, id, &[id.record_path()], corruption)?;
        let record = Record {
            media_type: sniff(&path).map_err(read_error(&path))?,
            size,
            created,
            access,
            variants,
        };
        importer.change(&lock, id, &record)?;
        Ok(RepairAction::DescribedAnew(access))
    }

    /// Removes a variant that is not in the store from a record.
    fn remove_variant(
        &self,
        id: &ContentId,
        variant: &ContentId,
    ) -> Result<RepairAction, ImportError> {
        let importer = &self.importer;
        let lock = importer.lock()?;
        let StoredRecord::Record(mut record) = importer.find(id)? else {
            return Ok(RepairAction::ChangedMeanwhile);
        };
        if importer.root.join(variant.path()).exists() {
            return Ok(RepairAction::ChangedMeanwhile);
        }
        record.variants.retain(|other| other.id != *variant);
        importer.change(&lock, id, &record)?;
        Ok(RepairAction::VariantRemoved)
    }

    /// Moves files to the hidden folder, each if it exists, and writes the reason beside them. Returns the path of the
    /// last, relative to the root.
    fn set_aside(
        &self,
        _lock: &StoreLock,
        id: &ContentId,
        paths: &[PathBuf],
        corruption: &Corruption,
    ) -> Result<PathBuf, ImportError> {
        let root = &self.importer.root;
        let folder = root.join(LOST_AND_FOUND);
        make_folder(&folder).map_err(write_error(&folder))?;
        let base = free_name(&folder, id);
        let mut last = PathBuf::from(LOST_AND_FOUND);
        let mut moved = Vec::new();
        for path in paths {
            let extension = path.extension().map_or("", |_| ".json");
            let to = Path::new(LOST_AND_FOUND).join(format!("{base}{extension}"));
            match fs::rename(root.join(path), root.join(&to)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                renamed => renamed.map_err(write_error(&root.join(path)))?,
            }
            moved.push(path);
            last = to;
        }
        if moved.is_empty() {
            return Ok(last);
        }
        let reason = folder.join(format!("{base}.reason"));
        let now = humantime::format_rfc3339_seconds(SystemTime::now());
        let names: Vec<String> = moved
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let text = format!("{now} {}: {corruption}\n", names.join(" "));
        let from = root.join(paths[0].parent().unwrap_or(Path::new("")));
        let written = fs::write(&reason, text)
            .and_then(|()| sync_folder(&folder))
            .and_then(|()| sync_folder(&from));
        written.map_err(write_error(&reason))?;
        Ok(last)
    }
}

/// Returns a name for which the folder has no file yet: the id, or the id with a number.
fn free_name(folder: &Path, id: &ContentId) -> String {
    let is_free = |name: &String| {
        let names = ["", ".json", ".reason"].map(|extension| format!("{name}{extension}"));
        names.iter().all(|name| !folder.join(name).exists())
    };
    let numbered = (1_u32..).map(|number| format!("{id}.{number}"));
    let mut names = std::iter::once(id.to_string()).chain(numbered);
    names.find(is_free).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::verify;

    /// Verifies and repairs a store, and returns the actions with their entries.
    fn repair(store: &Path) -> Vec<(PathBuf, RepairAction)> {
        let repairer = Repairer::open(store).unwrap();
        let mut actions = Vec::new();
        let repair_one = |entry: VerifiedEntry| {
            let action = repairer.repair(&entry).unwrap();
            actions.extend(action.map(|action| (entry.path, action)));
        };
        verify(store, |_| (), repair_one).unwrap();
        actions
    }

    #[test]
    fn each_kind_of_corruption_is_repaired_and_no_byte_is_lost() {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join("store");
        let importer = Importer::open(&store).unwrap();
        let source = root.path().join("source");
        let add = |content: &str| {
            fs::write(&source, content).unwrap();
            importer.add(&source, |_| ()).unwrap()
        };
        let valid = add("valid").id;
        let changed = add("changed").id;
        fs::write(store.join(changed.path()), "Changed").unwrap();
        let unrecorded = add("unrecorded").id;
        fs::remove_file(store.join(unrecorded.record_path())).unwrap();
        let garbled = add("garbled").id;
        fs::write(store.join(garbled.record_path()), "{").unwrap();
        let lost = add("lost").id;
        fs::remove_file(store.join(lost.path())).unwrap();
        let (original, variant) = (add("original").id, add("variant"));
        importer.add_variant(&original, &variant, None).unwrap();
        importer.remove(&variant.id).unwrap();
        fs::write(store.join(".incoming/.tmpLEFT"), "left").unwrap();

        let actions = repair(&store);
        let action = |path: PathBuf| {
            let found = actions.iter().find(|(entry, _)| *entry == path);
            &found
                .unwrap_or_else(|| unreachable!("{}", path.display()))
                .1
        };
        let aside = |name: String| RepairAction::SetAside(Path::new(LOST_AND_FOUND).join(name));
        assert_eq!(*action(changed.path()), aside(changed.to_string()));
        assert_eq!(*action(lost.record_path()), aside(format!("{lost}.json")));
        let private = RepairAction::DescribedAnew(Access::Private);
        assert_eq!(*action(unrecorded.path()), private);
        assert_eq!(*action(garbled.path()), private);
        let variant_removed = RepairAction::VariantRemoved;
        assert_eq!(*action(original.record_path()), variant_removed);
        #[cfg(unix)]
        assert_eq!(*action(".incoming/.tmpLEFT".into()), RepairAction::Removed);

        let kept = |name: &str| fs::read_to_string(store.join(LOST_AND_FOUND).join(name)).unwrap();
        assert_eq!(kept(&changed.to_string()), "Changed");
        assert_eq!(kept(&format!("{garbled}.json")), "{");
        let reason = kept(&format!("{changed}.reason"));
        assert!(reason.contains("another digest"), "{reason}");
        assert!(store.join(valid.path()).exists());

        assert!(repair(&store).is_empty());
    }

    #[test]
    fn the_second_corruption_of_the_same_media_does_not_replace_the_first() {
        let root = tempfile::tempdir().unwrap();
        let importer = Importer::open(root.path()).unwrap();
        let source = root.path().join("source.txt");
        for damage in ["first", "second"] {
            fs::write(&source, "content").unwrap();
            let id = importer.add(&source, |_| ()).unwrap().id;
            fs::write(root.path().join(id.path()), damage).unwrap();
            repair(root.path());
        }
        let entries = fs::read_dir(root.path().join(LOST_AND_FOUND)).unwrap();
        // Content, record and reason, twice.
        assert_eq!(entries.count(), 6);
    }

    #[test]
    fn content_that_was_put_right_meanwhile_stays() {
        let root = tempfile::tempdir().unwrap();
        let importer = Importer::open(root.path()).unwrap();
        let source = root.path().join("source.txt");
        fs::write(&source, "content").unwrap();
        let id = importer.add(&source, |_| ()).unwrap().id;
        let entry = |corruption| VerifiedEntry {
            path: id.path(),
            size: 7,
            corruption: Some(corruption),
        };
        let repairer = Repairer::open(root.path()).unwrap();
        for corruption in [
            Corruption::Digest(id),
            Corruption::NoContent,
            Corruption::NoRecord,
        ] {
            let action = repairer.repair(&entry(corruption)).unwrap();
            assert_eq!(action, Some(RepairAction::ChangedMeanwhile));
        }
    }
}
