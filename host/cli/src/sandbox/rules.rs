//! Everything that the sandbox allows.

use std::path::{Path, PathBuf};

/// Everything that the server opens or reaches after its start.
#[derive(Debug, Default)]
pub(crate) struct SandboxRules {
    /// Files, and folders with all beneath them.
    pub(crate) paths: Vec<(PathBuf, PathAccess)>,
    /// TCP ports that listeners bind. 0 is any free port.
    pub(crate) bind_ports: Vec<u16>,
    /// TCP ports that the server connects to, on any machine: those of a collector of traces and of an origin.
    pub(crate) connect_ports: Vec<u16>,
    /// Whether the server connects to an abstract UNIX domain socket.
    pub(crate) needs_abstract_sockets: bool,
}

/// Access to a path, and to everything beneath a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathAccess {
    /// Read files, and list folders.
    Read,
    /// Append to files, and create them.
    Append,
    /// Read, create, change and remove files in folders that exist.
    Files,
    /// All of this, for folders too.
    Tree,
    /// Create and remove UNIX domain sockets.
    Sockets,
}

impl SandboxRules {
    /// Allows access to a path. One that does not exist is passed over.
    pub(crate) fn allow(&mut self, path: impl Into<PathBuf>, access: PathAccess) {
        self.paths.push((path.into(), access));
    }

    /// Allows access to a folder to serve. A symbolic link on its path may lead to another folder beside the present one
    /// later, as deployments switch.
    pub(crate) fn allow_served(&mut self, folder: &Path, access: PathAccess) {
        self.allow(folder, access);
        // Without `components`, a slash at the end would follow the link.
        for link in folder.components().as_path().ancestors() {
            if link.is_symlink()
                && let Some(beside) = link.canonicalize().ok().as_deref().and_then(folder_of)
            {
                self.allow(beside, access);
            }
        }
    }

    /// Allows reading the folder around one to serve, so that a rename or a mount may replace that. The root folder is
    /// not allowed, because everything is beneath it.
    pub(crate) fn allow_around(&mut self, folder: &Path) {
        let real = folder.canonicalize().ok();
        if let Some(around) = real.as_deref().and_then(folder_of) {
            self.allow(around, PathAccess::Read);
        }
    }

    /// Allows reading a file that another one may replace: its folder, and the one that a symbolic link leads to. A pipe or
    /// a device is allowed by itself. So is a file of the root folder, because everything is beneath that.
    pub(crate) fn allow_replaceable(&mut self, file: &Path) {
        self.allow(file, PathAccess::Read);
        if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            let real = file.canonicalize().ok();
            let files = [Some(file), real.as_deref()].into_iter().flatten();
            for folder in files.filter_map(folder_of) {
                self.allow(folder, PathAccess::Read);
            }
        }
    }

    /// Allows appending to a file, which another process may rename.
    pub(crate) fn allow_log(&mut self, file: &Path) {
        self.allow(file, PathAccess::Append);
        // It need not exist yet.
        if file.metadata().map_or(true, |found| found.is_file()) {
            self.allow(parent(file), PathAccess::Append);
            if let Ok(real) = file.canonicalize() {
                self.allow(parent(&real), PathAccess::Append);
            }
        }
    }

    /// Allows the file of a UNIX domain socket.
    pub(crate) fn allow_socket(&mut self, file: &Path) {
        self.allow(parent(file), PathAccess::Sockets);
    }

    /// Allows connections to another server: its port on any machine, the lookup of its name, and the root certificates of
    /// the system.
    #[cfg(any(feature = "origin", feature = "otlp"))]
    pub(crate) fn allow_server(&mut self, port: u16) {
        self.connect_ports.push(port);
        self.allow_names();
        let variables = ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(std::env::var_os);
        let named = variables.iter().flatten().flat_map(std::env::split_paths);
        for path in named.chain(CERTIFICATE_FOLDERS.map(PathBuf::from)) {
            self.allow(path, PathAccess::Read);
        }
    }

    /// Allows the lookup of names.
    pub(crate) fn allow_names(&mut self) {
        for path in NAME_FILES {
            self.allow(path, PathAccess::Read);
        }
    }
}

/// Folders of root certificates. Files in the first ones are links to the others.
#[cfg(any(feature = "origin", feature = "otlp"))]
const CERTIFICATE_FOLDERS: [&str; 5] = [
    "/etc/pki",
    "/etc/ssl",
    "/usr/lib/ssl",
    "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates",
];

/// Files that the system's library reads to look up a name, and its modules.
const NAME_FILES: [&str; 14] = [
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/services",
    "/lib",
    "/lib64",
    "/run/systemd/resolve",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
];

/// Returns the folder of a path.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => path,
    }
}

/// Returns the folder of a path, unless it is the root folder.
fn folder_of(path: &Path) -> Option<PathBuf> {
    let folder = parent(path).canonicalize().ok()?;
    folder.parent().is_some().then_some(folder)
}
