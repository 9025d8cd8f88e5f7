//! Uploads: `PUT /api/media` for media by content, `PUT <mount-path>/<path>` for named files, and `POST` of a form to a
//! folder.
//!
//! The host receives an upload itself, so the guest stays without request content. The content is streamed to a
//! temporary file and hashed on the way. It becomes visible by one rename, once it is whole and described.

pub(crate) mod checked_upload;
mod conditions;
mod digest_fields;
pub(crate) mod error;
pub(crate) mod form;
mod form_content;
pub(crate) mod form_error;
mod receive;
mod target;
mod token;

use crate::body::BodyPart;
use crate::error::RequestError;
use crate::request_content::RequestContent;
use crate::store::{
    Access, FILE_BYTES, Folder, ImportError, ImportedMedia, Importer, ObjectKey, PendingImport,
};
use bytes::Bytes;
use conditions::{Conditions, CurrentFile};
use digest_fields::DigestFields;
use error::UploadError;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri};
use millpond_ledger::{Kind, Ledger, LedgerHandle, heap};
use receive::{UploadFile, receive};
use std::io;
use std::sync::Arc;
use target::{FileTarget, UploadTarget};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

pub(crate) use receive::UPLOAD_BYTES;
pub use token::{InvalidUploadToken, TOKEN_CHARACTERS, UploadToken};

/// Maximum number of uploads in progress. Each may occupy a thread of its own if the disk hangs, and the runtime has
/// 512 for all work that blocks.
const UPLOADS: usize = 64;

/// Default maximum size of an upload, in bytes. A film of two hours in high definition fits.
const MAX_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Uploads into a folder, for clients that have the token. Clones share the limit of uploads in progress.
#[derive(Debug, Clone)]
pub struct Uploads {
    folder: Folder,
    importer: Arc<Importer>,
    token: UploadToken,
    max_bytes: u64,
    slots: Arc<Semaphore>,
}

/// An upload of one file whose head is checked.
pub(crate) struct Upload {
    target: FileTarget,
    /// Path of the target, for `Location`.
    path: String,
    conditions: Conditions,
    digests: DigestFields,
}

impl Uploads {
    /// Prepares uploads into a folder. Removes the temporary files of interrupted uploads and imports.
    ///
    /// # Errors
    /// [`ImportError::Write`], if the folder cannot be written.
    pub fn new(folder: &Folder, token: UploadToken) -> Result<Self, ImportError> {
        Ok(Uploads {
            folder: folder.clone(),
            importer: Arc::new(Importer::open(folder.given_path())?),
            token,
            max_bytes: MAX_BYTES,
            slots: Arc::new(Semaphore::new(UPLOADS)),
        })
    }

    /// Sets the maximum size of an upload, in bytes. A larger one gets 413. Default: 4 GiB.
    #[must_use]
    pub fn with_max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Returns whether a request is an upload, so that its content is read.
    pub(crate) fn is_upload(method: &Method, uri: &Uri, mount_path: &str) -> bool {
        UploadTarget::parse(method, uri, mount_path).is_some()
    }

    /// Checks the head of an upload of one file, whose client has the token.
    ///
    /// # Errors
    /// [`UploadError`].
    fn check_file(&self, head: &Parts, target: FileTarget) -> Result<Upload, UploadError> {
        let length = head.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > self.max_bytes) {
            return Err(UploadError::TooLarge(self.max_bytes));
        }
        Ok(Upload {
            target,
            path: head.uri.path().to_owned(),
            conditions: Conditions::parse(&head.headers)?,
            digests: DigestFields::parse(&head.headers)?,
        })
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), UploadError> {
        const SCHEME: &[u8] = b"Bearer ";
        let credentials = headers.get(header::AUTHORIZATION);
        let credentials = credentials.ok_or(UploadError::NoToken)?.as_bytes();
        let (scheme, token) = credentials
            .split_at_checked(SCHEME.len())
            .ok_or(UploadError::NoToken)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(UploadError::NoToken);
        }
        self.check_token(token.trim_ascii())
    }

    fn check_token(&self, token: &[u8]) -> Result<(), UploadError> {
        match self.token.is(token) {
            true => Ok(()),
            false => Err(UploadError::WrongToken),
        }
    }

    /// Receives the content of an upload, and stores it. Dropping the future removes what was received.
    ///
    /// # Errors
    /// [`RequestError::Upload`], and limits of memory.
    pub(crate) async fn receive(
        &self,
        upload: Upload,
        content: RequestContent,
        ledger: &Ledger,
    ) -> Result<Response<Vec<BodyPart>>, RequestError> {
        let permit = Arc::clone(&self.slots).try_acquire_owned();
        let permit = permit.map_err(|_| UploadError::Busy(UPLOADS))?;
        let charges = [
            ledger.charge(Kind::Buffers, UPLOAD_BYTES)?,
            ledger.charge(Kind::Files, FILE_BYTES)?,
        ];
        let (uploads, handle) = (self.clone(), ledger.handle());
        let begun = block(&handle, move || {
            // Checked again at the end. A client should learn of a failure before it sends everything.
            uploads.check_conditions(&upload)?;
            let import = uploads.importer.begin()?;
            let file = UploadFile::new(import, Arc::new(charges), Arc::new(permit));
            Ok::<_, UploadError>((upload, file))
        });
        let (upload, file) = begun.await??;
        let route = handle.route().cloned();
        let file = receive(content, file, self.max_bytes, route).await?;
        if let Some(id) = file.id() {
            upload.digests.check(&id)?;
        }
        let uploads = self.clone();
        let finished = block(&handle, move || {
            let finish = |import| uploads.finish(&upload, import);
            file.finish(finish)
                .unwrap_or_else(|| Err(UploadError::Store("the file is gone".into())))
        });
        Ok(finished.await??)
    }

    /// Makes a whole upload visible. Blocks on the file system.
    fn finish(
        &self,
        upload: &Upload,
        import: PendingImport,
    ) -> Result<Response<Vec<BodyPart>>, UploadError> {
        let size = import.size();
        match &upload.target {
            FileTarget::Content => {
                let media = self.importer.finish(import)?;
                self.folder.forget(&ObjectKey::Content(media.id));
                Ok(media_response(&media))
            }
            FileTarget::Named(name) => {
                let check = |_exists| self.check_conditions(upload);
                let finished = self.importer.finish_named(import, name, check);
                self.folder.forget(&ObjectKey::Named(name.clone()));
                Ok(match finished? {
                    true => with_status(StatusCode::NO_CONTENT),
                    false => created_file(&upload.path, size),
                })
            }
        }
    }

    /// Evaluates the preconditions of an upload to a name. Blocks on the file system.
    fn check_conditions(&self, upload: &Upload) -> Result<(), UploadError> {
        let FileTarget::Named(name) = &upload.target else {
            return Ok(());
        };
        if upload.conditions.is_empty() {
            return Ok(());
        }
        let current = self.folder.current_file(name);
        let current = current.map_err(|error| UploadError::of_store(&error))?;
        let current = current.map(|(version, modified)| CurrentFile { version, modified });
        upload.conditions.check(current.as_ref())
    }
}

/// Runs a function on a thread that may block.
async fn block<T: Send + 'static>(
    ledger: &LedgerHandle,
    function: impl FnOnce() -> T + Send + 'static,
) -> Result<T, UploadError> {
    let function = heap::attribute(ledger.route().cloned(), function);
    let done = spawn_blocking(function).await;
    done.map_err(|error| UploadError::of_store(&io::Error::other(error)))
}

/// Returns the response to uploaded media: 201, or 200 if the store had it.
fn media_response(media: &ImportedMedia) -> Response<Vec<BodyPart>> {
    let path = format!("/api/media/{}", media.id);
    let access = match media.record.access {
        Access::Public => "public",
        Access::Private => "private",
    };
    let json = serde_json::json!({
        "id": media.id.to_string(),
        "path": path,
        "type": media.record.media_type,
        "size": media.record.size,
        "access": access,
    });
    let status = match media.already_present {
        true => StatusCode::OK,
        false => StatusCode::CREATED,
    };
    with_json(status, &path, &json)
}

fn created_file(path: &str, size: u64) -> Response<Vec<BodyPart>> {
    let json = serde_json::json!({ "path": path, "size": size });
    with_json(StatusCode::CREATED, path, &json)
}

fn with_json(
    status: StatusCode,
    location: &str,
    json: &serde_json::Value,
) -> Response<Vec<BodyPart>> {
    let mut response = with_location(status, location);
    let text = json.to_string();
    let fields = response.headers_mut();
    fields.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    fields.insert(header::CONTENT_LENGTH, text.len().into());
    *response.body_mut() = vec![BodyPart::Bytes(Bytes::from(text))];
    response
}

fn with_location(status: StatusCode, location: &str) -> Response<Vec<BodyPart>> {
    let mut response = with_status(status);
    // The path of a target is a field value, since it was in a head.
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn with_status(status: StatusCode) -> Response<Vec<BodyPart>> {
    let mut response = Response::new(Vec::new());
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
