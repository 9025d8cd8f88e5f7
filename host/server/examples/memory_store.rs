//! Media from memory, by a store of the program's own: `cargo run --example memory_store -- DIR [ADDR]`.

use bytes::Bytes;
use millpond::ledger::LedgerHandle;
use millpond::store::{Access, ContentId, MediaObject, MediaStore, ObjectInfo, ObjectKey};
use millpond::store::{OpenError, ReadAt};
use millpond::{Config, Limits, Millpond, Source};
use millpond_server::{ConnectionLimits, Server};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// All media together, in bytes.
const MEDIA_BYTES: usize = 16 * 1024 * 1024;

/// Objects that are open at one time.
const OPEN_OBJECTS: usize = 1000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: memory_store DIR [ADDR]")?;
    let address = arguments.next().unwrap_or("127.0.0.1:8080".into());

    let store = MemoryStore::load(folder.as_ref())?;
    let config = Config::default();
    let millpond = Millpond::new(&Source::embedded(), store, &config, Limits::default())?;

    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let (limits, stop) = (ConnectionLimits::default(), CancellationToken::new());
    Server::new(millpond).serve(listener, limits, stop).await;
    Ok(())
}

/// The files of a folder as they were at the start, each by its name and by its content.
struct MemoryStore {
    media: HashMap<ObjectKey, Media>,
    places: Arc<Semaphore>,
}

#[derive(Clone)]
struct Media {
    bytes: Bytes,
    info: ObjectInfo,
}

/// Media that is being served, with the place that it takes until it has been.
struct OpenMedia {
    bytes: Bytes,
    _place: OwnedSemaphorePermit,
}

impl MemoryStore {
    /// Reads the files of a folder, as far as there is room for them.
    fn load(folder: &Path) -> io::Result<Self> {
        let mut media = HashMap::new();
        let mut left_bytes = MEDIA_BYTES;
        for entry in folder.read_dir()? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name.starts_with('.') || !entry.file_type()?.is_file() {
                continue;
            }
            let mut bytes = Vec::new();
            let file = File::open(entry.path())?;
            file.take(left_bytes as u64 + 1).read_to_end(&mut bytes)?;
            let Some(left) = left_bytes.checked_sub(bytes.len()) else {
                eprintln!("there is no room for {name}");
                continue;
            };
            left_bytes = left;
            let media_type = mime_guess::from_path(&name).first_or_octet_stream();
            let id = ContentId::from_digest(Sha256::digest(&bytes).into());
            let mut info = ObjectInfo::new(bytes.len() as u64, media_type.as_ref(), Access::Public);
            info.digest = Some(id);
            let bytes = Bytes::from(bytes);
            media.insert(
                ObjectKey::Content(id),
                Media {
                    bytes: bytes.clone(),
                    info: info.clone(),
                },
            );
            media.insert(ObjectKey::Named(name), Media { bytes, info });
        }
        let places = Arc::new(Semaphore::new(OPEN_OBJECTS));
        Ok(MemoryStore { media, places })
    }
}

impl MediaStore for MemoryStore {
    async fn open(&self, key: &ObjectKey, ledger: &LedgerHandle) -> Result<MediaObject, OpenError> {
        let Media { bytes, info } = self.media.get(key).cloned().ok_or(OpenError::NotFound)?;
        let busy = |error| OpenError::Busy(io::Error::other(error));
        let place = Arc::clone(&self.places).try_acquire_owned();
        let open = OpenMedia {
            bytes,
            _place: place.map_err(busy)?,
        };
        Ok(MediaObject::from_bytes(open, info, ledger)?)
    }
}

impl ReadAt for OpenMedia {
    async fn read_at(&self, offset: u64, most_bytes: usize) -> io::Result<Bytes> {
        self.bytes.read_at(offset, most_bytes).await
    }
}
