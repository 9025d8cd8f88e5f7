//! Uploads by the form of a folder's page: `multipart/form-data` to the folder.
//!
//! The form has the token in a field, since a browser sends no `Authorization` by itself. That is the protection from
//! forged requests of other sites too: they do not have the token, and no cookie stands for it.

use super::error::UploadError;
use super::form_content::{FORM_BYTES, FormContent, parse_boundary};
use super::receive::{UploadFile, receive};
use super::target::name_in;
use super::{UPLOADS, Uploads, block};
use crate::error::RequestError;
use crate::request_content::RequestContent;
use crate::store::{FILE_BYTES, ObjectKey};
use http::request::Parts;
use millpond_ledger::{Kind, Ledger};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Memory of an upload by form beside that of every request, in bytes: that of an upload, the parser, and the list of
/// the stored files with the response that is made of it.
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

/// A file that a form has stored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct StoredFile {
    /// Path of its target.
    pub(crate) path: String,
    /// Size, in bytes.
    pub(crate) size: u64,
}

/// The error of an upload by form. Files before the one that failed are stored.
#[derive(Debug)]
pub(crate) struct FormError {
    pub(crate) error: RequestError,
    /// Name of the file that failed, as the client has it.
    pub(crate) file: Option<String>,
    pub(crate) stored: Vec<StoredFile>,
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} files", self.error, self.stored.len())
    }
}

impl std::error::Error for FormError {}

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

    /// Path of the folder.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

/// Part of a form in which an upload is, for its error.
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
    /// [`FormError`], with the files that were stored before.
    pub(crate) async fn receive_form(
        &self,
        form: &Form,
        content: RequestContent,
        ledger: &Ledger,
    ) -> Result<Vec<StoredFile>, FormError> {
        let mut progress = Progress::default();
        let received = self
            .receive_files(form, content, ledger, &mut progress)
            .await;
        let Progress { file, stored } = progress;
        match received {
            Ok(()) => Ok(stored),
            Err(error) => Err(FormError {
                error,
                file,
                stored,
            }),
        }
    }

    async fn receive_files(
        &self,
        form: &Form,
        content: RequestContent,
        ledger: &Ledger,
        progress: &mut Progress,
    ) -> Result<(), RequestError> {
        let _parser = ledger.charge(Kind::Buffers, FORM_BYTES)?;
        let mut list = ledger.empty_charge(Kind::Response);
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
                let stored = self.store(form, file, name, ledger).await?;
                progress.stored.push(stored);
                progress.file = None;
            }
            let Some(mut part) = part else {
                break;
            };
            parts += 1;
            if parts > PARTS {
                return Err(UploadError::TooManyFiles.into());
            }
            let Some(given) = part.file_name()? else {
                let is_token = part.name() == Some(TOKEN_FIELD);
                let value = part.read(FIELD_BYTES).await?;
                if is_token && permit.is_none() {
                    self.check_token(value.trim_ascii())?;
                    permit = Some(self.permit()?);
                }
                continue;
            };
            let Some(permit) = &permit else {
                return Err(UploadError::NoToken.into());
            };
            if given.is_empty() {
                // The part of an input without a chosen file is empty.
                if !part.read(FIELD_BYTES).await?.is_empty() {
                    return Err(UploadError::MalformedForm("a file has no name").into());
                }
                continue;
            }
            progress.file = Some(given.to_owned());
            let name = name_in(&form.folder, given)?;
            list.grow(2 * (path_in(form, &name).len() + ENTRY_BYTES))?;
            if list.bytes() > 2 * LIST_BYTES {
                return Err(UploadError::TooManyFiles.into());
            }
            let file = self.begin_file(&name, Arc::clone(permit), ledger).await?;
            let route = ledger.handle().route().cloned();
            let file = receive(part, file, self.max_bytes, route).await?;
            received = Some((file, name));
        }
        if permit.is_none() {
            return Err(UploadError::NoToken.into());
        }
        if progress.stored.is_empty() {
            return Err(UploadError::NoFile.into());
        }
        content.skip_epilogue().await;
        Ok(())
    }

    fn permit(&self) -> Result<Arc<OwnedSemaphorePermit>, UploadError> {
        let permit = Arc::clone(&self.slots).try_acquire_owned();
        permit.map(Arc::new).map_err(|_| UploadError::Busy(UPLOADS))
    }

    /// Makes the temporary file of a file that is new.
    async fn begin_file(
        &self,
        name: &str,
        permit: Arc<OwnedSemaphorePermit>,
        ledger: &Ledger,
    ) -> Result<UploadFile, RequestError> {
        let charges = [
            ledger.charge(Kind::Buffers, super::UPLOAD_BYTES)?,
            ledger.charge(Kind::Files, FILE_BYTES)?,
        ];
        let (uploads, name) = (self.clone(), name.to_owned());
        let handle = ledger.handle();
        let begun = block(&handle, move || {
            // Checked again at the end. A client should learn of it early.
            let current = uploads.folder.current_file(&name);
            let current = current.map_err(|error| UploadError::of_store(&error))?;
            if current.is_some() {
                return Err(UploadError::Exists);
            }
            let import = uploads.importer.begin()?;
            Ok(UploadFile::new(import, charges, permit))
        });
        Ok(begun.await??)
    }

    /// Makes a whole file visible, if no other has its name.
    async fn store(
        &self,
        form: &Form,
        file: UploadFile,
        name: String,
        ledger: &Ledger,
    ) -> Result<StoredFile, UploadError> {
        let path = path_in(form, &name);
        let uploads = self.clone();
        let handle = ledger.handle();
        let finished = block(&handle, move || {
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
