//! `millpond new`: creates a folder with a component to start from.

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct New {
    /// Folder to create. An existing folder has to be empty.
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// Language of the component.
    #[arg(long, value_name = "LANGUAGE")]
    lang: Language,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    Rust,
    #[value(name = "javascript")]
    JavaScript,
    Python,
}

impl New {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let at = || format!("cannot create {}", self.folder.display());
        write_whole(&self.folder, self.lang.files().chain(WIT)).with_context(at)?;
        let readme = self.folder.join("README.md");
        let readme = readme.display();
        writeln!(
            io::stdout(),
            "Created. How to build and serve the component: {readme}"
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Path of a file in the new folder, and its content.
type StarterFile = (&'static str, &'static str);

/// Writes the files to a temporary folder, and renames that. So the folder is complete or absent.
fn write_whole<'a>(folder: &Path, files: impl Iterator<Item = &'a StarterFile>) -> Result<()> {
    let Some(name) = folder.file_name() else {
        bail!("a new folder needs a name, as in `my-guest`");
    };
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if fs::symlink_metadata(folder).is_ok() {
        let mut entries = fs::read_dir(folder).context("it exists and is not a folder")?;
        if entries.next().is_some() {
            bail!("it exists and is not empty");
        }
    }
    let temporary = tempfile::Builder::new()
        .prefix(".millpond-new-")
        .tempdir_in(parent)
        .with_context(|| format!("cannot create a folder in {}", parent.display()))?;
    // A folder within the temporary one, because that is readable by its owner only.
    let whole = temporary.path().join(name);
    for (path, content) in files {
        let path = whole.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&whole))?;
        fs::write(&path, content)?;
    }
    // Removing succeeds only for an empty folder, so no file of the user is replaced.
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error)?,
        _ => Ok(fs::rename(&whole, folder)?),
    }
}

/// Files of a folder, with their content.
macro_rules! files {
    ($folder:literal: $($path:literal)+) => {
        [$(($path, include_str!(concat!($folder, "/", $path)))),+]
    };
}

impl Language {
    fn files(self) -> std::slice::Iter<'static, StarterFile> {
        match self {
            Language::Rust => RUST.iter(),
            Language::JavaScript => JAVASCRIPT.iter(),
            Language::Python => PYTHON.iter(),
        }
    }
}

static RUST: [StarterFile; 5] = files!("../starters/rust":
    ".cargo/config.toml" ".gitignore" "Cargo.toml" "README.md" "src/lib.rs");

static JAVASCRIPT: [StarterFile; 5] = files!("../starters/javascript":
    ".gitignore" "README.md" "build.js" "guest.js" "package.json");

static PYTHON: [StarterFile; 3] = files!("../starters/python":
    ".gitignore" "README.md" "guest.py");

/// The interface, which is the same for all languages.
static WIT: &[StarterFile] = &files!("../../..":
    "wit/deps/wasi-io.wit" "wit/media-serve.wit" "wit/media-store.wit" "wit/settings.wit" "wit/world.wit");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeMap;

    /// Returns the files of a folder, except those that its tools make.
    fn read(folder: &Path) -> BTreeMap<String, String> {
        let made = ["node_modules", "target", "guest.wasm"];
        let made = ["package-lock.json", "Cargo.lock", "__pycache__"]
            .iter()
            .chain(&made);
        let made: Vec<_> = made.collect();
        let entries = walkdir::WalkDir::new(folder).into_iter();
        let kept =
            entries.filter_entry(|entry| !made.iter().any(|name| **name == entry.file_name()));
        let files = kept
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().is_file());
        files
            .map(|file| {
                let path = file.path().strip_prefix(folder).unwrap();
                (
                    path.to_str().unwrap().to_owned(),
                    fs::read_to_string(file.path()).unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn a_starter_is_all_that_lies_in_its_folder_and_the_interface() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let temporary = tempfile::tempdir().unwrap();
        for (lang, name) in [
            (Language::Rust, "rust"),
            (Language::JavaScript, "javascript"),
            (Language::Python, "python"),
        ] {
            let folder = temporary.path().join(name);
            New {
                folder: folder.clone(),
                lang,
            }
            .run()
            .unwrap();
            let mut expected = read(&here.join("starters").join(name));
            let wit = read(&here.join("../../wit")).into_iter();
            expected.extend(wit.map(|(path, content)| (format!("wit/{path}"), content)));
            assert_eq!(read(&folder), expected, "{name}");
        }
        // No temporary files are left.
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 3);
    }

    #[test]
    fn what_is_there_stays_as_it_is() {
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str| temporary.path().join(name);
        fs::create_dir(at("full")).unwrap();
        fs::write(at("full/mine"), "mine").unwrap();
        fs::write(at("file"), "mine").unwrap();
        for (folder, reason) in [
            (at("full"), "not empty"),
            (at("file"), "not a folder"),
            (at("none/new"), "cannot create a folder in"),
            (at("full/.."), "needs a name"),
        ] {
            let error = New {
                folder,
                lang: Language::Python,
            }
            .run()
            .unwrap_err();
            assert!(format!("{error:#}").contains(reason), "{error:#}");
        }
        assert_eq!(read(temporary.path()).len(), 2);
        fs::create_dir(at("empty")).unwrap();
        New {
            folder: at("empty"),
            lang: Language::Python,
        }
        .run()
        .unwrap();
        assert!(at("empty/guest.py").is_file());
    }
}
