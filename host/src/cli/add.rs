//! `millpond add`.

use super::progress_bar;
use anyhow::Result;
use clap::Args;
use millpond::store::{Added, Adder, ContentId};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Files to add; of a folder, every file in it that is not hidden.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The store's folder; it is made where there is none.
    #[arg(long, value_name = "DIR", env = "MILLPOND_DIR")]
    to: PathBuf,

    /// For those only who show a signature (millpond sign).
    #[arg(long)]
    private: bool,

    /// Makes the file a variant of media that is in the store: the same in another format, or compressed.
    #[arg(long, value_name = "ID")]
    variant_of: Option<ContentId>,

    /// The content coding of that variant, as in br, zstd, gzip.
    #[arg(long, value_name = "CODING", requires = "variant_of", value_parser = ["br", "zstd", "gzip"])]
    coding: Option<String>,

    /// Prints a JSON object a file.
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
        let files = self.walk(&mut fail);
        let mut adder = Adder::open(&self.to)?;
        if self.private {
            adder = adder.private();
        }
        let bar = progress_bar(files.iter().map(|(_, size)| size).sum());
        for (path, _) in &files {
            bar.set_message(path.file_name().unwrap_or_default().display().to_string());
            let added = adder.add(path, |bytes| bar.inc(bytes)).and_then(|added| {
                if let Some(original) = &self.variant_of {
                    adder.add_variant(original, &added, self.coding.clone())?;
                }
                Ok(added)
            });
            match added {
                Ok(added) => bar.suspend(|| self.print(path, &added))?,
                Err(error) => bar.suspend(|| fail(format!("{:#}", anyhow::Error::from(error)))),
            }
        }
        bar.finish_and_clear();
        Ok(ExitCode::from(u8::from(failed)))
    }

    /// Every file that was asked for, and its size.
    fn walk(&self, fail: &mut impl FnMut(String)) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        for asked in &self.files {
            // A hidden file is added when it is asked for by name.
            let entries = walkdir::WalkDir::new(asked)
                .sort_by_file_name()
                .into_iter()
                .filter_entry(|entry| entry.depth() == 0 || !self.is_passed_over(entry));
            for entry in entries {
                let found = entry.map(|entry| {
                    let metadata = entry.path().metadata();
                    (entry, metadata)
                });
                match found {
                    Ok((entry, Ok(metadata))) if metadata.is_file() => {
                        files.push((entry.into_path(), metadata.len()));
                    }
                    Ok((_, Ok(_))) => {}
                    Ok((entry, Err(error))) => {
                        fail(format!("cannot read {}: {error}", entry.path().display()));
                    }
                    Err(error) => fail(format!("cannot read {}: {error}", asked.display())),
                }
            }
        }
        files
    }

    /// Hidden files, and what is in the store already: it may lie in the folder that is walked.
    fn is_passed_over(&self, entry: &walkdir::DirEntry) -> bool {
        let name = entry.file_name().to_string_lossy();
        let in_store = entry.path().parent().is_some_and(|parent| {
            name.len() == 2
                && u8::from_str_radix(&name, 16).is_ok()
                && is_same_folder(parent, &self.to)
        });
        name.starts_with('.') || in_store
    }

    fn print(&self, path: &Path, added: &Added) -> io::Result<()> {
        let Added {
            id,
            record,
            was_there,
            ..
        } = added;
        if self.json {
            let line = serde_json::json!({
                "id": id.to_string(),
                "path": format!("/api/media/{id}"),
                "type": record.media_type,
                "size": record.size,
                "access": record.access,
                "file": path.display().to_string(),
                "added": !was_there,
            });
            writeln!(io::stdout(), "{line}")
        } else {
            let note = if *was_there { "  (was there)" } else { "" };
            let name = path.display();
            let media_type = &record.media_type;
            writeln!(
                io::stdout(),
                "{id}  /api/media/{id}  {media_type}  {name}{note}"
            )
        }
    }
}

fn is_same_folder(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
