//! Components: reading, compiling and checking them before the first request.

use crate::engine::code_cache::CodeCache;
use crate::engine::instance_cost::InstanceCost;
use crate::error::one_line;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use wasmtime::component::Component;

/// Maximum size of a component, in bytes. A component with a language runtime has about 20 MB.
pub(crate) const COMPONENT_BYTES: u64 = 64 * 1024 * 1024;

/// Version of `wasi:http` that a component exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    /// `wasi:http/incoming-handler@0.2`.
    P2,
    /// `wasi:http/handler@0.3`.
    P3,
}

/// The component that is embedded in this program, as binary WebAssembly.
const EMBEDDED: &[u8] = include_bytes!("../../component/media-serve.wasm");

/// A component as bytes, with its name.
#[derive(Debug, Clone)]
pub struct Source {
    /// Name in messages: `embedded`, or the path of the file.
    pub name: String,
    bytes: std::borrow::Cow<'static, [u8]>,
}

/// The error of a component that cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComponentError {
    /// The file cannot be read.
    #[error("cannot read the component {}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is larger than 64 MiB.
    #[error("{name} is larger than the maximum size of a component, {} MiB", COMPONENT_BYTES >> 20)]
    TooLarge {
        /// Name of the component.
        name: String,
    },
    /// The file is a core module.
    #[error(
        "{name} is a core WebAssembly module, not a component; make one of it with `wasm-tools component new`"
    )]
    Module {
        /// Name of the component.
        name: String,
    },
    /// The file is not WebAssembly, or invalid.
    #[error("{name} is not a WebAssembly component: {reason}")]
    Invalid {
        /// Name of the component.
        name: String,
        /// Message of the compiler.
        reason: String,
    },
    /// The component imports something that the host does not provide, or lacks an export.
    #[error(
        "{name} fits neither the world millpond:media/media-guest nor wasi:http/proxy or service: {reason}"
    )]
    Unsupported {
        /// Name of the component.
        name: String,
        /// Message of the linker.
        reason: String,
    },
    /// An instance of the component exceeds the memory limit of a request.
    #[error(
        "{name} exceeds the memory limit of a request: an instance starts with {} KiB, and \
         request_memory_bytes is {} KiB",
        needs_bytes.div_ceil(1024),
        limit_bytes >> 10
    )]
    ExceedsLimits {
        /// Name of the component.
        name: String,
        /// Memory of an instance at its start, in bytes.
        needs_bytes: usize,
        /// [`Limits::request_memory_bytes`](crate::Limits::request_memory_bytes).
        limit_bytes: usize,
    },
    /// The system denies this process executable memory.
    #[error(
        "the system denies this process executable memory ({reason}): remove \
         MemoryDenyWriteExecute= of systemd, or the security policy that denies it"
    )]
    NoExecutableMemory {
        /// Message of the system.
        reason: String,
    },
    /// The memory limit of the process is too low.
    #[error(transparent)]
    InsufficientMemory(#[from] crate::memory_plan::InsufficientMemory),
    /// The memory plan leaves no room for another component beside the one in use.
    #[error(
        "another component needs {} MiB beside the one in use, and responses leave less now",
        needs_bytes.div_ceil(1 << 20)
    )]
    NoRoom {
        /// Memory to reserve, in bytes.
        needs_bytes: usize,
    },
    /// wasmtime's engine cannot be set up.
    #[error("cannot set up the WebAssembly engine: {0}")]
    Engine(String),
}

/// Description of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// Name of the component.
    pub name: String,
    /// Size, in bytes.
    pub size_bytes: usize,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Interfaces that it imports.
    pub imports: Vec<String>,
    /// Interfaces that it exports.
    pub exports: Vec<String>,
    /// Number of linear memories of an instance at its start.
    pub memories: u32,
    /// Size of the largest of them at the start, in bytes.
    pub initial_memory_bytes: u64,
    /// Host memory of an instance, in bytes. Each request is charged for it.
    pub instance_bytes: usize,
}

impl Source {
    /// Returns the embedded component.
    #[must_use]
    pub fn embedded() -> Self {
        Source {
            name: "embedded".into(),
            bytes: EMBEDDED.into(),
        }
    }

    /// Returns a component from binary WebAssembly. `name` appears in messages.
    #[must_use]
    pub fn from_bytes(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Source {
            name: name.into(),
            bytes: bytes.into(),
        }
    }

    /// Reads a component from a file.
    ///
    /// # Errors
    /// [`ComponentError::Read`], [`ComponentError::TooLarge`].
    pub fn from_file(path: &Path) -> Result<Self, ComponentError> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(COMPONENT_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|source| ComponentError::Read {
                path: path.to_owned(),
                source,
            })?;
        let name = path.display().to_string();
        if bytes.len() as u64 > COMPONENT_BYTES {
            return Err(ComponentError::TooLarge { name });
        }
        Ok(Source::from_bytes(name, bytes))
    }

    /// SHA-256 of the bytes, in hexadecimal, as in [`Inspection::sha256`].
    #[must_use]
    pub fn sha256(&self) -> String {
        hex::encode(Sha256::digest(self.bytes()))
    }

    /// Bytes of the component.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Returns the host memory of an instance. Detects core modules, for which the compiler's own message is hard to
/// understand.
pub(crate) fn instance_cost(source: &Source) -> Result<InstanceCost, ComponentError> {
    const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
    let name = source.name.clone();
    if source.bytes().starts_with(CORE_MODULE) {
        return Err(ComponentError::Module { name });
    }
    InstanceCost::of(source.bytes()).map_err(|error| ComponentError::Invalid {
        name,
        reason: error
            .to_string()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
    })
}

/// Compiles a component, or loads its code from the cache. A cache that does not work costs time only.
pub(crate) fn compile(
    engine: &wasmtime::Engine,
    source: &Source,
) -> Result<Component, ComponentError> {
    let cache = CodeCache::of_user()
        .inspect_err(|error| tracing::debug!(%error, "cannot cache compiled code"))
        .ok();
    if let Some(cache) = &cache {
        match cache.load(engine, source.bytes()) {
            Ok(component) => return Ok(component),
            Err(error) => tracing::debug!(%error, "compiled code is not in the cache"),
        }
    }
    let component = Component::from_binary(engine, source.bytes()).map_err(|error| {
        let is_denied = error.chain().any(is_denied);
        let reason = one_line(&error);
        match is_denied {
            true => ComponentError::NoExecutableMemory { reason },
            false => ComponentError::Invalid {
                name: source.name.clone(),
                reason,
            },
        }
    })?;
    if let Some(cache) = &cache
        && let Err(error) = cache.store(engine, source.bytes(), &component)
    {
        tracing::debug!(%error, "cannot cache compiled code");
    }
    Ok(component)
}

/// Returns whether the system denied a permission.
fn is_denied(cause: &(dyn std::error::Error + 'static)) -> bool {
    let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
    #[cfg(unix)]
    let kind = kind.or_else(|| Some(cause.downcast_ref::<rustix::io::Errno>()?.kind()));
    kind == Some(io::ErrorKind::PermissionDenied)
}

/// Returns the version of `wasi:http` that a component exports. `None` for a component that exports `media-serve`.
pub(crate) fn http_version(source: &Source) -> Option<HttpVersion> {
    let exports = exports(source.bytes());
    let exports_one = |name: &str| exports.iter().any(|export| export.starts_with(name));
    if exports_one("millpond:media/media-serve@") {
        None
    } else if exports_one("wasi:http/handler@0.3.") {
        Some(HttpVersion::P3)
    } else if exports_one("wasi:http/incoming-handler@0.2.") {
        Some(HttpVersion::P2)
    } else {
        None
    }
}

/// Returns the names of a component's exports. Malformed components have none; the compiler reports the error.
fn exports(component: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    for payload in wasmparser::Parser::new(0).parse_all(component) {
        match payload {
            Ok(wasmparser::Payload::Version { .. }) => depth += 1,
            Ok(wasmparser::Payload::End(_)) => depth -= 1,
            Ok(wasmparser::Payload::ComponentExportSection(exports)) if depth == 1 => {
                let exports = exports.into_iter().map_while(Result::ok);
                names.extend(exports.map(|export| export.name.name.to_owned()));
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    names
}

impl Inspection {
    /// Describes a compiled component.
    pub(crate) fn of(component: &Component, source: &Source, instance_cost: InstanceCost) -> Self {
        const PAGE_BYTES: u64 = 64 * 1024;
        let engine = component.engine();
        let component_type = component.component_type();
        let resources = component.resources_required();
        Inspection {
            name: source.name.clone(),
            size_bytes: source.bytes().len(),
            sha256: source.sha256(),
            imports: component_type
                .imports(engine)
                .map(|(name, _)| name.to_owned())
                .collect(),
            exports: component_type
                .exports(engine)
                .map(|(name, _)| name.to_owned())
                .collect(),
            memories: resources
                .as_ref()
                .map_or(0, |resources| resources.num_memories),
            initial_memory_bytes: resources
                .and_then(|resources| resources.max_initial_memory_size)
                .map_or(0, |pages| pages.saturating_mul(PAGE_BYTES)),
            instance_bytes: instance_cost.total_bytes(),
        }
    }
}
