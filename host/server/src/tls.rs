//! TLS on a listener's connections: the certificate, and its reload after a renewal.

use crate::transport::socket::Socket;
use arc_swap::ArcSwap;
use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::server::TlsStream;
use x509_parser::parse_x509_certificate;

/// Maximum size of a file with a certificate or a key, in bytes. A long chain has some ten thousand.
const CERTIFICATE_FILE_BYTES: u64 = 256 * 1024;

/// Bytes that TLS buffers to send: a frame of HTTP/2 with its header. It is slightly larger than one record, so it
/// takes two.
const TLS_SEND_BYTES: usize = 20 * 1024;

/// A certificate with its key, read from two files, and the configuration of TLS 1.2 and 1.3. ALPN offers HTTP/2 and
/// HTTP/1.1 (RFC 7301).
///
/// Cloning is cheap, and all clones present the same certificate. The server stores no sessions: a returning client
/// brings an encrypted ticket (RFC 8446 section 4.6.1). Early data is refused.
#[derive(Clone)]
pub struct Certificate {
    config: Arc<ServerConfig>,
    files: Arc<ArcSwap<Files>>,
    resolver: Arc<CertResolver>,
}

/// An error of a certificate or its key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is larger than any certificate.
    #[error("{} is no certificate or key: it is larger than {CERTIFICATE_FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A certificate file contains no certificate.
    #[error("there is no certificate in {}: it has to be PEM, with a BEGIN CERTIFICATE line", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A key file contains no private key.
    #[error(
        "there is no private key in {}: it has to be PEM without a passphrase, with a BEGIN PRIVATE KEY line",
        path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A file is malformed PEM.
    #[error("{} is not sound PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The error of the parser.
        source: pem::Error,
    },
    /// The certificate and the key do not fit together.
    #[error("the certificate in {} cannot be used with the key in {}", certificate.display(), key.display())]
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

impl Certificate {
    /// Reads a certificate chain and its private key, both in PEM.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let files = Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        let resolver = Arc::new(CertResolver(RwLock::new(files.read()?)));
        let config = server_config(&resolver).map_err(|source| files.unfit(source))?;
        Ok(Certificate {
            config: Arc::new(config),
            files: Arc::new(ArcSwap::from_pointee(files)),
            resolver,
        })
    }

    /// Reads the files again. If they have changed, new connections use the new certificate. Returns whether they have
    /// changed. Blocks while it reads two small files.
    ///
    /// # Errors
    /// [`CertificateError`]. The old certificate then stays in use.
    pub fn reload(&self) -> Result<bool, CertificateError> {
        let files = self.files.load_full();
        let digest = files.digest()?;
        let is_shown = |shown: &KeyPair| shown.digest == digest;
        if is_shown(&self.resolver.0.read()) {
            return Ok(false);
        }
        let pair = files.read()?;
        *self.resolver.0.write() = pair;
        Ok(true)
    }

    /// Presents another certificate from now on, and follows its files. Returns whether it differs from the one before.
    pub fn replace_with(&self, other: &Certificate) -> bool {
        let new = other.resolver.0.read().clone();
        self.files.store(other.files.load_full());
        let mut shown = self.resolver.0.write();
        let is_new = shown.digest != new.digest;
        *shown = new;
        is_new
    }

    /// Returns the time at which the certificate in use expires, or the first one of its chain. `None` if no certificate
    /// of the chain can be read.
    #[must_use]
    pub fn expiry(&self) -> Option<SystemTime> {
        self.resolver.0.read().expiry
    }

    /// Performs a connection's handshake.
    pub(crate) async fn accept(&self, socket: Socket) -> io::Result<TlsStream<Socket>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        let bounded = |session: &mut rustls::ServerConnection| {
            session.set_buffer_limit(Some(TLS_SEND_BYTES));
        };
        acceptor.accept_with(socket, bounded).await
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files.load();
        f.debug_struct("Certificate")
            .field("certificate", &files.certificate)
            .field("key", &files.key)
            .finish_non_exhaustive()
    }
}

fn server_config(resolver: &Arc<CertResolver>) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    let resolver = Arc::clone(resolver);
    let mut config = builder
        .with_no_client_auth()
        .with_cert_resolver(resolver as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![
        #[cfg(feature = "http2")]
        b"h2".to_vec(),
        b"http/1.1".to_vec(),
    ];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new()?;
    Ok(config)
}

/// The paths of certificate and key.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// A certificate with its key, and a digest of the files that contain them.
#[derive(Clone)]
struct KeyPair {
    digest: [u8; 32],
    key: Arc<CertifiedKey>,
    /// The time at which the first certificate of the chain expires.
    expiry: Option<SystemTime>,
}

impl Files {
    fn read(&self) -> Result<KeyPair, CertificateError> {
        let (certificate, key) = (read_whole(&self.certificate)?, read_whole(&self.key)?);
        let chain = self.chain(&certificate)?;
        let expiry = chain.iter().filter_map(expiry_of).min();
        let certified =
            CertifiedKey::from_der(chain, self.private_key(&key)?, &ring::default_provider());
        Ok(KeyPair {
            digest: digest(&certificate, &key),
            key: Arc::new(certified.map_err(|source| self.unfit(source))?),
            expiry,
        })
    }

    fn digest(&self) -> Result<[u8; 32], CertificateError> {
        let (certificate, key) = (read_whole(&self.certificate)?, read_whole(&self.key)?);
        Ok(digest(&certificate, &key))
    }

    fn chain(&self, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
        let path = || self.certificate.clone();
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        let chain = chain.map_err(|source| CertificateError::Pem {
            path: path(),
            source,
        })?;
        if chain.is_empty() {
            return Err(CertificateError::NoCertificate { path: path() });
        }
        Ok(chain)
    }

    fn private_key(&self, text: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
        let path = self.key.clone();
        PrivateKeyDer::from_pem_slice(text).map_err(|source| match source {
            pem::Error::NoItemsFound => CertificateError::NoKey { path },
            source => CertificateError::Pem { path, source },
        })
    }

    fn unfit(&self, source: rustls::Error) -> CertificateError {
        CertificateError::KeyMismatch {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        }
    }
}

/// Returns the time at which a certificate expires (RFC 5280 section 4.1.2.5).
fn expiry_of(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let seconds = certificate.validity().not_after.timestamp();
    // A time before the epoch is over, as the epoch is.
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

fn read_whole(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| {
        let mut bounded = file.take(CERTIFICATE_FILE_BYTES + 1);
        bounded.read_to_end(&mut bytes)
    });
    let path = path.to_owned();
    match read {
        Err(source) => Err(CertificateError::Unreadable { path, source }),
        Ok(count) if count as u64 > CERTIFICATE_FILE_BYTES => {
            Err(CertificateError::TooLarge { path })
        }
        Ok(_) => Ok(bytes),
    }
}

fn digest(certificate: &[u8], key: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    // The length separates the two files in the digest.
    hash.update((certificate.len() as u64).to_be_bytes());
    hash.update(certificate);
    hash.update(key);
    hash.finalize().into()
}

/// The certificate that clients are shown now.
struct CertResolver(RwLock<KeyPair>);

impl ResolvesServerCert for CertResolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let pair = self.0.read();
        Some(Arc::clone(&pair.key))
    }
}

impl fmt::Debug for CertResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertResolver")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    /// A folder with `cert.pem` and `key.pem`, and their paths.
    struct Made {
        _folder: tempfile::TempDir,
        certificate: PathBuf,
        key: PathBuf,
    }

    impl Made {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let made = Made {
                certificate: folder.path().join("cert.pem"),
                key: folder.path().join("key.pem"),
                _folder: folder,
            };
            made.renew();
            made
        }

        fn renew(&self) {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            fs::write(&self.certificate, made.cert.pem()).unwrap();
            fs::write(&self.key, made.signing_key.serialize_pem()).unwrap();
        }

        fn read(&self) -> Result<Certificate, CertificateError> {
            Certificate::from_files(&self.certificate, &self.key)
        }
    }

    fn shown(certificate: &Certificate) -> CertificateDer<'static> {
        certificate.resolver.0.read().key.cert[0].clone()
    }

    #[test]
    fn what_was_renewed_is_shown_once_it_is_whole() {
        let made = Made::new();
        let certificate = made.read().unwrap();
        let first = shown(&certificate);
        assert!(!certificate.reload().unwrap(), "nothing is new");

        let key = fs::read(&made.key).unwrap();
        made.renew();
        let new_key = fs::read(&made.key).unwrap();
        fs::write(&made.key, key).unwrap();
        let error = certificate.reload().unwrap_err();
        assert!(
            matches!(error, CertificateError::KeyMismatch { .. }),
            "{error}"
        );
        assert_eq!(shown(&certificate), first, "the old one stays");

        fs::write(&made.key, new_key).unwrap();
        assert!(certificate.reload().unwrap());
        assert_ne!(shown(&certificate), first);
        // rcgen's certificates end in the year 4096.
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(67_090_118_400);
        assert!(certificate.expiry() >= Some(end - Duration::from_secs(366 * 24 * 3600)));
        assert!(!certificate.reload().unwrap());

        let other = Made::new();
        assert!(certificate.replace_with(&other.read().unwrap()));
        let other_shown = shown(&certificate);
        assert!(!certificate.replace_with(&other.read().unwrap()));
        other.renew();
        assert!(certificate.reload().unwrap(), "the new files are followed");
        assert_ne!(shown(&certificate), other_shown);
        assert!(certificate.replace_with(&made.read().unwrap()));

        fs::remove_file(&made.key).unwrap();
        let error = certificate.reload().unwrap_err();
        assert!(
            matches!(error, CertificateError::Unreadable { .. }),
            "{error}"
        );
    }

    #[test]
    fn bad_files_are_named() {
        let made = Made::new();
        let error = |certificate: &str, key: &str| {
            let _ = fs::write(&made.certificate, certificate);
            let _ = fs::write(&made.key, key);
            made.read().unwrap_err().to_string()
        };
        let certificate = fs::read_to_string(&made.certificate).unwrap();
        let key = fs::read_to_string(&made.key).unwrap();
        let swapped = error(&key, &certificate);
        assert!(
            swapped.starts_with("there is no certificate in "),
            "{swapped}"
        );
        let no_key = error(&certificate, &certificate);
        assert!(
            no_key.starts_with("there is no private key in "),
            "{no_key}"
        );
        let cut = error(&certificate[..certificate.len() / 2], &key);
        assert!(cut.contains("cert.pem is not sound PEM"), "{cut}");
        let large = error(&"a".repeat(CERTIFICATE_FILE_BYTES as usize + 1), &key);
        assert!(
            large.contains("cert.pem is no certificate or key"),
            "{large}"
        );
    }
}
