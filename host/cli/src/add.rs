//! `millpond add`.

use crate::common::{described, progress_bar};
use crate::interrupt::on_interrupt;
use anyhow::Result;
use clap::Args;
use millpond::store::{Access, ContentId, ImportError, ImportedMedia, Importer};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Files, pipes or folders to add. Of a folder, every file that is not hidden is added. `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Folder of the store. It is created if it does not exist.
    #[arg(long, value_name = "DIR", env = "MILLPOND_DIR")]
    store: PathBuf,

    /// Make the media private: it is served to signed URLs only (`millpond sign`). Media that is in the store already
    /// becomes private with its variants. Without this option private media stays private.
    #[arg(long)]
    private: bool,

    /// Media in the store that the file is a variant of: the same media in another format, or compressed. A variant of
    /// private media is private.
    #[arg(long, value_name = "ID")]
    variant_of: Option<ContentId>,

    /// Content coding of the variant.
    #[arg(long, value_name = "CODING", requires = "variant_of", value_parser = ["br", "zstd", "gzip"])]
    content_encoding: Option<String>,

    /// Print one JSON object per file.
    #[arg(long)]
    json: bool,
}

impl Add {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let mut failed = false;
        let mut fail = |message: String| {
            eprintln!("millpond: {message}");
            failed = true;
        };
        let sources = self.walk(&mut fail);
        let mut importer = Importer::open(&self.store)?;
        let mut is_private = self.private;
        if let Some(original) = &self.variant_of {
            // A variant of private media is private from the start.
            is_private |= importer.access_of_original(original)? == Access::Private;
        }
        if is_private {
            importer = importer.private();
        }
        let importer = Arc::new(importer);
        on_interrupt(Arc::clone(&importer))?;
        let bar = progress_bar(sources.iter().filter_map(|source| source.bytes).sum());
        for InputFile { path, bytes } in &sources {
            bar.set_message(path.file_name().unwrap_or_default().display().to_string());
            let progress = |count| {
                if bytes.is_none() {
                    bar.inc_length(count);
                }
                bar.inc(count);
            };
            match self.add(&importer, path, progress) {
                Ok(imported) => bar.suspend(|| self.print(path, &imported))?,
                Err(error) => bar.suspend(|| fail(format!("{:#}", anyhow::Error::from(error)))),
            }
        }
        bar.finish_and_clear();
        Ok(ExitCode::from(u8::from(failed)))
    }

    fn add(
        &self,
        importer: &Importer,
        path: &Path,
        progress: impl FnMut(u64),
    ) -> Result<ImportedMedia, ImportError> {
        let mut imported = if path.as_os_str() == STANDARD_INPUT {
            let read_error = |source| ImportError::Read {
                path: path.to_owned(),
                source,
            };
            let source = standard_input().map_err(read_error)?;
            importer.add_open_file(source, path, progress)?
        } else {
            importer.add(path, progress)?
        };
        if let Some(original) = &self.variant_of {
            let narrowed =
                importer.add_variant(original, &imported, self.content_encoding.clone())?;
            // The original may have become private meanwhile.
            for id in narrowed {
                if id == imported.id {
                    imported.record.access = Access::Private;
                } else {
                    imported.narrowed_variants.push(id);
                }
            }
        }
        Ok(imported)
    }

    /// Returns the files to add. Reports entries of folders that are not files.
    fn walk(&self, fail: &mut impl FnMut(String)) -> Vec<InputFile> {
        let mut sources = Vec::new();
        for operand in &self.files {
            if operand.as_os_str() == STANDARD_INPUT {
                let (path, bytes) = (operand.clone(), None);
                sources.push(InputFile { path, bytes });
                continue;
            }
            // A hidden file is added if it is an operand.
            let entries = walkdir::WalkDir::new(operand)
                .sort_by_file_name()
                .into_iter()
                .filter_entry(|entry| entry.depth() == 0 || !self.is_skipped(entry));
            for entry in entries {
                let found = entry.map(|entry| {
                    let metadata = entry.path().metadata();
                    (entry, metadata)
                });
                match found {
                    Ok((entry, Ok(metadata))) => {
                        let is_operand = entry.depth() == 0 && !metadata.is_dir();
                        let is_walked = entry.file_type().is_dir() || entry.depth() == 0;
                        if metadata.is_file() || is_operand {
                            let bytes = metadata.is_file().then_some(metadata.len());
                            let path = entry.into_path();
                            sources.push(InputFile { path, bytes });
                        } else if !is_walked {
                            let path = entry.path().display();
                            eprintln!("millpond: skipped {path}: not a file");
                        }
                    }
                    Ok((entry, Err(error))) => {
                        fail(format!("cannot read {}: {error}", entry.path().display()));
                    }
                    Err(error) => fail(format!("cannot read {}: {error}", operand.display())),
                }
            }
        }
        sources
    }

    /// Skips hidden files, and content folders of the store if it is in the folder.
    fn is_skipped(&self, entry: &walkdir::DirEntry) -> bool {
        let name = entry.file_name().to_string_lossy();
        let in_store = entry.path().parent().is_some_and(|parent| {
            name.len() == 2
                && u8::from_str_radix(&name, 16).is_ok()
                && is_same_folder(parent, &self.store)
        });
        name.starts_with('.') || in_store
    }

    fn print(&self, path: &Path, imported: &ImportedMedia) -> io::Result<()> {
        let ImportedMedia { id, record, .. } = imported;
        if self.json {
            let mut line = described(id, record);
            line["access_before"] = serde_json::json!(imported.access_before);
            line["narrowed_variants"] = serde_json::json!(imported.narrowed_variants);
            line["file"] = path.display().to_string().into();
            line["added"] = (!imported.already_present).into();
            return writeln!(io::stdout(), "{line}");
        }
        let access = match record.access {
            Access::Public => "public",
            Access::Private => "private",
        };
        let already_present = imported.already_present.then_some("already in the store");
        let of_access = match (imported.access_before, record.access) {
            (Some(Access::Public), Access::Private) => Some("was public, now private"),
            (Some(Access::Private), _) if !self.private => {
                Some("stays private; `millpond publish` makes it public")
            }
            _ => None,
        };
        let notes: Vec<&str> = already_present.into_iter().chain(of_access).collect();
        let note = match notes.as_slice() {
            [] => String::new(),
            notes => format!("  ({})", notes.join("; ")),
        };
        let media_type = &record.media_type;
        let name = path.display();
        writeln!(
            io::stdout(),
            "{id}  /api/media/{id}  {media_type}  {access}  {name}{note}"
        )?;
        for variant in &imported.narrowed_variants {
            eprintln!("millpond: variant {variant} was public and is now private");
        }
        Ok(())
    }
}

/// A file or pipe to add.
struct InputFile {
    path: PathBuf,
    /// Length, if it is known before the file is read.
    bytes: Option<u64>,
}

/// Operand for standard input. A file of that name is `./-`.
const STANDARD_INPUT: &str = "-";

/// Returns standard input as a file, without the buffer of [`io::Stdin`].
fn standard_input() -> io::Result<File> {
    #[cfg(unix)]
    let owned = std::os::fd::AsFd::as_fd(&io::stdin()).try_clone_to_owned()?;
    #[cfg(windows)]
    let owned = std::os::windows::io::AsHandle::as_handle(&io::stdin()).try_clone_to_owned()?;
    Ok(File::from(owned))
}

fn is_same_folder(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
