//! Verifies a store: every file against its id, every record against its file.

use millpond_store::content::{ContentId, Record};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What one entry of a store turned out to be.
#[derive(Debug)]
#[non_exhaustive]
pub struct Finding {
    /// Its path, from the store's root.
    pub path: PathBuf,
    /// Its length, in bytes.
    pub size: u64,
    /// What is wrong with it; none when it is sound.
    pub damage: Option<Damage>,
}

/// What is wrong with an entry of a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The content is not what its id says.
    #[error("its content has another digest: {0}")]
    Digest(ContentId),
    /// Its record is missing.
    #[error("it has no record")]
    NoRecord,
    /// Its record cannot be understood, or tells another size.
    #[error("its record is damaged")]
    Record,
    /// A record describes content that is not there.
    #[error("the content that it describes is missing")]
    NoContent,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// Goes through a store and tells each finding. What is not part of the content store (named files, hidden
/// ones) is passed over. `progress` is told the bytes of each step.
///
/// # Errors
/// When the store's root or one of its folders cannot be listed.
pub fn check(
    root: &Path,
    mut progress: impl FnMut(u64),
    mut found: impl FnMut(Finding),
) -> io::Result<()> {
    for folder in sorted_entries(root)? {
        if !is_content_folder(&folder) {
            continue;
        }
        for name in sorted_entries(&root.join(&folder))? {
            let path = Path::new(&folder).join(&name);
            let record_of = name.strip_suffix(".json");
            let Ok(id) = record_of.unwrap_or(&name).parse::<ContentId>() else {
                continue;
            };
            if record_of.is_none() {
                let (size, damage) = check_content(root, &id, &mut progress);
                found(Finding { path, size, damage });
            } else if !root.join(id.path()).exists() {
                let damage = Some(Damage::NoContent);
                found(Finding {
                    path,
                    size: 0,
                    damage,
                });
            }
        }
    }
    Ok(())
}

fn check_content(
    root: &Path,
    id: &ContentId,
    progress: &mut impl FnMut(u64),
) -> (u64, Option<Damage>) {
    let (size, digest) = match digest(&root.join(id.path()), progress) {
        Ok(read) => read,
        Err(error) => return (0, Some(Damage::Read(error))),
    };
    if digest != *id {
        return (size, Some(Damage::Digest(digest)));
    }
    let damage = match fs::read(root.join(id.record_path())) {
        Ok(json) => match Record::parse(&json) {
            Some(record) if record.size == size => None,
            _ => Some(Damage::Record),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Damage::NoRecord),
        Err(error) => Some(Damage::Read(error)),
    };
    (size, damage)
}

fn digest(path: &Path, progress: &mut impl FnMut(u64)) -> io::Result<(u64, ContentId)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, ContentId::from_digest(hash.finalize().into()))),
            Ok(count) => {
                hash.update(&buffer[..count]);
                size += count as u64;
                progress(count as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The names in a folder that are text, in order.
fn sorted_entries(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn is_content_folder(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::Adder;

    fn findings(root: &Path) -> Vec<(PathBuf, Option<String>)> {
        let mut findings = Vec::new();
        let found = |finding: Finding| {
            findings.push((
                finding.path,
                finding.damage.map(|damage| damage.to_string()),
            ));
        };
        check(root, |_| (), found).unwrap();
        findings
    }

    #[test]
    fn every_kind_of_damage_is_found() {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join("store");
        let adder = Adder::open(&store).unwrap();
        let source = root.path().join("source");
        let add = |content: &str| {
            fs::write(&source, content).unwrap();
            adder.add(&source, |_| ()).unwrap().id
        };
        let sound = add("sound");
        fs::write(store.join("named.gif"), "").unwrap();
        fs::create_dir_all(store.join("zz")).unwrap();
        assert_eq!(findings(&store), [(sound.path(), None)]);

        let changed = add("changed");
        fs::write(store.join(changed.path()), "Changed").unwrap();
        let unrecorded = add("unrecorded");
        fs::remove_file(store.join(unrecorded.record_path())).unwrap();
        let garbled = add("garbled");
        fs::write(store.join(garbled.record_path()), "{").unwrap();
        let lost = add("lost");
        fs::remove_file(store.join(lost.path())).unwrap();

        let mut damages: Vec<_> = findings(&store);
        damages.retain(|(_, damage)| damage.is_some());
        for (path, message) in [
            (changed.path(), "another digest"),
            (unrecorded.path(), "no record"),
            (garbled.path(), "record is damaged"),
            (lost.record_path(), "missing"),
        ] {
            let position = damages.iter().position(|(found, damage)| {
                *found == path && damage.as_deref().unwrap().contains(message)
            });
            assert!(position.is_some(), "{message}");
            damages.remove(position.unwrap());
        }
        assert!(damages.is_empty(), "{damages:?}");
    }
}
