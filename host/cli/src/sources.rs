//! Files that `millpond add` is to add: operands, and the files of folders.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use walkdir::DirEntry;

/// A file or pipe to add.
#[derive(Debug, Clone)]
pub(crate) struct InputFile {
    pub(crate) path: PathBuf,
    /// Length, if it is known before the file is read.
    pub(crate) bytes: Option<u64>,
}

/// An entry that is not added, with the message about it.
#[derive(Debug, Clone)]
pub(crate) enum NotAdded {
    /// Not a file, so it is passed over.
    Skipped(String),
    /// It cannot be read.
    Unreadable(String),
}

/// Operand for standard input. A file of that name is `./-`.
pub(crate) const STANDARD_INPUT: &str = "-";

/// Passes each file to `found`, in the order of the operands and then of the names, until that breaks. Folders are not
/// held in memory, apart from the names of one folder at a time.
pub(crate) fn walk(
    operands: &[PathBuf],
    store: Option<&Path>,
    mut found: impl FnMut(Result<InputFile, NotAdded>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    for operand in operands {
        if operand.as_os_str() == STANDARD_INPUT {
            let (path, bytes) = (operand.clone(), None);
            found(Ok(InputFile { path, bytes }))?;
            continue;
        }
        // A hidden file is added if it is an operand.
        let entries = walkdir::WalkDir::new(operand)
            .sort_by_file_name()
            .into_iter()
            .filter_entry(|entry| entry.depth() == 0 || !is_skipped(entry, store));
        for entry in entries {
            let source = match entry {
                Ok(entry) => source(entry),
                Err(error) => {
                    let operand = operand.display();
                    Some(Err(NotAdded::Unreadable(format!(
                        "cannot read {operand}: {error}"
                    ))))
                }
            };
            if let Some(source) = source {
                found(source)?;
            }
        }
    }
    ControlFlow::Continue(())
}

/// Returns the file of an entry. `None` for a folder, whose entries follow.
fn source(entry: DirEntry) -> Option<Result<InputFile, NotAdded>> {
    let path = entry.path().display();
    let metadata = match entry.path().metadata() {
        Ok(metadata) => metadata,
        Err(error) => {
            let message = format!("cannot read {path}: {error}");
            return Some(Err(NotAdded::Unreadable(message)));
        }
    };
    let is_operand = entry.depth() == 0 && !metadata.is_dir();
    let is_walked = entry.file_type().is_dir() || entry.depth() == 0;
    if metadata.is_file() || is_operand {
        let bytes = metadata.is_file().then_some(metadata.len());
        let path = entry.into_path();
        return Some(Ok(InputFile { path, bytes }));
    }
    let message = || NotAdded::Skipped(format!("skipped {path}: not a file"));
    (!is_walked).then(|| Err(message()))
}

/// Skips hidden files, and content folders of the store if it is in the folder.
fn is_skipped(entry: &DirEntry, store: Option<&Path>) -> bool {
    let is_content_folder = |name: &OsStr| {
        let name = name.to_string_lossy();
        name.len() == 2 && u8::from_str_radix(&name, 16).is_ok()
    };
    let in_store = || {
        let parent = entry.path().parent();
        let both = parent.zip(store);
        both.is_some_and(|(parent, store)| is_same_folder(parent, store))
    };
    let name = entry.file_name();
    name.to_string_lossy().starts_with('.') || (is_content_folder(name) && in_store())
}

fn is_same_folder(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
