//! A component that fits the world `media-guest`: read, compiled and checked before anything is served.

use crate::engine::code_cache::CodeCache;
use crate::engine::instance_cost::InstanceCost;
use crate::error::one_line;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use wasmtime::component::Component;

/// Largest component that is compiled, in bytes: ones with a language runtime have some 20 MB.
pub(crate) const COMPONENT_BYTES: u64 = 64 * 1024 * 1024;

/// The version of `wasi:http` that a component exports, which says how it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    /// `wasi:http/incoming-handler@0.2`.
    P2,
    /// `wasi:http/handler@0.3`.
    P3,
}

/// The component that is built into this program.
pub const EMBEDDED: &[u8] = include_bytes!("../../component/media-serve.wasm");

/// A component's bytes, and where they came from.
#[derive(Debug, Clone)]
pub struct Source {
    /// What to call it: `embedded`, or the file.
    pub name: String,
    bytes: std::borrow::Cow<'static, [u8]>,
}

/// Why a component cannot be served from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComponentError {
    /// The file cannot be read.
    #[error("cannot read the component {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than any component that is compiled.
    #[error("{name} is larger than a component may be ({} MiB)", COMPONENT_BYTES >> 20)]
    TooLarge {
        /// The component.
        name: String,
    },
    /// It is a core module.
    #[error(
        "{name} is a core WebAssembly module, not a component; make one of it with `wasm-tools component new`"
    )]
    Module {
        /// The component.
        name: String,
    },
    /// It is not WebAssembly, or not valid.
    #[error("{name} is not a WebAssembly component: {reason}")]
    Invalid {
        /// The component.
        name: String,
        /// What the compiler said.
        reason: String,
    },
    /// It asks for what this host does not give, or lacks what it must export.
    #[error(
        "{name} fits neither the world millpond:media/media-guest nor wasi:http/proxy or service: {reason}"
    )]
    Unsupported {
        /// The component.
        name: String,
        /// What is amiss.
        reason: String,
    },
    /// An instance of the component does not fit the memory limit of a request.
    #[error(
        "{name} needs more memory than a request may take: an instance begins with {} KiB, and \
         request_memory_bytes is {} KiB",
        needs_bytes.div_ceil(1024),
        limit_bytes >> 10
    )]
    ExceedsLimits {
        /// The component.
        name: String,
        /// Memory that an instance begins with, in bytes.
        needs_bytes: usize,
        /// [`Limits::request_memory_bytes`](crate::Limits::request_memory_bytes).
        limit_bytes: usize,
    },
    /// The system denies this process memory with code in it that was made while it runs.
    #[error(
        "the system does not let this process run code that it compiles ({reason}): leave out \
         MemoryDenyWriteExecute= of systemd, or whatever else denies it here"
    )]
    NoExecutableMemory {
        /// What the system said.
        reason: String,
    },
    /// There is too little memory to serve in.
    #[error(transparent)]
    InsufficientMemory(#[from] crate::memory_plan::InsufficientMemory),
    /// The engine could not be set up.
    #[error("cannot set up the WebAssembly engine: {0}")]
    Engine(String),
}

/// What can be told of a component before it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// What it is called.
    pub name: String,
    /// Its size, in bytes.
    pub size_bytes: usize,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// The interfaces that it exports.
    pub exports: Vec<String>,
    /// Linear memories that an instance has at the start.
    pub memories: u32,
    /// The largest of them at the start, in bytes.
    pub initial_memory_bytes: u64,
    /// What an instance takes on the host's side, in bytes: each request is charged with that.
    pub instance_bytes: usize,
}

impl Source {
    /// The component that is built into this program.
    #[must_use]
    pub fn embedded() -> Self {
        Source {
            name: "embedded".into(),
            bytes: EMBEDDED.into(),
        }
    }

    /// A component given as bytes: binary, as a linker makes it.
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

    /// The component's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What an instance of it takes on the host's side. Tells modules from components, which the compiler's own message does
/// not for a newcomer.
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

/// Compiles it, or takes the code that an earlier start compiled. A cache that cannot be had costs time only.
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

/// Whether it is the system's refusal of a right.
fn is_denied(cause: &(dyn std::error::Error + 'static)) -> bool {
    let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
    #[cfg(unix)]
    let kind = kind.or_else(|| Some(cause.downcast_ref::<rustix::io::Errno>()?.kind()));
    kind == Some(io::ErrorKind::PermissionDenied)
}

/// Which version of `wasi:http` a component answers, if it is one for that and not for `media-serve`.
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

/// Names of what a component exports. What cannot be read has none: the compiler says what is amiss.
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
    /// Reads off a compiled component what there is to tell.
    pub(crate) fn of(component: &Component, source: &Source, instance_cost: InstanceCost) -> Self {
        const PAGE_BYTES: u64 = 64 * 1024;
        let engine = component.engine();
        let component_type = component.component_type();
        let resources = component.resources_required();
        Inspection {
            name: source.name.clone(),
            size_bytes: source.bytes().len(),
            sha256: hex::encode(Sha256::digest(source.bytes())),
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
