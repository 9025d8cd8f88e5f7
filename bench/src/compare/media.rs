//! The files that are asked for: noise, the same each time, made into `target/bench/media`.

use crate::store;
use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// A file that all servers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum File {
    OneKilobyte,
    FourKilobytes,
    HalfMegabyte,
    FiftyMegabytes,
}

impl File {
    const ALL: [File; 4] = [
        File::OneKilobyte,
        File::FourKilobytes,
        File::HalfMegabyte,
        File::FiftyMegabytes,
    ];

    /// Its name in the folder.
    pub(crate) fn name(self) -> &'static str {
        match self {
            File::OneKilobyte => "1k.jpg",
            File::FourKilobytes => "4k.jpg",
            File::HalfMegabyte => "500k.gif",
            File::FiftyMegabytes => "50m.mp4",
        }
    }

    /// Its length.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            File::OneKilobyte => 1024,
            File::FourKilobytes => 4096,
            File::HalfMegabyte => 500_000,
            File::FiftyMegabytes => 50_000_000,
        }
    }

    fn content(self) -> Vec<u8> {
        // The length is under a hundred megabytes.
        let mut content = vec![0; self.bytes() as usize];
        StdRng::seed_from_u64(self.bytes()).fill_bytes(&mut content);
        content
    }
}

/// The folder of all of them.
pub(crate) struct Media {
    /// The folder that servers are given whose `/media/…` is a folder beneath their root.
    pub(crate) root: PathBuf,
    ids: [String; File::ALL.len()],
}

/// A folder with so many files is enough to hold the files that are asked for once.
const FOLDERS: usize = 256;

/// Links that one file may have: ext4 allows 65,000.
const LINKS: usize = 50_000;

impl Media {
    /// Makes the files, by name and by content, unless they are there.
    pub(crate) fn make(millpond: &Path, root: &Path) -> Result<Self> {
        let folder = root.join("media");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut ids = [const { String::new() }; File::ALL.len()];
        let mut paths = Vec::new();
        for (id, file) in ids.iter_mut().zip(File::ALL) {
            let content = file.content();
            *id = hex::encode(Sha256::digest(&content));
            let path = folder.join(file.name());
            if fs::metadata(&path).is_ok_and(|found| found.len() == file.bytes()) {
                // As it was made before.
            } else {
                fs::write(&path, content)
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            paths.push(path);
        }
        store::add(millpond, &paths, &folder)?;
        Ok(Media {
            root: root.to_owned(),
            ids,
        })
    }

    /// The folder that holds them: named files, and a store of the same by content.
    pub(crate) fn folder(&self) -> PathBuf {
        self.root.join("media")
    }

    /// The SHA-256 of a file, in hexadecimal.
    pub(crate) fn id(&self, file: File) -> &str {
        let position = File::ALL.iter().position(|other| *other == file);
        position.map_or("", |position| &self.ids[position])
    }

    pub(crate) fn read(&self, file: File) -> Result<Vec<u8>> {
        let path = self.folder().join(file.name());
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Makes files that were never asked for, and tells where they are.
    pub(crate) fn never_asked(&self, count: usize) -> Result<Vec<String>> {
        let base = self.folder().join("cold");
        let names = make_links(&base, &self.read(File::FourKilobytes)?, count)
            .with_context(|| format!("cannot make files in {}", base.display()))?;
        Ok(names.map(|name| format!("/media/cold/{name}")).collect())
    }
}

/// Makes so many files of one content beneath a folder, unless they are there, and tells their names. They are links:
/// as many files would fill the disk and not show more.
pub(crate) fn make_links(
    base: &Path,
    content: &[u8],
    count: usize,
) -> Result<impl Iterator<Item = String> + use<>> {
    let done = base.join(".count");
    let there = fs::read_to_string(&done)
        .ok()
        .and_then(|count| count.parse().ok());
    if there.is_some_and(|there: usize| there >= count) {
        return Ok((0..count).map(name));
    }
    if base.exists() {
        fs::remove_dir_all(base)?;
    }
    for folder in 0..FOLDERS.min(count) {
        fs::create_dir_all(base.join(name(folder)).parent().unwrap_or(base))?;
    }
    let mut first = base.to_owned();
    for number in 0..count {
        let path = base.join(name(number));
        if number % LINKS == 0 {
            fs::write(&path, content)?;
            first = path;
        } else {
            fs::hard_link(&first, path)?;
        }
    }
    fs::write(done, count.to_string())?;
    Ok((0..count).map(name))
}

fn name(number: usize) -> String {
    format!("{:02x}/{number:07}.jpg", number % FOLDERS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_are_the_same_each_time_and_of_their_length() {
        let content = File::FourKilobytes.content();
        assert_eq!(content.len(), 4096);
        assert_eq!(content, File::FourKilobytes.content());
        assert_ne!(content[..1024], File::OneKilobyte.content());
    }

    #[test]
    fn as_many_names_are_made_as_are_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("cold");
        for count in [3, 300, 10] {
            let names: Vec<String> = make_links(&base, b"x", count).unwrap().collect();
            assert_eq!(names.len(), count);
            assert!(
                names
                    .iter()
                    .all(|name| fs::read(base.join(name)).unwrap() == b"x")
            );
        }
        // Existing files are not made again.
        assert!(base.join(name(299)).exists());
    }
}
