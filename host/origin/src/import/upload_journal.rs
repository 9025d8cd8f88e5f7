//! Journals of uploads: an interrupted upload goes on with the parts that the store lacks.

use crate::import::error::OriginImportError;
use crate::import::hashed_file::HashedFile;
use crate::origin_url::OriginUrl;
use millpond::store::ContentId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// Maximum length of a line that is read, in bytes. Upload ids and entity tags are far shorter.
const LINE_BYTES: u64 = 8 * 1024;

/// Folder of the journals of one origin's uploads. Each upload has a file there, by the id of its content, until it is
/// complete.
#[derive(Debug, Clone)]
pub struct UploadJournals {
    folder: PathBuf,
    url: String,
}

/// A line of a journal, in JSON. The first begins the upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum JournalLine {
    Begin {
        url: String,
        id: ContentId,
        length: u64,
        part_bytes: u64,
        upload_id: String,
    },
    /// A part that the store has, by the name that the store gave it: its entity tag in S3.
    Part { index: usize, content_id: String },
    /// All parts were put together.
    Complete,
}

/// Journal of one upload. It is locked, so that another process does not add to it.
#[derive(Debug)]
pub(super) struct UploadJournal {
    path: PathBuf,
    /// `None` if another process has the journal, or there is none. Nothing is written then.
    file: Option<File>,
    url: String,
    id: ContentId,
    length: u64,
    part_bytes: u64,
    upload_id: Option<String>,
    parts: BTreeMap<usize, String>,
    is_complete: bool,
}

impl UploadJournals {
    /// Returns the journals of an origin, below the folder for those of all origins. The folder is made when it is needed.
    #[must_use]
    pub fn new(folder: &Path, url: &OriginUrl) -> Self {
        UploadJournals {
            folder: folder.join(url.cache_name()),
            url: url.to_string(),
        }
    }

    /// Folder of the journals. It takes the content of pipes, too, while that is sent.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens the journal of a file's upload, and reads what an interrupted upload has left.
    ///
    /// # Errors
    /// [`OriginImportError::Journal`].
    pub(super) fn journal(&self, hashed: &HashedFile) -> Result<UploadJournal, OriginImportError> {
        let mut journal = UploadJournal {
            path: self.folder.join(format!("{}.jsonl", hashed.id())),
            url: self.url.clone(),
            ..UploadJournal::unwritten(hashed)
        };
        fs::create_dir_all(&self.folder)
            .and_then(|()| journal.read(hashed.part_count()))
            .map_err(journal.error())?;
        Ok(journal)
    }
}

impl UploadJournal {
    /// Returns a journal that is in memory only.
    pub(super) fn unwritten(hashed: &HashedFile) -> Self {
        UploadJournal {
            path: PathBuf::new(),
            file: None,
            url: String::new(),
            id: hashed.id(),
            length: hashed.length(),
            part_bytes: hashed.part_bytes(),
            upload_id: None,
            parts: BTreeMap::new(),
            is_complete: false,
        }
    }

    /// Reads the journal, if no other process has it. Lines that do not fit are left out.
    fn read(&mut self, part_count: usize) -> io::Result<()> {
        let mut options = File::options();
        let options = options.read(true).append(true).create(true);
        let file = options.open(&self.path)?;
        match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) => return Ok(()),
            locked => locked?,
        }
        let mut lines = BufReader::new(&file);
        let first = read_line(&mut lines)?;
        if let Some(JournalLine::Begin {
            url,
            id,
            length,
            part_bytes,
            upload_id,
        }) = first
            && url == self.url
            && (id, length, part_bytes) == (self.id, self.length, self.part_bytes)
        {
            self.upload_id = Some(upload_id);
            // A line that was not written whole is the last.
            while let Some(line) = read_line(&mut lines)? {
                match line {
                    JournalLine::Begin { .. } => {}
                    JournalLine::Part { index, content_id } if index < part_count => {
                        self.parts.insert(index, content_id);
                    }
                    JournalLine::Part { .. } => {}
                    JournalLine::Complete => self.is_complete = true,
                }
            }
        }
        self.file = Some(file);
        // A torn line goes, so that the next begins on a line of its own.
        self.rewrite()
    }

    /// Upload to go on with. `None` before it has begun.
    pub(super) fn upload_id(&self) -> Option<&str> {
        self.upload_id.as_deref()
    }

    /// Parts that the store has, with the names that it gave them.
    pub(super) fn parts(&self) -> &BTreeMap<usize, String> {
        &self.parts
    }

    /// Whether the store has put the parts together.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Records the begin of an upload. An earlier one is forgotten.
    ///
    /// # Errors
    /// [`OriginImportError::Journal`].
    pub(super) fn begin(&mut self, upload_id: &str) -> Result<(), OriginImportError> {
        self.upload_id = Some(upload_id.to_owned());
        self.parts.clear();
        self.is_complete = false;
        self.rewrite().map_err(self.error())
    }

    /// Forgets the upload, which the store has no more.
    ///
    /// # Errors
    /// [`OriginImportError::Journal`].
    pub(super) fn forget(&mut self) -> Result<(), OriginImportError> {
        self.upload_id = None;
        self.parts.clear();
        self.is_complete = false;
        self.rewrite().map_err(self.error())
    }

    /// Records a part that the store has.
    ///
    /// # Errors
    /// [`OriginImportError::Journal`].
    pub(super) fn add_part(
        &mut self,
        index: usize,
        content_id: String,
    ) -> Result<(), OriginImportError> {
        let line = JournalLine::Part {
            index,
            content_id: content_id.clone(),
        };
        self.parts.insert(index, content_id);
        self.append(&[line]).map_err(self.error())
    }

    /// Records that the store has put the parts together.
    ///
    /// # Errors
    /// [`OriginImportError::Journal`].
    pub(super) fn complete(&mut self) -> Result<(), OriginImportError> {
        self.is_complete = true;
        self.append(&[JournalLine::Complete]).map_err(self.error())
    }

    /// Removes the journal, after the media was added.
    ///
    /// # Errors
    /// [`OriginImportError::Journal`].
    pub(super) fn finish(self) -> Result<(), OriginImportError> {
        if self.file.is_none() {
            return Ok(());
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(self.error()),
        }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.set_len(0)?;
        }
        let Some(upload_id) = self.upload_id.clone() else {
            return Ok(());
        };
        let begin = JournalLine::Begin {
            url: self.url.clone(),
            id: self.id,
            length: self.length,
            part_bytes: self.part_bytes,
            upload_id,
        };
        let parts = self.parts.iter().map(|(index, content_id)| {
            let (index, content_id) = (*index, content_id.clone());
            JournalLine::Part { index, content_id }
        });
        let end = self.is_complete.then_some(JournalLine::Complete);
        let lines: Vec<JournalLine> = [begin].into_iter().chain(parts).chain(end).collect();
        self.append(&lines)
    }

    /// Appends lines by one call, so that an interruption tears the last at most.
    fn append(&mut self, lines: &[JournalLine]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        file.write_all(&text)
    }

    fn error(&self) -> impl Fn(io::Error) -> OriginImportError + use<> {
        let path = self.path.clone();
        move |source| OriginImportError::Journal {
            path: path.clone(),
            source,
        }
    }
}

/// Reads a line. `None` at the end, and for a line that was not written whole or is no line of a journal.
fn read_line(lines: &mut BufReader<&File>) -> io::Result<Option<JournalLine>> {
    let mut line = Vec::new();
    lines.take(LINE_BYTES).read_until(b'\n', &mut line)?;
    Ok(line
        .strip_suffix(b"\n")
        .and_then(|json| serde_json::from_slice(json).ok()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hashed(folder: &Path, length: usize) -> HashedFile {
        let path = folder.join("source");
        fs::write(&path, vec![b'a'; length]).unwrap();
        HashedFile::read(&path, folder).unwrap()
    }

    #[test]
    fn an_upload_is_known_to_the_next_run_but_not_to_one_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        let url = "s3://bucket/a".parse().unwrap();
        let journals = UploadJournals::new(folder.path(), &url);
        let hashed = hashed(folder.path(), 20_000_000);
        let mut journal = journals.journal(&hashed).unwrap();
        assert_eq!(journal.upload_id(), None);
        journal.begin("upload 1").unwrap();
        journal.add_part(2, "\"tag\"".into()).unwrap();
        // Another process sends all by itself, and leaves the journal alone.
        let mut other = journals.journal(&hashed).unwrap();
        assert_eq!(other.upload_id(), None);
        other.begin("upload 2").unwrap();
        other.finish().unwrap();
        drop(journal);

        let mut resumed = journals.journal(&hashed).unwrap();
        assert_eq!(resumed.upload_id(), Some("upload 1"));
        assert_eq!(resumed.parts(), &BTreeMap::from([(2, "\"tag\"".into())]));
        resumed.complete().unwrap();
        drop(resumed);
        let resumed = journals.journal(&hashed).unwrap();
        assert!(resumed.is_complete());
        resumed.finish().unwrap();
        assert_eq!(fs::read_dir(journals.folder()).unwrap().count(), 0);
    }

    #[test]
    fn torn_lines_and_other_uploads_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let url = "s3://bucket/a".parse().unwrap();
        let journals = UploadJournals::new(folder.path(), &url);
        let hashed = hashed(folder.path(), 20_000_000);
        let mut journal = journals.journal(&hashed).unwrap();
        journal.begin("upload").unwrap();
        journal.add_part(0, "a".into()).unwrap();
        let path = journal.path.clone();
        drop(journal);
        let whole = fs::read_to_string(&path).unwrap();
        for (text, upload_id, parts) in [
            (format!("{whole}{{\"part\":{{\"ind"), Some("upload"), 1),
            (
                format!("{whole}{{\"part\":{{\"index\":3,\"content_id\":\"x\"}}}}\n"),
                Some("upload"),
                1,
            ),
            (whole.replace("8388608", "5242880"), None, 0),
            (whole.replace("s3://bucket/a", "s3://bucket/b"), None, 0),
            ("x".repeat(100_000), None, 0),
            (String::new(), None, 0),
        ] {
            fs::write(&path, &text).unwrap();
            let mut journal = journals.journal(&hashed).unwrap();
            assert_eq!(journal.upload_id(), upload_id, "{text:.99}");
            assert_eq!(journal.parts().len(), parts, "{text:.99}");
            // Lines behind a torn one count again.
            if upload_id.is_some() {
                journal.add_part(1, "b".into()).unwrap();
                drop(journal);
                let journal = journals.journal(&hashed).unwrap();
                assert_eq!(journal.parts().len(), parts + 1, "{text:.99}");
            }
        }
    }
}
