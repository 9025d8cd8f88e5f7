//! Checks of the folder, the addresses, the certificate and the component.

use crate::common::{one_line, readable};
use crate::doctor::finding::Finding;
use crate::hints;
use crate::listen::{ListenAddress, PortSharing};
use anyhow::{Context, Error, Result, ensure};
use millpond::config::Config;
use millpond::ledger::LedgerHandle;
use millpond::store::{Folder, MediaObject, MediaStore, ObjectKey, OpenError};
use millpond::{Limits, Millpond, Source};
use millpond_server::tls::Certificate;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::SystemTime;

/// Checks that the folder can be read, and where it lies.
pub(crate) fn folder(path: &Path) -> Vec<Finding> {
    const CHECK: &str = "folder";
    if let Err(error) = Folder::open(path) {
        let message = format!("cannot serve {}: {error}", path.display());
        return vec![Finding::fail(
            CHECK,
            message,
            "name a folder that the server's user can read",
        )];
    }
    let mut findings = vec![match unreadable_file(path) {
        Some(file) => Finding::warn(
            CHECK,
            format!("the server's user cannot read {file}"),
            "chmod o+r the files and o+rx the folders, or change their group",
        ),
        None => Finding::ok(CHECK, format!("{} can be read", path.display())),
    }];
    findings.extend(platform::mode(path));
    findings.extend(platform::file_system(path));
    findings
}

/// Returns the first file that cannot be opened, among the first thousand.
fn unreadable_file(folder: &Path) -> Option<String> {
    const FILES: usize = 1000;
    let entries = walkdir::WalkDir::new(folder).max_depth(3).into_iter();
    entries.take(FILES).find_map(|entry| match entry {
        Ok(entry) if entry.file_type().is_file() => {
            let error = File::open(entry.path()).err()?;
            let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
            is_denied.then(|| entry.path().display().to_string())
        }
        Ok(_) => None,
        Err(error) => Some(error.path()?.display().to_string()),
    })
}

/// Checks that an address can be bound. Binds it for a moment. `name` is the option.
pub(crate) async fn address(
    name: &str,
    address: &ListenAddress,
    sharing: PortSharing,
    is_optional: bool,
) -> Finding {
    const CHECK: &str = "address";
    let bound = match address {
        ListenAddress::Unix(path) => unix_path(path),
        ListenAddress::Tcp { .. } => address.bind_tcp(sharing).await.map(drop),
    };
    let Err(error) = bound else {
        return Finding::ok(CHECK, format!("--{name} {address} is free"));
    };
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let remedy = match kind {
        Some(io::ErrorKind::AddrInUse) => {
            format!(
                "stop the program that listens there (ss -ltnp), or name another address with --{name}"
            )
        }
        Some(io::ErrorKind::PermissionDenied) => {
            "ports below 1024 need AmbientCapabilities=CAP_NET_BIND_SERVICE, or a socket of systemd"
                .into()
        }
        _ => format!("name an address of this machine with --{name}"),
    };
    let message = format!("--{name}: {}", one_line(&error));
    if is_optional {
        Finding::warn(CHECK, message, remedy)
    } else {
        Finding::fail(CHECK, message, remedy)
    }
}

/// Checks the folder of a UNIX domain socket, without making one.
fn unix_path(path: &Path) -> Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let made = tempfile::NamedTempFile::new_in(parent);
    let made = made.map_err(|error| io::Error::from(error.kind()));
    made.with_context(|| format!("no socket can be made in {}", parent.display()))?;
    #[cfg(unix)]
    ensure!(
        std::os::unix::net::UnixStream::connect(path).is_err(),
        io::Error::from(io::ErrorKind::AddrInUse)
    );
    Ok(())
}

/// Checks that the certificate and its key can be read, fit together and are valid now.
pub(crate) fn certificate(certificate: &Path, key: &Path, now: SystemTime) -> Finding {
    const CHECK: &str = "certificate";
    const DAYS: i64 = 14;
    if let Err(error) = Certificate::from_files(certificate, key) {
        let message = one_line(&Error::from(error));
        return Finding::fail(
            CHECK,
            message,
            "name a chain and its own key with --tls-cert and --tls-key",
        );
    }
    match validity(certificate) {
        Err(error) => Finding::warn(
            CHECK,
            one_line(&error),
            "see what openssl x509 -text says of it",
        ),
        Ok((from, until)) => {
            let now = now
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            let days = (until - now).div_euclid(86_400);
            let path = certificate.display();
            if now < from {
                let message = format!("{path} is not valid yet");
                Finding::fail(CHECK, message, "correct the clock, or wait")
            } else if now > until {
                Finding::fail(CHECK, format!("{path} has expired"), "renew it")
            } else if days < DAYS {
                let message = format!("{path} expires in {days} days");
                Finding::warn(
                    CHECK,
                    message,
                    "renew it, and see why its renewal has not run",
                )
            } else {
                Finding::ok(
                    CHECK,
                    format!("{path} fits its key, and expires in {days} days"),
                )
            }
        }
    }
}

/// Returns the times between which the first certificate of a file is valid, in seconds since 1970.
fn validity(path: &Path) -> Result<(i64, i64)> {
    let text = fs::read(path)?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&text)
        .with_context(|| format!("cannot parse {}", path.display()))?;
    let certificate = pem.parse_x509();
    let certificate = certificate.with_context(|| format!("cannot parse {}", path.display()))?;
    let validity = certificate.validity();
    Ok((
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    ))
}

/// Checks that the component can be compiled, fits into memory, and responds.
pub(crate) async fn component(
    component: Option<&Path>,
    folder: Option<&Path>,
    config: &Config,
    limits: Limits,
) -> Finding {
    const CHECK: &str = "component";
    const REMEDY: &str = "millpond inspect FILE tells more about a component; without --component the embedded one serves";
    match responding(component, folder, config, limits).await {
        Ok(message) => Finding::ok(CHECK, message),
        Err(error) => Finding::fail(CHECK, one_line(&error), REMEDY),
    }
}

/// A store without media, for the component of a server whose media is at an origin.
struct EmptyStore;

impl MediaStore for EmptyStore {
    async fn open(
        &self,
        _key: &ObjectKey,
        _ledger: &LedgerHandle,
    ) -> Result<MediaObject, OpenError> {
        Err(OpenError::NotFound)
    }
}

async fn responding(
    component: Option<&Path>,
    folder: Option<&Path>,
    config: &Config,
    limits: Limits,
) -> Result<String> {
    let source = match component {
        Some(path) => Source::from_file(path)?,
        None => Source::embedded(),
    };
    let millpond = match folder {
        Some(folder) => {
            let folder = Folder::open(folder).context("the folder cannot be served")?;
            Millpond::new(&source, folder, config, limits)
        }
        None => Millpond::new(&source, EmptyStore, config, limits),
    };
    let millpond = millpond.map_err(hints::of_component)?;
    millpond.probe_request().await?;
    let component = millpond.component();
    Ok(format!(
        "{} responds, {} for each instance",
        component.name,
        readable(component.instance_bytes as u64)
    ))
}

#[cfg(unix)]
mod platform {
    use super::{Finding, Path};
    use std::os::unix::fs::PermissionsExt;

    /// Warns of a folder that every user of the machine can write to.
    pub(super) fn mode(path: &Path) -> Option<Finding> {
        const OTHERS_WRITE: u32 = 0o002;
        let mode = path.metadata().ok()?.permissions().mode();
        (mode & OTHERS_WRITE != 0).then(|| {
            let message = format!("every user can write to {}", path.display());
            Finding::warn("folder", message, format!("chmod o-w {}", path.display()))
        })
    }

    /// File systems that may not answer, by their magic numbers (statfs(2)).
    #[cfg(target_os = "linux")]
    const SLOW: [(u32, &str); 8] = [
        (0x6969, "NFS"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB"),
        (0x6573_5546, "FUSE"),
        (0x0102_1997, "9P"),
        (0x00c3_6400, "Ceph"),
        (0x5346_414f, "AFS"),
        (0x7461_636f, "OCFS2"),
    ];

    /// Tells the file system of a folder, as far as that matters.
    #[cfg(target_os = "linux")]
    pub(super) fn file_system(path: &Path) -> Option<Finding> {
        const CHECK: &str = "file system";
        let found = rustix::fs::statfs(path).ok()?;
        // The kernel's numbers have 32 bits.
        let magic = found.f_type as u32;
        Some(match SLOW.iter().find(|(number, _)| *number == magic) {
            Some((_, name)) => Finding::warn(
                CHECK,
                format!("the folder lies on {name}, which may not answer"),
                "files are opened on 16 threads and are not cached; a copy on a local disk is faster",
            ),
            None => Finding::ok(
                CHECK,
                format!("the folder lies on a local file system (0x{magic:x})"),
            ),
        })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn file_system(_path: &Path) -> Option<Finding> {
        None
    }
}

#[cfg(not(unix))]
mod platform {
    use super::{Finding, Path};

    pub(super) fn mode(_path: &Path) -> Option<Finding> {
        None
    }

    pub(super) fn file_system(_path: &Path) -> Option<Finding> {
        None
    }
}
