//! Uploads by the form of a folder's page: `multipart/form-data` to the folder.
//!
//! The form has the token in a field, since a browser sends no `Authorization` by itself. That is the protection from
//! forged requests of other sites too: they do not have the token, and no cookie stands for it.

use super::error::UploadError;
use super::form_content::{FORM_BYTES, FormContent, parse_boundary};
use super::form_error::{FormError, StoredFile};
use super::receive::{UploadFile, receive};
use super::target::name_in;
use super::{UPLOADS, Uploads, block, with_json, with_location};
use crate::body::BodyPart;
use crate::error::RequestError;
use crate::request_content::RequestContent;
use crate::store::{FILE_BYTES, ObjectKey};
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use millpond_ledger::{Charge, Kind, Ledger, LedgerHandle};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Memory of an upload by form beside that of every request, in bytes. It has the memory of one upload, the parser, and
/// the list of stored files with its JSON.
pub(crate) const FORM_UPLOAD_BYTES: usize = super::UPLOAD_BYTES + FORM_BYTES + 2 * LIST_BYTES;

/// Maximum memory of the list of stored files, in bytes. A thousand files with paths of 60 characters fit.
const LIST_BYTES: usize = 128 * 1024;

/// Memory of an entry of the list beside its path, in bytes, and of its JSON.
const ENTRY_BYTES: usize = 64;

/// Maximum number of parts of a form.
const PARTS: usize = 1000;

/// Maximum size of a field that is no file, in bytes, as that of the token.
const FIELD_BYTES: usize = 4096;

/// Name of the field with the token.
const TOKEN_FIELD: &str = "token";

/// An upload by form whose head is checked.
pub(crate) struct Form {
    /// Decoded path of the folder; empty for the folder of all files.
    folder: String,
    /// Path of the target, with `/` at its end.
    path: String,
    boundary: String,
    /// Whether the head has the token.
    is_authorized: bool,
}

impl Form {
    /// Checks the head of an upload to a folder.
    ///
    /// # Errors
    /// [`UploadError`].
    pub(super) fn parse(
        head: &Parts,
        folder: String,
        is_authorized: bool,
    ) -> Result<Self, UploadError> {
        Ok(Form {
            folder,
            path: head.uri.path().to_owned(),
            boundary: parse_boundary(&head.headers)?,
            is_authorized,
        })
    }
}

/// Place in a form that an upload has reached, for its error.
#[derive(Default)]
struct Progress {
    file: Option<String>,
    stored: Vec<StoredFile>,
}

impl Uploads {
    /// Receives the files of a form, and stores one after the other. Dropping the future removes the file that is not
    /// whole.
    ///
    /// # Errors
    /// [`RequestError::Form`] with the files that were stored before, and limits of memory.
    pub(crate) async fn receive_form(
        &self,
        form: &Form,
        content: RequestContent,
        ledger: &Ledger,
    ) -> Result<Vec<StoredFile>, RequestError> {
        let _parser = ledger.charge(Kind::Buffers, FORM_BYTES)?;
        let _list = ledger.charge(Kind::Response, 2 * LIST_BYTES)?;
        let charges = Arc::new([
            ledger.charge(Kind::Buffers, super::UPLOAD_BYTES)?,
            ledger.charge(Kind::Files, FILE_BYTES)?,
        ]);
        let mut progress = Progress::default();
        let upload = FormUpload {
            uploads: self,
            form,
            charges,
            ledger: ledger.handle(),
        };
        let received = upload.receive_files(content, &mut progress).await;
        let Progress { file, stored } = progress;
        match received {
            Ok(()) => Ok(stored),
            Err(error) => Err(RequestError::from(Box::new(FormError {
                error,
                file,
                stored,
            }))),
        }
    }
}

/// An upload by form in progress.
struct FormUpload<'a> {
    uploads: &'a Uploads,
    form: &'a Form,
    /// Memory of one file at a time.
    charges: Arc<[Charge; 2]>,
    ledger: LedgerHandle,
}

impl FormUpload<'_> {
    async fn receive_files(
        &self,
        content: RequestContent,
        progress: &mut Progress,
    ) -> Result<(), UploadError> {
        let (form, max_bytes) = (self.form, self.uploads.max_bytes);
        let mut list_bytes = 0;
        let mut content = FormContent::new(content, &form.boundary);
        let mut permit = match form.is_authorized {
            true => Some(self.permit()?),
            false => None,
        };
        let mut parts = 0;
        // A file is stored when the boundary behind it has come whole, and the head of the next part.
        let mut received: Option<(UploadFile, String)> = None;
        loop {
            let part = content.next_part().await?;
            if let Some((file, name)) = received.take() {
                let stored = self.store(file, name).await?;
                progress.stored.push(stored);
                progress.file = None;
            }
            let Some(mut part) = part else {
                break;
            };
            parts += 1;
            if parts > PARTS {
                return Err(UploadError::TooManyFiles);
            }
            let Some(given) = part.file_name()? else {
                let is_token = part.name() == Some(TOKEN_FIELD);
                let value = part.read(FIELD_BYTES).await?;
                if is_token && permit.is_none() {
                    self.uploads.check_token(value.trim_ascii())?;
                    permit = Some(self.permit()?);
                }
                continue;
            };
            let Some(permit) = &permit else {
                return Err(UploadError::NoToken);
            };
            if given.is_empty() {
                // The part of an input without a chosen file is empty.
                if !part.read(FIELD_BYTES).await?.is_empty() {
                    return Err(UploadError::MalformedForm("a file has no name"));
                }
                continue;
            }
            progress.file = Some(given.to_owned());
            let name = name_in(&form.folder, given)?;
            list_bytes += path_in(form, &name).len() + ENTRY_BYTES;
            if list_bytes > LIST_BYTES {
                return Err(UploadError::TooManyFiles);
            }
            let file = self.begin_file(&name, Arc::clone(permit)).await?;
            let route = self.ledger.route().cloned();
            let file = receive(part, file, max_bytes, route).await?;
            received = Some((file, name));
        }
        if permit.is_none() {
            return Err(UploadError::NoToken);
        }
        if progress.stored.is_empty() {
            return Err(UploadError::NoFile);
        }
        content.skip_epilogue().await;
        Ok(())
    }

    fn permit(&self) -> Result<Arc<OwnedSemaphorePermit>, UploadError> {
        let permit = Arc::clone(&self.uploads.slots).try_acquire_owned();
        permit.map(Arc::new).map_err(|_| UploadError::Busy(UPLOADS))
    }

    /// Makes the temporary file of a file that is new.
    async fn begin_file(
        &self,
        name: &str,
        permit: Arc<OwnedSemaphorePermit>,
    ) -> Result<UploadFile, UploadError> {
        let (uploads, name) = (self.uploads.clone(), name.to_owned());
        let charges = Arc::clone(&self.charges);
        let begun = block(&self.ledger, move || {
            // Checked again at the end. A client should learn of it early.
            let current = uploads.folder.current_file(&name);
            let current = current.map_err(|error| UploadError::of_store(&error))?;
            if current.is_some() {
                return Err(UploadError::Exists);
            }
            let import = uploads.importer.begin()?;
            Ok(UploadFile::new(import, charges, permit))
        });
        begun.await?
    }

    /// Makes a whole file visible, if no other has its name.
    async fn store(&self, file: UploadFile, name: String) -> Result<StoredFile, UploadError> {
        let path = path_in(self.form, &name);
        let uploads = self.uploads.clone();
        let finished = block(&self.ledger, move || {
            file.finish(|import| {
                let size = import.size();
                let refuse = |exists| match exists {
                    true => Err(UploadError::Exists),
                    false => Ok(()),
                };
                let finished = uploads.importer.finish_named(import, &name, refuse);
                uploads.folder.forget(&ObjectKey::Named(name));
                finished.map(|_| size)
            })
            .unwrap_or_else(|| Err(UploadError::Store("the file is gone".into())))
        });
        let size = finished.await??;
        Ok(StoredFile { path, size })
    }
}

/// Returns the response to an upload by form: 303 to the folder for browsers, or else 201 with the list of files.
pub(crate) fn form_response(
    form: &Form,
    stored: &[StoredFile],
    is_browser: bool,
) -> Response<Vec<BodyPart>> {
    let path = form.path.as_str();
    if !is_browser {
        let json = serde_json::json!({ "stored": stored });
        return with_json(StatusCode::CREATED, path, &json);
    }
    let mut response = with_location(StatusCode::SEE_OTHER, path);
    let length = HeaderValue::from_static("0");
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length);
    response
}

/// Returns the path of a file in the form's folder, for a target.
fn path_in(form: &Form, name: &str) -> String {
    /// Characters that stay as they are (RFC 3986 section 2.3).
    const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    let segment = name.rsplit('/').next().unwrap_or_default();
    format!("{}{}", form.path, utf8_percent_encode(segment, ESCAPED))
}
