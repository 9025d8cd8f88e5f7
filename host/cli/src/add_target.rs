//! Target of `millpond add`: a folder, or object storage.

use crate::interrupt::on_interrupt;
use crate::media_location::MediaLocation;
#[cfg(feature = "origin")]
use crate::origin_session::{OriginSession, upload_journals};
use crate::sources::{InputFile, STANDARD_INPUT};
use anyhow::{Result, ensure};
use millpond::store::{Access, ContentId, ImportError, ImportJournal, ImportedMedia, Importer};
#[cfg(feature = "origin")]
use millpond_origin::{HashedFile, UploadJournals};
use std::fs::File;
use std::io;
use std::path::Path;
use std::process;
use std::sync::Arc;

/// Target of `millpond add`.
pub(crate) enum AddTarget {
    Folder {
        importer: Arc<Importer>,
        journal: ImportJournal,
    },
    #[cfg(feature = "origin")]
    Origin {
        session: OriginSession,
        journals: UploadJournals,
    },
}

/// Options of a target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddTargetOptions<'a> {
    pub(crate) is_private: bool,
    /// Media that the files are variants of. A variant of private media is private from the start.
    pub(crate) original: Option<&'a ContentId>,
    /// Whether content is read back from object storage.
    pub(crate) reads_back: bool,
}

/// A file that was added.
pub(crate) struct AddedFile {
    pub(crate) imported: ImportedMedia,
    /// Whether an interrupted `add` had stored the file, so that it was not read.
    pub(crate) is_known: bool,
    /// Bytes that an interrupted `add` had sent, and that were not sent again.
    pub(crate) resumed_bytes: u64,
}

/// Variant that a file is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VariantOf<'a> {
    pub(crate) original: &'a ContentId,
    pub(crate) coding: Option<&'a str>,
}

impl AddTarget {
    /// Opens a target. From then on a signal ends the program without leaving temporary files.
    pub(crate) fn open(location: &MediaLocation, options: AddTargetOptions<'_>) -> Result<Self> {
        match location {
            MediaLocation::Folder(folder) => AddTarget::open_folder(folder, options),
            #[cfg(feature = "origin")]
            MediaLocation::Origin(url) => {
                let journals = upload_journals(url)?;
                let mut session = OriginSession::open(url)?;
                let mut is_private = options.is_private;
                if let Some(original) = options.original {
                    let access = session.importer().access_of_original(original);
                    is_private |= session.wait(access)? == Access::Private;
                }
                let of_uploads = journals.clone();
                session = session.with(|importer| importer.with_journals(of_uploads));
                if is_private {
                    session = session.with(millpond_origin::OriginImporter::private);
                }
                if options.reads_back {
                    session = session.with(millpond_origin::OriginImporter::reading_back);
                }
                // The content of pipes is in unnamed files, so nothing is left.
                on_interrupt(|code| process::exit(code))?;
                Ok(AddTarget::Origin { session, journals })
            }
        }
    }

    fn open_folder(folder: &Path, options: AddTargetOptions<'_>) -> Result<Self> {
        ensure!(
            !options.reads_back,
            "--read-back is for object storage: `millpond check` reads the files of a folder"
        );
        let mut importer = Importer::open(folder)?;
        let mut is_private = options.is_private;
        if let Some(original) = options.original {
            is_private |= importer.access_of_original(original)? == Access::Private;
        }
        if is_private {
            importer = importer.private();
        }
        let importer = Arc::new(importer);
        let abandoned = Arc::clone(&importer);
        on_interrupt(move |code| {
            let _abandoned = abandoned.abandon();
            process::exit(code)
        })?;
        let journal = ImportJournal::open(&importer)?;
        tell_of_journal(&journal);
        Ok(AddTarget::Folder { importer, journal })
    }

    /// Adds a file. `progress` receives the number of bytes of each step.
    pub(crate) fn add(
        &self,
        file: &InputFile,
        variant_of: Option<VariantOf<'_>>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<AddedFile> {
        let mut added = match self {
            AddTarget::Folder { importer, journal } => {
                let (imported, is_known) = add_to_folder(importer, journal, file, progress)?;
                AddedFile {
                    imported,
                    is_known,
                    resumed_bytes: 0,
                }
            }
            #[cfg(feature = "origin")]
            AddTarget::Origin { session, journals } => {
                let path = &file.path;
                let hashed = match path.as_os_str() == STANDARD_INPUT {
                    true => HashedFile::read_open_file(input(path)?, path, journals.folder())?,
                    false => HashedFile::read(path, journals.folder())?,
                };
                let uploaded = session.wait(session.importer().add(&hashed, progress))?;
                AddedFile {
                    imported: uploaded.media,
                    is_known: false,
                    resumed_bytes: uploaded.resumed_bytes,
                }
            }
        };
        if let Some(variant_of) = variant_of {
            self.add_variant(variant_of, &mut added.imported)?;
        }
        Ok(added)
    }

    fn add_variant(&self, of: VariantOf<'_>, imported: &mut ImportedMedia) -> Result<()> {
        let narrowed = match self {
            AddTarget::Folder { importer, .. } => {
                let coding = of.coding.map(str::to_owned);
                importer.add_variant(of.original, imported, coding)?
            }
            #[cfg(feature = "origin")]
            AddTarget::Origin { session, .. } => {
                let added = session
                    .importer()
                    .add_variant(of.original, imported, of.coding);
                session.wait(added)?
            }
        };
        // The original may have become private meanwhile.
        for id in narrowed {
            if id == imported.id {
                imported.record.access = Access::Private;
            } else {
                imported.narrowed_variants.push(id);
            }
        }
        Ok(())
    }

    /// Removes the journal of the whole, after every file was added.
    pub(crate) fn finish(self) -> Result<()> {
        match self {
            AddTarget::Folder { journal, .. } => Ok(journal.finish()?),
            // Each upload has a journal of its own.
            #[cfg(feature = "origin")]
            AddTarget::Origin { .. } => Ok(()),
        }
    }
}

/// Adds a file to a folder. Returns whether an interrupted `add` had stored it.
fn add_to_folder(
    importer: &Importer,
    journal: &ImportJournal,
    file: &InputFile,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(ImportedMedia, bool), ImportError> {
    let InputFile { path, bytes } = file;
    if path.as_os_str() == STANDARD_INPUT {
        let imported = importer.add_open_file(input(path)?, path, progress)?;
        return Ok((imported, false));
    }
    // A pipe has no version, and opening it would wait for a writer.
    let Some(bytes) = *bytes else {
        return Ok((importer.add(path, progress)?, false));
    };
    let (unread, known) = journal.look_up(path);
    let stored = known.map(|id| importer.add_known(&id)).transpose()?;
    if let Some(imported) = stored.flatten() {
        progress(bytes);
        return Ok((imported, true));
    }
    let imported = importer.add(path, progress)?;
    journal.record(&unread, &imported.id)?;
    Ok((imported, false))
}

/// Tells what an interrupted `add` has left to resume.
fn tell_of_journal(journal: &ImportJournal) {
    let (known, unsure) = (journal.known_files(), journal.unsure_files());
    if known > 0 {
        eprintln!(
            "millpond: resuming an interrupted add: {known} stored files are not read again if they are unchanged"
        );
    }
    if unsure > 0 {
        eprintln!(
            "millpond: {unsure} files of an interrupted add are read again, since nothing proves that they are unchanged"
        );
    }
}

fn input(path: &Path) -> Result<File, ImportError> {
    standard_input().map_err(|source| ImportError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Returns standard input as a file, without the buffer of [`io::Stdin`].
fn standard_input() -> io::Result<File> {
    #[cfg(unix)]
    let owned = std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned()?;
    #[cfg(windows)]
    let owned = std::os::windows::io::AsHandle::as_handle(&io::stdin()).try_clone_to_owned()?;
    Ok(File::from(owned))
}
