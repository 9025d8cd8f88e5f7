//! The head of an upload of either kind, as it is checked before the content is read.

use super::error::UploadError;
use super::form::Form;
use super::target::UploadTarget;
use super::{Upload, Uploads};
use http::Method;
use http::header;
use http::request::Parts;

/// An upload whose head is checked, by its kind.
pub(crate) enum CheckedUpload {
    /// The content is one file.
    File(Upload),
    /// The content is a form with files.
    Form(Form),
}

impl CheckedUpload {
    /// Checks the head of an upload: first the token, so that nothing is revealed without it. A form may have the token in
    /// its content.
    ///
    /// # Errors
    /// [`UploadError`].
    pub(crate) fn check(
        uploads: &Uploads,
        head: &Parts,
        mount_path: &str,
    ) -> Result<Self, UploadError> {
        let is_authorized = match uploads.authorize(&head.headers) {
            Err(UploadError::NoToken) if head.method == Method::POST => false,
            authorized => authorized.map(|()| true)?,
        };
        let target = UploadTarget::parse(&head.method, &head.uri, mount_path);
        let target = target.unwrap_or(Err(UploadError::Name))?;
        if head.headers.contains_key(header::CONTENT_RANGE) {
            return Err(UploadError::PartialContent);
        }
        let codings = head.headers.get_all(header::CONTENT_ENCODING).iter();
        if !codings.into_iter().all(|coding| coding == "identity") {
            return Err(UploadError::ContentCoding);
        }
        match target {
            UploadTarget::File(target) => uploads.check_file(head, target).map(CheckedUpload::File),
            UploadTarget::Folder(folder) => {
                Form::parse(head, folder, is_authorized).map(CheckedUpload::Form)
            }
        }
    }
}
