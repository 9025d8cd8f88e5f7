//! Cache of compiled code, in the user's cache folder.
//!
//! Compiling the embedded component takes about 300 ms, and loading its code 5 ms. Code is loaded without a check, so
//! the folder and the file must not be writable by other users. A digest detects files that the disk has damaged.

use sha2::{Digest, Sha256};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{env, fs};
use wasmtime::Engine;
use wasmtime::component::Component;

/// Maximum size of the cache, in bytes. The code of the embedded component has 1 MiB, and that of a component with a
/// language runtime 50 MiB, so several fit.
const CACHE_BYTES: u64 = 256 << 20;

/// Size of the digest at the start of a file, in bytes.
const DIGEST_BYTES: usize = 32;

/// Returns the folder in which compiled code is stored: `$XDG_CACHE_HOME/millpond` or `~/.cache/millpond`. Creates it if
/// it does not exist. A program that confines itself lets the library read and write this folder.
///
/// # Errors
/// The user has no such folder, it cannot be created, or other users can write to it. Nothing is stored then.
pub fn code_cache_folder() -> io::Result<PathBuf> {
    Ok(CodeCache::of_user()?.folder)
}

/// A folder of compiled code.
pub(crate) struct CodeCache {
    folder: PathBuf,
}

impl CodeCache {
    /// Opens `$XDG_CACHE_HOME/millpond` or `~/.cache/millpond`. Creates the folder if it does not exist.
    ///
    /// # Errors
    /// The user has no such folder, it cannot be created, or other users can write to it.
    pub(crate) fn of_user() -> io::Result<Self> {
        let folder = |variable, below: &str| {
            let folder = PathBuf::from(env::var_os(variable)?);
            // The XDG Base Directory Specification ignores relative paths.
            folder.is_absolute().then(|| folder.join(below))
        };
        let folder = folder("XDG_CACHE_HOME", "millpond")
            .or_else(|| folder("HOME", ".cache/millpond"))
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, "the user has no home directory")
            })?;
        CodeCache::open(folder)
    }

    fn open(folder: PathBuf) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&folder)?;
        check_owner(&fs::symlink_metadata(&folder)?)?;
        Ok(CodeCache { folder })
    }

    /// Returns the compiled code of a component, for this engine.
    ///
    /// # Errors
    /// The file does not exist, cannot be read, is damaged, is writable by other users, or is for another engine.
    pub(crate) fn load(&self, engine: &Engine, component: &[u8]) -> io::Result<Component> {
        let mut file = fs::File::open(self.path(engine, component))?;
        check_owner(&file.metadata()?)?;
        let mut digest = [0; DIGEST_BYTES];
        file.read_exact(&mut digest)?;
        let mut code = Vec::new();
        file.read_to_end(&mut code)?;
        if digest[..] != Sha256::digest(&code)[..] {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the file is damaged",
            ));
        }
        let component = crate::sys::component_of_code(engine, &code).map_err(io::Error::other)?;
        // The least recently used files are removed first. In a read-only folder their times stay as they are.
        let _ = file.set_modified(SystemTime::now());
        Ok(component)
    }

    /// Stores the compiled code of a component. Removes the least recently used files if the cache is too large.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn store(
        &self,
        engine: &Engine,
        component: &[u8],
        compiled: &Component,
    ) -> io::Result<()> {
        let code = compiled.serialize().map_err(io::Error::other)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(&Sha256::digest(&code))?;
        file.write_all(&code)?;
        file.persist(self.path(engine, component))?;
        self.shrink_to(CACHE_BYTES)
    }

    /// Returns the path for a component's code. The name depends on the component and the engine. wasmtime checks the
    /// engine again when it loads the code.
    fn path(&self, engine: &Engine, component: &[u8]) -> PathBuf {
        let mut engine_hash = DefaultHasher::new();
        engine
            .precompile_compatibility_hash()
            .hash(&mut engine_hash);
        let component = hex::encode(Sha256::digest(component));
        self.folder
            .join(format!("{component}-{:016x}.cwasm", engine_hash.finish()))
    }

    fn shrink_to(&self, most_bytes: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Another process may have removed it.
            if let Ok(metadata) = entry.metadata() {
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        files.sort_unstable();
        let mut total_bytes = 0;
        for (_, bytes, path) in files.into_iter().rev() {
            total_bytes += bytes;
            if total_bytes > most_bytes {
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Checks that no other user can write to the file.
#[cfg(unix)]
fn check_owner(metadata: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if is_ours && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    let message = "others than this user can write it";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

#[cfg(not(unix))]
fn check_owner(_: &fs::Metadata) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    const COMPONENT: &[u8] = b"(component)";

    fn cache() -> (tempfile::TempDir, CodeCache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = CodeCache::open(folder.path().join("millpond")).unwrap();
        (folder, cache)
    }

    fn store(cache: &CodeCache) -> (Engine, PathBuf) {
        let engine = Engine::default();
        let wasm = wat::parse_bytes(COMPONENT).unwrap();
        let compiled = Component::from_binary(&engine, &wasm).unwrap();
        cache.store(&engine, COMPONENT, &compiled).unwrap();
        let path = cache.path(&engine, COMPONENT);
        (engine, path)
    }

    #[test]
    fn code_that_was_stored_is_loaded() {
        let (_folder, cache) = cache();
        assert!(cache.load(&Engine::default(), COMPONENT).is_err());
        let (engine, _) = store(&cache);
        assert!(cache.load(&engine, COMPONENT).is_ok());
    }

    #[test]
    fn damaged_code_is_not_run() {
        let (_folder, cache) = cache();
        let (engine, path) = store(&cache);
        let whole = fs::read(&path).unwrap();
        let mut changed = whole.clone();
        *changed.last_mut().unwrap() ^= 1;
        for damaged in [&changed[..], &whole[..whole.len() / 2], &whole[..7], &[]] {
            fs::write(&path, damaged).unwrap();
            assert!(cache.load(&engine, COMPONENT).is_err());
        }
    }

    #[cfg(unix)]
    #[test]
    fn code_that_others_can_write_is_not_run() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_folder, cache) = cache();
        let (engine, path) = store(&cache);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(cache.load(&engine, COMPONENT).is_err());
        fs::set_permissions(&cache.folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(CodeCache::open(cache.folder).is_err());
    }

    #[test]
    fn the_code_that_was_not_used_for_the_longest_goes_first() {
        let (_folder, cache) = cache();
        for (age, name) in [(3, "oldest"), (1, "newest"), (2, "older")] {
            let path = cache.folder.join(name);
            fs::write(&path, [0; 10]).unwrap();
            let modified = SystemTime::now() - Duration::from_secs(age * 60);
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(modified).unwrap();
        }
        cache.shrink_to(20).unwrap();
        let left = |name: &str| cache.folder.join(name).exists();
        assert!(left("newest") && left("older") && !left("oldest"));
    }
}
