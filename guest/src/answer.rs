//! The response to one request, top-down: method, target resource, object, access, representation, conditions, range.

use crate::conditions::{self, EntityTag, Evaluation, Validators};
use crate::digest::digests;
use crate::fields;
use crate::imports::{
    Imports, Info, InputStream, Key, Object, SettingsError, StoreError, Timestamp, VariantInfo,
    Version,
};
use crate::listing;
use crate::message::{Cacheability, Part, Request, Response};
use crate::multipart::multipart;
use crate::negotiate;
use crate::range::{self, Range, Selection};
use crate::settings::EffectiveSettings;
use crate::target_resource::{FileName, FolderName, TargetError, TargetResource};
use http::{HeaderName, StatusCode, header};
use millpond_format::signature::{self, Denied};
use millpond_format::{Access, ContentId};
use serde::Serialize;

/// Returns the response to a request: `handle` of `wit/media-serve.wit`.
///
/// Failures are responses with an error status. No input causes a panic.
#[must_use]
pub fn handle<I: Imports>(request: &Request<'_>, imports: &I) -> Response<InputStream<I>> {
    // A response by the defaults could disclose more than the settings allow.
    let Ok(settings) = EffectiveSettings::read(imports) else {
        return settings_unavailable();
    };
    let response = match request.method {
        "GET" | "HEAD" => respond(request, imports, &settings)
            .unwrap_or_else(|refusal| refusal.into_response(request, &settings))
            .for_method(request.method),
        "OPTIONS" => {
            let response = Response::new(StatusCode::NO_CONTENT)
                .with(header::ALLOW, allowed_methods(request, &settings));
            fields::preflight(response, request, &settings)
        }
        _ => Response::error(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
            .with(header::ALLOW, allowed_methods(request, &settings)),
    };
    with_vary(
        fields::cross_origin(response, request, &settings),
        &settings,
    )
}

const ALLOWED_METHODS: &str = "GET, HEAD, OPTIONS";

/// Returns the methods that the target allows. The host accepts uploads itself, where the settings say so.
fn allowed_methods(request: &Request<'_>, settings: &EffectiveSettings) -> &'static str {
    let (path, _) = request.path_and_query();
    if !settings.uploads {
        return ALLOWED_METHODS;
    }
    if path == "/api/media" {
        return "PUT, OPTIONS";
    }
    match TargetResource::parse(path, &settings.mount_path) {
        Ok(TargetResource::Named(_)) => "GET, HEAD, PUT, OPTIONS",
        Ok(TargetResource::Folder(_)) => "GET, HEAD, POST, OPTIONS",
        _ => ALLOWED_METHODS,
    }
}

/// Request fields that a response with media depends on.
const VARY: &[&str] = &[
    "range",
    "if-range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "accept",
    "accept-encoding",
    "origin",
    "want-repr-digest",
    "want-content-digest",
];

/// Adds `origin` to `Vary` if responses depend on the origin.
fn with_vary<S>(mut response: Response<S>, settings: &EffectiveSettings) -> Response<S> {
    if fields::vary_by_origin(settings) {
        match response
            .headers
            .iter_mut()
            .find(|(name, _)| *name == header::VARY)
        {
            Some((_, value)) => value.push_str(", origin"),
            None => response = response.with(header::VARY, "origin"),
        }
    }
    response
}

fn respond<I: Imports>(
    request: &Request<'_>,
    imports: &I,
    settings: &EffectiveSettings,
) -> Result<Response<InputStream<I>>, Refusal> {
    match TargetResource::parse(request.path_with_query, &settings.mount_path)? {
        TargetResource::Media(id) => {
            let (object, info) = open_content(request, imports, &id)?;
            let addressing = Addressing::Content(&id);
            let selected = SelectedRepresentation::select(
                request, imports, object, info, addressing, settings,
            )?;
            selected.into_response(request, &id.to_string(), settings)
        }
        TargetResource::Info(id) => {
            let (_, info) = open_content(request, imports, &id)?;
            describe(request, &id, &info)
        }
        TargetResource::Named(name) => match named(request, imports, &name, settings) {
            Err(Refusal::Store(StoreError::NotFound))
                if settings.browse
                    // The legacy form has the name in the query, so no reference is relative to it.
                    && request.path_and_query().0 != settings.mount_path
                    && listing::is_folder(imports, &FolderName::from(&name))? =>
            {
                Ok(redirect_to_folder(request))
            }
            responded => responded,
        },
        TargetResource::Folder(_) if !settings.browse => {
            Err(Refusal::Target(TargetError::NoSuchMedia))
        }
        TargetResource::Folder(folder) => {
            match named(request, imports, &folder.file(INDEX), settings) {
                Err(Refusal::Store(StoreError::NotFound)) => {
                    Ok(listing::listing(request, imports, &folder, settings)?)
                }
                responded => responded,
            }
        }
        TargetResource::Root | TargetResource::Asset(_) if !settings.browse => {
            Err(Refusal::Target(TargetError::NoSuchResource))
        }
        TargetResource::Root => Ok(redirect(format!(
            "{}/",
            settings.mount_path.trim_end_matches('/')
        ))),
        TargetResource::Asset(asset) => {
            listing::asset(request, asset).ok_or(Refusal::PreconditionFailed)
        }
    }
}

/// File that is served in place of a folder's listing.
const INDEX: &str = "index.html";

/// Returns the response for a named file.
fn named<I: Imports>(
    request: &Request<'_>,
    imports: &I,
    name: &FileName,
    settings: &EffectiveSettings,
) -> Result<Response<InputStream<I>>, Refusal> {
    let object = imports.open(&name.key())?;
    let info = object.info();
    // Private media is served by its content id only. By its name it does not exist.
    if info.access == Access::Private {
        return Err(Refusal::Store(StoreError::NotFound));
    }
    let addressing = Addressing::Named(name);
    let selected =
        SelectedRepresentation::select(request, imports, object, info, addressing, settings)?;
    selected.into_response(request, name.last_segment(), settings)
}

/// Redirects a folder's target without a `/` at its end, so that relative references work.
fn redirect_to_folder<S>(request: &Request<'_>) -> Response<S> {
    let (path, query) = request.path_and_query();
    let segment = path.rsplit('/').next().unwrap_or_default();
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    // A relative reference cannot lead to another origin.
    redirect(format!("./{segment}/{query}"))
}

/// A permanent redirect (RFC 9110 section 15.4.9). Caches have to validate it: a file may take the folder's place.
fn redirect<S>(location: String) -> Response<S> {
    Response::new(StatusCode::PERMANENT_REDIRECT)
        .with(header::CACHE_CONTROL, "no-cache")
        .with(header::CONTENT_LENGTH, "0")
        .with(header::LOCATION, location)
}

/// Opens media by its content id, if the request may read it.
///
/// If signing keys are configured, missing media and private media both return 401. An unauthorised client cannot tell
/// them apart.
fn open_content<I: Imports>(
    request: &Request<'_>,
    imports: &I,
    id: &ContentId,
) -> Result<(I::Object, Info), Refusal> {
    let opened = imports.open(&Key::Content(id.to_string())).map(|object| {
        let info = object.info();
        (object, info)
    });
    let is_public = matches!(&opened, Ok((_, info)) if info.access == Access::Public);
    if !is_public && matches!(opened, Ok(_) | Err(StoreError::NotFound)) {
        let keys = imports.signing_keys()?;
        if keys.is_empty() {
            return Err(Refusal::Store(StoreError::NotFound));
        }
        let (path, query) = request.path_and_query();
        let now = request.received.seconds();
        signature::check(path, query, now, request.client, &keys)?;
    }
    Ok(opened?)
}

/// How a request addresses an object.
#[derive(Clone, Copy)]
enum Addressing<'a> {
    Content(&'a ContentId),
    Named(&'a FileName),
}

/// The selected representation (RFC 9110 section 3.2), with its validators and cache directives.
struct SelectedRepresentation<O> {
    object: O,
    info: Info,
    /// Media type. The type of a variant is from the record of the original.
    media_type: String,
    content_coding: Option<String>,
    validators: Validators,
    cache_control: String,
    /// None for private media, which the host must not cache.
    cacheability: Option<Cacheability>,
    /// Fields that `Vary` lists.
    vary: Vec<HeaderName>,
}

impl<O: Object> SelectedRepresentation<O> {
    /// Selects among the representations of a resource.
    fn select<I: Imports<Object = O>>(
        request: &Request<'_>,
        imports: &I,
        original: O,
        info: Info,
        addressing: Addressing<'_>,
        settings: &EffectiveSettings,
    ) -> Result<Self, Refusal> {
        let variants = original.variants();
        let vary = negotiate::dimensions(&info, &variants);
        let variant = negotiate::choose(request, &info, &variants);
        let access = info.access;
        // Skip a variant that has disappeared, or that is private while the original is public.
        let opened = variant.and_then(|variant| {
            let object = imports.open(&variant.key).ok()?;
            let info = object.info();
            let is_allowed = info.access == Access::Public || access == Access::Private;
            is_allowed.then_some((object, info, variant))
        });
        let validators = match &opened {
            Some((_, of_variant, variant)) => {
                let variant = Some((*variant, info.media_type.as_str()));
                validators(addressing, of_variant, variant, request.received)
            }
            None => validators(addressing, &info, None, request.received),
        };
        let (object, info, variant) = match opened {
            Some((object, info, variant)) => (object, info, Some(variant)),
            None => (original, info, None),
        };
        let media_type = variant.map_or_else(
            || info.media_type.clone(),
            |variant| variant.media_type.clone(),
        );
        let max_age_ms = match addressing {
            Addressing::Content(_) => 3_600_000,
            Addressing::Named(_) => 1_000,
        };
        let content_coding = match (variant, addressing) {
            (Some(variant), _) => variant.content_coding.clone(),
            (None, Addressing::Named(name)) => name.content_coding(&media_type).map(str::to_owned),
            (None, Addressing::Content(_)) => None,
        };
        Ok(SelectedRepresentation {
            validators,
            cache_control: cache_control(addressing, access, settings),
            cacheability: (access == Access::Public).then_some(Cacheability {
                vary: VARY,
                max_age_ms,
            }),
            content_coding,
            media_type,
            vary,
            object,
            info,
        })
    }

    /// Makes the response: the representation or part of it, or 304 or 412 if a condition says so.
    ///
    /// `file_name` is the default name of a download.
    fn into_response(
        self,
        request: &Request<'_>,
        file_name: &str,
        settings: &EffectiveSettings,
    ) -> Result<Response<O::InputStream>, Refusal> {
        let range_applies = match conditions::evaluate(request, &self.validators) {
            Evaluation::Proceed { range_applies } => range_applies,
            Evaluation::NotModified => {
                let response = Response::new(StatusCode::NOT_MODIFIED);
                return Ok(self.with_validators(response));
            }
            Evaluation::PreconditionFailed => return Err(Refusal::PreconditionFailed),
        };
        let selection = if range_applies && request.method == "GET" {
            range::select(request, self.info.length)
        } else {
            Selection::Whole
        };
        let whole = Range {
            offset: 0,
            length: self.info.length,
        };
        let (_, query) = request.path_and_query();
        let response = match selection {
            Selection::Whole => self.single(StatusCode::OK, whole, request)?,
            Selection::One(range) => {
                let last = range.offset + range.length - 1;
                let content_range = format!("bytes {}-{last}/{}", range.offset, self.info.length);
                self.single(StatusCode::PARTIAL_CONTENT, range, request)?
                    .with(header::CONTENT_RANGE, content_range)
            }
            Selection::Several(ranges) => self.several(&ranges, request)?,
            Selection::Unsatisfiable => {
                return Err(Refusal::RangeNotSatisfiable {
                    length: self.info.length,
                });
            }
        };
        let response = response.with(header::ACCEPT_RANGES, "bytes");
        let response = digests(response, request, &self.info);
        let response = fields::content_security_policy(response, &self.media_type, settings);
        Ok(fields::disposition(response, query, file_name))
    }

    fn single(
        &self,
        status: StatusCode,
        range: Range,
        request: &Request<'_>,
    ) -> Result<Response<O::InputStream>, Refusal> {
        let mut response = self
            .with_validators(Response::new(status))
            .with(header::CONTENT_TYPE, self.media_type.as_str())
            .with(header::CONTENT_LENGTH, range.length.to_string());
        if request.method == "GET" && range.length > 0 {
            response.body.push(Part::Stream {
                source: self.object.read(range.offset, range.length)?,
                length: range.length,
            });
        }
        Ok(response)
    }

    fn several(
        &self,
        ranges: &[Range],
        request: &Request<'_>,
    ) -> Result<Response<O::InputStream>, Refusal> {
        let read = |range: Range| self.object.read(range.offset, range.length);
        let (media_type, length) = (&self.media_type, self.info.length);
        let multipart = multipart(ranges, media_type, length, request.random, read)?;
        let mut response = self
            .with_validators(Response::new(StatusCode::PARTIAL_CONTENT))
            .with(header::CONTENT_TYPE, multipart.media_type)
            .with(header::CONTENT_LENGTH, multipart.length.to_string());
        response.body = multipart.parts;
        // The boundary must be unpredictable. A stored response would disclose it.
        response.cacheability = None;
        Ok(response)
    }

    /// Adds the fields that a 304 has in common with the 200 (RFC 9110 section 15.4.5).
    fn with_validators<S>(&self, response: Response<S>) -> Response<S> {
        let mut response = response
            .with(header::ETAG, self.validators.etag.field_value())
            .with(header::CACHE_CONTROL, self.cache_control.as_str());
        if let Some(modified) = self.validators.last_modified {
            response = response.with(header::LAST_MODIFIED, httpdate::fmt_http_date(modified));
        }
        if let Some(coding) = &self.content_coding
            && response.status != StatusCode::NOT_MODIFIED
        {
            response = response.with(header::CONTENT_ENCODING, coding.as_str());
        }
        if !self.vary.is_empty() {
            let names: Vec<&str> = self.vary.iter().map(HeaderName::as_str).collect();
            response = response.with(header::VARY, names.join(", "));
        }
        response.cacheability = self.cacheability;
        response
    }
}

/// Returns the validators of a representation.
///
/// The tag of media by content id is its digest, and that of a named file is its version. The tag of a named variant also
/// contains its coding, and its type if that is not the original's: two files may have equal bytes.
///
/// A modification time after the request is left out. `Last-Modified` must not be later than `Date` (RFC 9110 section
/// 8.8.2.1), and the time of the response would validate nothing.
fn validators(
    addressing: Addressing<'_>,
    info: &Info,
    variant: Option<(&VariantInfo, &str)>,
    received: Timestamp,
) -> Validators {
    let key = variant.map(|(variant, _)| &variant.key);
    let etag = match (addressing, key) {
        (_, Some(Key::Content(id))) => EntityTag::strong(id),
        (Addressing::Content(id), None) => EntityTag::strong(&id.to_string()),
        (Addressing::Content(_), Some(Key::Named(_))) | (Addressing::Named(_), _) => {
            let of_variant = variant.map_or_else(String::new, |(variant, original_type)| {
                let other_type =
                    (variant.media_type != original_type).then_some(&variant.media_type);
                let parts = [other_type, variant.content_coding.as_ref()];
                let parts = parts.into_iter().flatten();
                parts.map(|part| format!("-{part}")).collect()
            });
            file_etag(info, &of_variant)
        }
    };
    let is_named = matches!(
        (addressing, key),
        (Addressing::Named(_), None | Some(Key::Named(_)))
    );
    let is_past = |modified: &Timestamp| modified.seconds() <= received.seconds();
    let modified = info.modified.filter(|_| is_named).filter(is_past);
    Validators {
        etag,
        last_modified: modified.map(Timestamp::truncated_to_seconds),
    }
}

/// Returns the tag of a named file. Length and modification time make a weak tag only: a tool that copies files may set
/// both (RFC 9110 section 8.8.1).
fn file_etag(info: &Info, of_variant: &str) -> EntityTag {
    match (&info.version, &info.digest) {
        (Some(Version::Strong(version)), _) | (None, Some(version)) => {
            EntityTag::strong(&format!("{version}{of_variant}"))
        }
        (Some(Version::Weak(version)), _) => EntityTag::weak(&format!("{version}{of_variant}")),
        (None, None) => {
            let modified = info.modified.map_or(0, |modified| modified.0);
            EntityTag::weak(&format!("{:x}-{modified:x}{of_variant}", info.length))
        }
    }
}

fn cache_control(
    addressing: Addressing<'_>,
    access: Access,
    settings: &EffectiveSettings,
) -> String {
    match addressing {
        // The client with the signature may cache it; shared caches may not.
        Addressing::Content(_) if access == Access::Private => "private, max-age=300".into(),
        Addressing::Content(_) => settings.cache_content.clone(),
        Addressing::Named(_) => settings.cache_files.clone(),
    }
}

/// Body of `/api/media/<id>/info`. It has public metadata only, and neither a path nor a key of the store.
#[derive(Serialize)]
struct Description<'a> {
    id: &'a str,
    r#type: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
}

fn describe<S>(request: &Request<'_>, id: &ContentId, info: &Info) -> Result<Response<S>, Refusal> {
    let created = info.created.map(|created| {
        humantime::format_rfc3339_seconds(created.truncated_to_seconds()).to_string()
    });
    let cache_control = match info.access {
        Access::Public => "public, no-cache",
        Access::Private => "private, no-cache",
    };
    // The description is that of a record. Media that was lost and added again has another creation time.
    let added = info.created.map_or(0, |created| created.0);
    let validators = Validators {
        etag: EntityTag::strong(&format!("{id}-{added:x}")),
        last_modified: None,
    };
    let response = |status| {
        Response::new(status)
            .with(header::ETAG, validators.etag.field_value())
            .with(header::CACHE_CONTROL, cache_control)
    };
    match conditions::evaluate(request, &validators) {
        Evaluation::PreconditionFailed => Err(Refusal::PreconditionFailed),
        Evaluation::NotModified => Ok(response(StatusCode::NOT_MODIFIED)),
        Evaluation::Proceed { .. } => Ok(response(StatusCode::OK).with_json(&Description {
            id: &id.to_string(),
            r#type: &info.media_type,
            size: info.length,
            created,
        })),
    }
}

/// Reason why a request for media gets an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Target(TargetError),
    Store(StoreError),
    Settings(SettingsError),
    Denied(Denied),
    PreconditionFailed,
    RangeNotSatisfiable { length: u64 },
}

impl Refusal {
    fn into_response<S>(self, request: &Request<'_>, settings: &EffectiveSettings) -> Response<S> {
        let (status, message) = self.status_and_message();
        let response = match listing::prefers_page(request, settings) {
            true => listing::error_page(status, message),
            false => Response::error(status, message),
        };
        let response = match settings.browse {
            true => response.with(header::VARY, "accept"),
            false => response,
        };
        match self {
            Refusal::Target(TargetError::NoSuchMedia) | Refusal::Store(StoreError::NotFound) => {
                missing(response, settings)
            }
            Refusal::Store(StoreError::Busy) => response.with(header::RETRY_AFTER, "1"),
            Refusal::Denied(Denied::Unsigned) => {
                response.with(header::WWW_AUTHENTICATE, "Signed-URL")
            }
            Refusal::RangeNotSatisfiable { length } => response
                .with(header::CONTENT_RANGE, format!("bytes */{length}"))
                .with(header::ACCEPT_RANGES, "bytes"),
            _ => response,
        }
    }

    fn status_and_message(self) -> (StatusCode, &'static str) {
        match self {
            Refusal::Target(TargetError::Malformed) => (StatusCode::BAD_REQUEST, "Malformed path"),
            Refusal::Target(TargetError::NoSuchResource) => (StatusCode::NOT_FOUND, "Not found"),
            Refusal::Target(TargetError::NoSuchMedia) | Refusal::Store(StoreError::NotFound) => {
                (StatusCode::NOT_FOUND, "Media not found")
            }
            Refusal::Store(StoreError::Busy) => (StatusCode::SERVICE_UNAVAILABLE, "Store is busy"),
            Refusal::Store(StoreError::Failed | StoreError::OutOfBounds) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "Stream error")
            }
            Refusal::Settings(SettingsError) => {
                (StatusCode::INTERNAL_SERVER_ERROR, SETTINGS_UNAVAILABLE)
            }
            Refusal::Denied(Denied::Unsigned) => (
                StatusCode::UNAUTHORIZED,
                "Authentication required for private media",
            ),
            Refusal::Denied(Denied::Invalid) => (StatusCode::FORBIDDEN, "Signature is not valid"),
            Refusal::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "Precondition failed"),
            Refusal::RangeNotSatisfiable { .. } => {
                (StatusCode::RANGE_NOT_SATISFIABLE, "Range not satisfiable")
            }
        }
    }
}

const SETTINGS_UNAVAILABLE: &str = "Settings cannot be read";

fn settings_unavailable<S>() -> Response<S> {
    Response::error(StatusCode::INTERNAL_SERVER_ERROR, SETTINGS_UNAVAILABLE)
}

/// Makes the response for media that does not exist cacheable for a moment, by the host as well. Repeated requests for
/// missing media then cost little.
fn missing<S>(mut response: Response<S>, settings: &EffectiveSettings) -> Response<S> {
    if settings.negative_ttl_s > 0 {
        let value = format!("public, max-age={}", settings.negative_ttl_s);
        for (name, field) in &mut response.headers {
            if *name == header::CACHE_CONTROL {
                field.clone_from(&value);
            }
        }
        response.cacheability = Some(Cacheability {
            vary: &["accept", "origin"],
            max_age_ms: settings.negative_ttl_s.saturating_mul(1000),
        });
    }
    response
}

impl From<TargetError> for Refusal {
    fn from(error: TargetError) -> Self {
        Refusal::Target(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Refusal::Store(error)
    }
}

impl From<SettingsError> for Refusal {
    fn from(error: SettingsError) -> Self {
        Refusal::Settings(error)
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Refusal::Denied(denied)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::settings::IMMUTABLE;
    use millpond_format::listing::{Entry, EntryKind, ListQuery, Listing};
    use millpond_format::settings::{self, SIGNING_KEYS, Settings};
    use proptest::prelude::*;

    const PRIVATE_ID: &str = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const AVIF_ID: &str = "2123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const HALF_ID: &str = "3123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const PRIVATE_AVIF_ID: &str =
        "4123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// Setting that makes all settings unreadable.
    const UNREADABLE: (&str, &str) = ("", "");

    /// Time of every request: the second in which every object was modified.
    const RECEIVED: Timestamp = Timestamp(784_111_777_000_000_000);

    /// A store whose streams are the requested ranges.
    struct FakeStore {
        length: u64,
        settings: &'static [(&'static str, &'static str)],
    }

    struct FakeObject {
        length: u64,
        media_type: &'static str,
        variants: Vec<VariantInfo>,
        access: Access,
        /// Whether the version is strong, and its text.
        version: Option<(bool, &'static str)>,
    }

    impl Imports for FakeStore {
        type Object = FakeObject;

        fn open(&self, key: &Key) -> Result<FakeObject, StoreError> {
            let media_type = match key {
                Key::Content(id) if id == ID => "image/gif",
                Key::Content(id) if id == PRIVATE_ID => "image/gif",
                Key::Content(id) if id == AVIF_ID || id == PRIVATE_AVIF_ID => "image/avif",
                Key::Content(id) if id == HALF_ID => "image/gif",
                Key::Named(name) if name == "private.gif" => "image/gif",
                Key::Named(name) if name.starts_with("film") => "video/mp4",
                Key::Named(name) if name.starts_with("logo.svg") => "image/svg+xml",
                Key::Named(name) if name.ends_with(".mp4") => "video/mp4",
                Key::Named(name) if name == "busy" => return Err(StoreError::Busy),
                Key::Named(name) if name == "broken" => return Err(StoreError::Failed),
                _ => return Err(StoreError::NotFound),
            };
            let length = self.length;
            let variant = |key, media_type: &str, coding: Option<&str>| VariantInfo {
                key,
                media_type: media_type.into(),
                content_coding: coding.map(str::to_owned),
            };
            Ok(FakeObject {
                length,
                media_type,
                version: match key {
                    Key::Named(name) if name == "untold.mp4" => None,
                    Key::Named(name) if name == "weak.mp4" => Some((false, "w1")),
                    _ => Some((true, "s\"1")),
                },
                access: match key {
                    Key::Content(id) if id == PRIVATE_ID || id == PRIVATE_AVIF_ID => {
                        Access::Private
                    }
                    Key::Named(name) if name == "private.gif" => Access::Private,
                    _ => Access::Public,
                },
                variants: match key {
                    Key::Content(id) if id == ID => {
                        vec![variant(Key::Content(AVIF_ID.into()), "image/avif", None)]
                    }
                    Key::Content(id) if id == HALF_ID => {
                        let key = Key::Content(PRIVATE_AVIF_ID.into());
                        vec![variant(key, "image/avif", None)]
                    }
                    Key::Named(name) if name == "film" => {
                        let of_type = |key: &str, media_type, coding| {
                            variant(Key::Named(key.into()), media_type, coding)
                        };
                        vec![
                            of_type("film-odd", "video/\"x y\"", None),
                            of_type("film-webm", "video/webm", None),
                            of_type("film-br", "video/mp4", Some("br")),
                            of_type("film-webm-br", "video/webm", Some("br")),
                            variant(Key::Content(AVIF_ID.into()), "image/avif", None),
                        ]
                    }
                    Key::Named(name) if name == "logo.svg" => {
                        let key = Key::Named("logo.svg.br".into());
                        vec![variant(key, "image/svg+xml", Some("br"))]
                    }
                    _ => Vec::new(),
                },
            })
        }

        fn list(&self, folder: &str, query: &ListQuery) -> Result<Listing, StoreError> {
            let file = |name: &str| Entry {
                name: name.into(),
                modified_ns: Some(784_111_777_000_000_001),
                kind: EntryKind::File {
                    length: 1000,
                    media_type: "image/gif".into(),
                },
            };
            match folder {
                "" => Ok(Listing {
                    entries: vec![file("a.gif"), file("<b>.gif")],
                    total: 3,
                    has_more: query.after.is_none(),
                }),
                "album" => Ok(Listing::default()),
                "busy-folder" => Err(StoreError::Busy),
                _ => Err(StoreError::NotFound),
            }
        }

        fn settings(&self) -> Result<Settings, SettingsError> {
            let settings = self.settings.iter();
            let environment: Vec<_> = settings
                .map(|(key, value)| (settings::variable(key), (*value).to_owned()))
                .collect();
            match self.settings.contains(&UNREADABLE) {
                true => Err(SettingsError),
                false => Ok(Settings::from_environment(&environment).unwrap()),
            }
        }

        fn signing_keys(&self) -> Result<Vec<signature::SigningKey>, SettingsError> {
            let mut settings = self.settings.iter();
            let keys = settings.find(|(key, _)| *key == SIGNING_KEYS);
            Ok(settings::parse_signing_keys(keys.map_or("", |(_, keys)| keys)).unwrap())
        }
    }

    impl Object for FakeObject {
        type InputStream = (u64, u64);

        fn info(&self) -> Info {
            Info {
                length: self.length,
                media_type: self.media_type.into(),
                modified: Some(Timestamp(784_111_777_000_000_001)),
                created: Some(Timestamp(784_111_777_000_000_001)),
                digest: self.media_type.starts_with("image/").then(|| ID.to_owned()),
                version: self.version.map(|(is_strong, version)| match is_strong {
                    true => Version::Strong(version.to_owned()),
                    false => Version::Weak(version.to_owned()),
                }),
                access: self.access,
            }
        }

        fn variants(&self) -> Vec<VariantInfo> {
            self.variants.clone()
        }

        fn read(&self, offset: u64, length: u64) -> Result<(u64, u64), StoreError> {
            Ok((offset, length))
        }
    }

    fn ask(method: &str, target: &str, fields: &[(&str, &str)]) -> Response<(u64, u64)> {
        ask_of(
            &FakeStore {
                length: 1000,
                settings: &[],
            },
            method,
            target,
            fields,
        )
    }

    fn ask_of(
        store: &FakeStore,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Response<(u64, u64)> {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect();
        let request = Request {
            received: RECEIVED,
            ..Request::from_head(method, target, &fields)
        };
        handle(&request, store)
    }

    fn field<'a, S>(response: &'a Response<S>, name: &str) -> Option<&'a str> {
        let mut values = response.headers.iter().filter(|(n, _)| n.as_str() == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} stands twice");
        value
    }

    fn json<S>(response: &Response<S>) -> serde_json::Value {
        let [Part::Bytes(json)] = &response.body[..] else {
            return serde_json::Value::Null;
        };
        serde_json::from_slice(json).unwrap()
    }

    #[test]
    fn media_by_content() {
        let target = format!("/api/media/{ID}");
        let response = ask("GET", &target, &[]);
        assert_eq!(response.status, 200);
        assert_eq!(
            response.body,
            [Part::Stream {
                source: (0, 1000),
                length: 1000
            }]
        );
        let etag = format!("\"{ID}\"");
        for (name, value) in [
            ("content-type", Some("image/gif")),
            ("content-length", Some("1000")),
            ("accept-ranges", Some("bytes")),
            ("etag", Some(etag.as_str())),
            ("cache-control", Some(IMMUTABLE)),
            ("x-content-type-options", Some("nosniff")),
            ("last-modified", None),
            ("content-range", None),
        ] {
            assert_eq!(field(&response, name), value, "{name}");
        }
        assert_eq!(response.cacheability.unwrap().vary, VARY);

        let not_modified = ask("GET", &target, &[("if-none-match", &etag)]);
        assert_eq!(not_modified.status, 304);
        assert!(not_modified.body.is_empty());
        assert_eq!(field(&not_modified, "etag"), Some(etag.as_str()));
        assert_eq!(field(&not_modified, "cache-control"), Some(IMMUTABLE));
        assert_eq!(field(&not_modified, "content-length"), None);
    }

    #[test]
    fn media_by_name() {
        let response = ask("GET", "/media/clip.mp4", &[]);
        assert_eq!(response.status, 200);
        let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(field(&response, "last-modified"), Some(modified));
        assert_eq!(field(&response, "etag"), Some("\"s1\""));
        assert_eq!(field(&response, "cache-control"), Some("public, no-cache"));
        let since = [("if-modified-since", modified)];
        assert_eq!(ask("GET", "/media/clip.mp4", &since).status, 304);
    }

    /// Length and modification time made a strong tag, although two contents may have both in common. A client then
    /// joined parts of two contents.
    #[test]
    fn a_tag_that_two_contents_may_share_was_strong() {
        for (target, tag) in [
            ("/media/weak.mp4", "W/\"w1\""),
            ("/media/untold.mp4", "W/\"3e8-ae1b981bc490a01\""),
        ] {
            let response = ask("GET", target, &[]);
            assert_eq!(field(&response, "etag"), Some(tag));
            let range = ("range", "bytes=10-19");
            assert_eq!(ask("GET", target, &[range]).status, 206);
            for tag in [tag, &tag[2..]] {
                let resumed = ask("GET", target, &[range, ("if-range", tag)]);
                assert_eq!(resumed.status, 200, "{tag}");
                assert_eq!(ask("GET", target, &[("if-match", tag)]).status, 412);
                let has_it = ask("GET", target, &[("if-none-match", tag)]);
                assert_eq!(has_it.status, 304, "{tag}");
            }
        }
    }

    #[test]
    fn a_range_is_for_get_only_and_under_if_range() {
        let range = ("range", "bytes=10-19");
        let response = ask("GET", "/media/clip.mp4", &[range]);
        assert_eq!(response.status, 206);
        assert_eq!(field(&response, "content-range"), Some("bytes 10-19/1000"));
        assert_eq!(field(&response, "content-length"), Some("10"));
        assert_eq!(
            response.body,
            [Part::Stream {
                source: (10, 10),
                length: 10
            }]
        );
        let head = ask("HEAD", "/media/clip.mp4", &[range]);
        assert_eq!(head.status, 200);
        assert_eq!(field(&head, "content-length"), Some("1000"));
        assert!(head.body.is_empty());
        let changed = ask("GET", "/media/clip.mp4", &[range, ("if-range", "\"old\"")]);
        assert_eq!(changed.status, 200);
        assert_eq!(field(&changed, "content-length"), Some("1000"));
    }

    #[test]
    fn an_unsatisfiable_range_tells_the_length_and_is_not_kept() {
        let response = ask("GET", "/media/clip.mp4", &[("range", "bytes=1000-")]);
        assert_eq!(response.status, 416);
        assert_eq!(field(&response, "content-range"), Some("bytes */1000"));
        assert_eq!(field(&response, "cache-control"), Some("no-store"));
        assert_eq!(response.cacheability, None);
    }

    #[test]
    fn an_empty_file_is_an_answer() {
        let empty = FakeStore {
            length: 0,
            settings: &[],
        };
        let response = ask_of(&empty, "GET", "/media/clip.mp4", &[]);
        assert_eq!(response.status, 200);
        assert_eq!(field(&response, "content-length"), Some("0"));
        assert!(response.body.is_empty());
        let range = [("range", "bytes=0-")];
        let ranged = ask_of(&empty, "GET", "/media/clip.mp4", &range);
        assert_eq!(ranged, response);
    }

    #[test]
    fn the_description_of_media() {
        let target = format!("/api/media/{ID}/info");
        let expected = serde_json::json!({
            "id": ID,
            "type": "image/gif",
            "size": 1000,
            "created": "1994-11-06T08:49:37Z",
        });
        let response = ask("GET", &target, &[]);
        assert_eq!(json(&response), expected);
        let head = ask("HEAD", &target, &[]);
        assert!(head.body.is_empty());
        assert_eq!(
            field(&head, "content-length"),
            field(&response, "content-length")
        );
    }

    #[test]
    fn refusals_are_json_and_not_kept() {
        for (method, target, status, message) in [
            ("GET", "/nowhere", 404, "Not found"),
            ("GET", "/media/none.gif", 404, "Media not found"),
            ("GET", "/api/media/short", 404, "Media not found"),
            ("GET", "/media/%zz", 400, "Malformed path"),
            ("GET", "/media/busy", 503, "Store is busy"),
            ("GET", "/media/broken", 500, "Stream error"),
            ("POST", "/media/clip.mp4", 405, "Method not allowed"),
            ("get", "/media/clip.mp4", 405, "Method not allowed"),
        ] {
            let response = ask(method, target, &[]);
            assert_eq!(response.status, status, "{method} {target}");
            assert_eq!(json(&response), serde_json::json!({ "error": message }));
            // Only the response that media does not exist may be cached.
            let is_missing = message == "Media not found";
            let kept = if is_missing {
                "public, max-age=5"
            } else {
                "no-store"
            };
            assert_eq!(field(&response, "cache-control"), Some(kept));
            assert_eq!(field(&response, "x-content-type-options"), Some("nosniff"));
            assert_eq!(response.cacheability.is_some(), is_missing);
        }
        let refused = ask("DELETE", "/media/clip.mp4", &[]);
        assert_eq!(field(&refused, "allow"), Some(ALLOWED_METHODS));
        let options = ask("OPTIONS", "*", &[]);
        assert_eq!(options.status, 204);
        assert_eq!(field(&options, "allow"), Some(ALLOWED_METHODS));
        let mismatch = ask("GET", "/media/clip.mp4", &[("if-match", "\"b\"")]);
        assert_eq!(mismatch.status, 412);
    }

    proptest! {
        #[test]
        fn the_length_is_what_the_parts_add_up_to(
            length: u64,
            range in "bytes=[0-9]{0,4}-[0-9]{0,4}",
        ) {
            let store = FakeStore {
                length,
                settings: &[],
            };
            let response = ask_of(&store, "GET", "/media/clip.mp4", &[("range", &range)]);
            let sum: u64 = response.body.iter().map(|part| match part {
                Part::Bytes(bytes) => bytes.len() as u64,
                Part::Stream { length, .. } => *length,
            }).sum();
            let sum = sum.to_string();
            prop_assert_eq!(field(&response, "content-length"), Some(sum.as_str()));
        }
    }

    fn with_settings(settings: &'static [(&'static str, &'static str)]) -> FakeStore {
        FakeStore {
            length: 1000,
            settings,
        }
    }

    #[test]
    fn methods_of_uploads_are_allowed_where_the_host_accepts_them() {
        let uploads = with_settings(&[("uploads", "on")]);
        let preflight = [
            ("origin", "https://a.example"),
            ("access-control-request-method", "PUT"),
        ];
        for (target, allowed) in [
            ("/api/media", "PUT, OPTIONS"),
            ("/media/a.txt", "GET, HEAD, PUT, OPTIONS"),
            ("/media/?sort=name", "GET, HEAD, POST, OPTIONS"),
            ("/media/films/", "GET, HEAD, POST, OPTIONS"),
            ("/api/gallery.css", ALLOWED_METHODS),
            ("/api/media/none", ALLOWED_METHODS),
            ("/media/%zz", ALLOWED_METHODS),
            ("/other", ALLOWED_METHODS),
        ] {
            let response = ask_of(&uploads, "OPTIONS", target, &preflight);
            assert_eq!(field(&response, "allow"), Some(allowed), "{target}");
            // A script of another origin gets no leave to upload.
            let methods = field(&response, "access-control-allow-methods");
            assert_eq!(methods, Some(ALLOWED_METHODS));
            let refused = ask_of(&uploads, "DELETE", target, &[]);
            assert_eq!(field(&refused, "allow"), Some(allowed), "{target}");
            let off = ask_of(&with_settings(&[]), "OPTIONS", target, &preflight);
            assert_eq!(field(&off, "allow"), Some(ALLOWED_METHODS));
        }
    }

    #[test]
    fn several_ranges_are_parts_with_an_exact_length() {
        let range = [("range", "bytes=0-9,500-509")];
        let response = ask("GET", "/media/clip.mp4", &range);
        assert_eq!(response.status, 206);
        let media_type = field(&response, "content-type").unwrap();
        let boundary = media_type
            .strip_prefix("multipart/byteranges; boundary=")
            .unwrap();
        let mut content = Vec::new();
        for part in &response.body {
            match part {
                Part::Bytes(bytes) => content.extend_from_slice(bytes),
                Part::Stream { source, length } => {
                    assert_eq!(source.1, *length);
                    content.extend(std::iter::repeat_n(b'x', usize::try_from(*length).unwrap()));
                }
            }
        }
        let length = content.len().to_string();
        assert_eq!(field(&response, "content-length"), Some(length.as_str()));
        assert_eq!(field(&response, "content-range"), None);
        let ten = "x".repeat(10);
        let expected = format!(
            "--{boundary}\r\nContent-Type: video/mp4\r\nContent-Range: bytes 0-9/1000\r\n\r\n{ten}\r\n\
             --{boundary}\r\nContent-Type: video/mp4\r\nContent-Range: bytes 500-509/1000\r\n\r\n{ten}\r\n\
             --{boundary}--\r\n"
        );
        assert_eq!(String::from_utf8(content).unwrap(), expected);
    }

    #[test]
    fn digests_are_the_representation_s() {
        let target = format!("/api/media/{ID}");
        let value = "sha-256=:ASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4mrze8=:";
        for (method, fields, repr, content) in [
            ("GET", &[][..], Some(value), None),
            ("HEAD", &[], Some(value), None),
            ("GET", &[("range", "bytes=0-1")], Some(value), None),
            (
                "GET",
                &[("want-repr-digest", "sha-512=5, sha-256=0")],
                None,
                None,
            ),
            (
                "GET",
                &[("want-content-digest", "sha-256=3")],
                Some(value),
                Some(value),
            ),
            (
                "HEAD",
                &[("want-content-digest", "sha-256=3")],
                Some(value),
                None,
            ),
            (
                "GET",
                &[("want-content-digest", "sha-512=3")],
                Some(value),
                None,
            ),
            (
                "GET",
                &[("want-content-digest", "sha-256=3"), ("range", "bytes=0-1")],
                Some(value),
                None,
            ),
            ("GET", &[("if-none-match", "*")], None, None),
        ] {
            let response = ask(method, &target, fields);
            let got = (
                field(&response, "repr-digest"),
                field(&response, "content-digest"),
            );
            assert_eq!(got, (repr, content), "{method} {fields:?}");
        }
        let unknown = ask("GET", "/media/clip.mp4", &[]);
        assert_eq!(field(&unknown, "repr-digest"), None);
    }

    #[test]
    fn variants_have_their_own_tags_and_vary_stands_on_every_status() {
        let target = format!("/api/media/{ID}");
        let avif = ("accept", "image/avif,*/*");
        let etag = format!("\"{AVIF_ID}\"");
        let original = ask("GET", &target, &[]);
        assert_eq!(field(&original, "content-type"), Some("image/gif"));
        let variant = ask("GET", &target, &[avif]);
        assert_eq!(field(&variant, "content-type"), Some("image/avif"));
        assert_eq!(field(&variant, "etag"), Some(etag.as_str()));
        let part = ask("GET", &target, &[avif, ("range", "bytes=0-1")]);
        let not_modified = ask("GET", &target, &[avif, ("if-none-match", &etag)]);
        assert_eq!(
            (part.status.as_u16(), not_modified.status.as_u16()),
            (206, 304)
        );
        for response in [&original, &variant, &part, &not_modified] {
            assert_eq!(
                field(response, "vary"),
                Some("accept"),
                "{}",
                response.status
            );
        }
        let br = ("accept-encoding", "gzip, br");
        let coded = ask("GET", "/media/logo.svg", &[br]);
        let plain = ask("GET", "/media/logo.svg", &[]);
        assert_eq!(field(&coded, "content-encoding"), Some("br"));
        assert_eq!(field(&coded, "content-type"), Some("image/svg+xml"));
        assert_eq!(field(&plain, "content-encoding"), None);
        assert_ne!(field(&coded, "etag"), field(&plain, "etag"));
        for response in [&coded, &plain] {
            assert_eq!(field(response, "vary"), Some("accept-encoding"));
        }
    }

    #[test]
    fn who_may_read_answers_across_origins() {
        let origin = ("origin", "https://a.example");
        let any = ask("GET", "/media/clip.mp4", &[origin]);
        assert_eq!(field(&any, "access-control-allow-origin"), Some("*"));
        assert_eq!(field(&any, "vary"), None);
        let exposed = field(&any, "access-control-expose-headers").unwrap();
        assert!(exposed.contains("Content-Range") && exposed.contains("ETag"));
        assert_eq!(
            field(&any, "cross-origin-resource-policy"),
            Some("cross-origin")
        );
        assert_eq!(field(&any, "timing-allow-origin"), Some("*"));

        let listed = with_settings(&[("cors-origins", "https://a.example https://b.example")]);
        for (origin, allowed) in [
            ("https://b.example", Some("https://b.example")),
            ("https://c.example", None),
            ("https://a.example.c.example", None),
        ] {
            let fields = [("origin", origin), ("access-control-request-method", "GET")];
            for (method, target) in [
                ("GET", "/media/clip.mp4"),
                ("GET", "/media/none"),
                ("OPTIONS", "/media/clip.mp4"),
            ] {
                let response = ask_of(&listed, method, target, &fields);
                assert_eq!(field(&response, "access-control-allow-origin"), allowed);
                let vary = match target {
                    "/media/none" => "accept, origin",
                    _ => "origin",
                };
                assert_eq!(field(&response, "vary"), Some(vary));
                let is_preflight = method == "OPTIONS" && allowed.is_some();
                assert_eq!(
                    field(&response, "access-control-allow-methods").is_some(),
                    is_preflight
                );
            }
        }
        let svg = ask_of(&listed, "GET", "/media/logo.svg", &[]);
        assert_eq!(field(&svg, "vary"), Some("accept-encoding, origin"));
    }

    #[test]
    fn documents_run_nothing() {
        let svg = ask("GET", "/media/logo.svg", &[]);
        assert!(
            field(&svg, "content-security-policy")
                .unwrap()
                .starts_with("sandbox;")
        );
        assert_eq!(
            field(
                &ask("GET", "/media/clip.mp4", &[]),
                "content-security-policy"
            ),
            None
        );
        let off = with_settings(&[("content-security-policy", "")]);
        let svg = ask_of(&off, "GET", "/media/logo.svg", &[]);
        assert_eq!(field(&svg, "content-security-policy"), None);
    }

    #[test]
    fn private_media_asks_for_a_signature_and_missing_media_does_not_differ() {
        const KEYS: &[(&str, &str)] = &[("signing-keys", "k1:000102030405060708090a0b0c0d0e0f")];
        let missing_id = ID.replace('0', "f");
        let path = format!("/api/media/{PRIVATE_ID}");
        // Without a key no client can read it, and the response does not say so.
        assert_eq!(ask("GET", &path, &[]).status, 404);
        let store = with_settings(KEYS);
        for id in [PRIVATE_ID, &missing_id] {
            for (query, status) in [("", 401), ("?sig=AAAA&key=k1&exp=9", 403)] {
                for suffix in ["", "/info"] {
                    let response = ask_of(
                        &store,
                        "GET",
                        &format!("/api/media/{id}{suffix}{query}"),
                        &[],
                    );
                    assert_eq!(response.status, status, "{id} {query}");
                    assert_eq!(field(&response, "cache-control"), Some("no-store"));
                    assert_eq!(response.cacheability, None);
                }
            }
        }
        let key = signature::SigningKey::parse("k1:000102030405060708090a0b0c0d0e0f").unwrap();
        let sign = |path: &str| {
            let grant = signature::Grant {
                path,
                expires: RECEIVED.seconds(),
                client_prefix: None,
            };
            format!("{path}?{}", key.sign(&grant))
        };
        let signed = ask_of(&store, "GET", &sign(&path), &[]);
        assert_eq!(signed.status, 200);
        assert_eq!(
            field(&signed, "cache-control"),
            Some("private, max-age=300")
        );
        assert_eq!(
            signed.cacheability, None,
            "the host caches no private media"
        );
        let missing = sign(&format!("/api/media/{missing_id}"));
        assert_eq!(ask_of(&store, "GET", &missing, &[]).status, 404);
        // Public media needs no signature.
        assert_eq!(
            ask_of(&store, "GET", &format!("/api/media/{ID}"), &[]).status,
            200
        );
    }

    /// By the defaults every page may read every response, even if the settings would forbid it.
    #[test]
    fn settings_that_cannot_be_read_were_taken_for_none() {
        let store = with_settings(&[UNREADABLE]);
        for target in ["/media/clip.mp4", "/media/none", "/api/media/short"] {
            let response = ask_of(&store, "GET", target, &[("origin", "https://a.example")]);
            assert_eq!(response.status, 500, "{target}");
            assert_eq!(field(&response, "access-control-allow-origin"), None);
            assert_eq!(field(&response, "cache-control"), Some("no-store"));
            assert_eq!(response.cacheability, None);
        }
    }

    /// Found by fuzzing: access was checked for media by content id only. A store with private media by name had it
    /// served to every client, cacheable for a year.
    #[test]
    fn private_media_was_given_by_its_name() {
        let keys = [("signing-keys", "k1:000102030405060708090a0b0c0d0e0f")];
        for settings in [&[][..], &keys[..]] {
            let store = with_settings(settings.to_vec().leak());
            let private = ask_of(&store, "GET", "/media/private.gif", &[]);
            assert_eq!(private, ask_of(&store, "GET", "/media/none", &[]));
            assert_eq!(private.status, 404);
        }
    }

    /// The access of a variant itself was not checked.
    #[test]
    fn a_private_variant_of_public_media_was_given_to_everybody() {
        let target = format!("/api/media/{HALF_ID}");
        let response = ask("GET", &target, &[("accept", "image/avif")]);
        assert_eq!(field(&response, "content-type"), Some("image/gif"));
        assert_eq!(field(&response, "vary"), Some("accept"));
    }

    /// The tag contained the subtype only, or the coding only, and an odd type made a malformed tag.
    #[test]
    fn entity_tags_of_named_variants_were_alike_or_malformed() {
        let tag = |fields: &[(&str, &str)]| {
            let response = ask("GET", "/media/film", fields);
            field(&response, "etag").unwrap().to_owned()
        };
        let coded = ("accept-encoding", "br");
        let tags = [
            tag(&[]),
            tag(&[("accept", "video/\"x y\"")]),
            tag(&[("accept", "video/webm")]),
            tag(&[coded]),
            tag(&[("accept", "video/webm"), coded]),
        ];
        let of_content = tag(&[("accept", "image/avif")]);
        assert_eq!(of_content, format!("\"{AVIF_ID}\""));
        assert_eq!(
            tags.each_ref().map(|tag| tag.trim_start_matches("\"s1")),
            [
                "\"",
                "-video/xy\"",
                "-video/webm\"",
                "-br\"",
                "-video/webm-br\""
            ]
        );
    }

    #[test]
    fn missing_media_is_known_to_be_missing_for_a_moment() {
        let response = ask("GET", "/media/none", &[]);
        assert_eq!(field(&response, "cache-control"), Some("public, max-age=5"));
        assert_eq!(response.cacheability.unwrap().max_age_ms, 5000);
        let never = with_settings(&[("negative-ttl", "0")]);
        let response = ask_of(&never, "GET", "/media/none", &[]);
        assert_eq!(field(&response, "cache-control"), Some("no-store"));
        assert_eq!(response.cacheability, None);
    }

    const BROWSER: (&str, &str) = (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    );

    #[test]
    fn a_folder_is_a_page_for_browsers_and_json_for_others() {
        let page = ask("GET", "/media/?q=gif", &[BROWSER]);
        assert_eq!(page.status, 200);
        assert_eq!(
            field(&page, "content-type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(field(&page, "vary"), Some("accept"));
        assert_eq!(page.cacheability, None);
        let policy = field(&page, "content-security-policy").unwrap();
        assert!(policy.contains("script-src 'nonce-") && !policy.contains("unsafe-inline"));
        for accept in [
            "*/*",
            "application/json",
            "text/html;q=0.5, application/json",
        ] {
            let listing = ask("GET", "/media/", &[("accept", accept)]);
            let listing = json(&listing);
            assert_eq!(listing["total"], 3);
            assert_eq!(listing["entries"][1]["href"], "./%3Cb%3E.gif");
            assert_eq!(listing["next"], "/media/?sort=name&after=f.0.%3Cb%3E.gif");
        }
        let head = ask("HEAD", "/media/", &[BROWSER]);
        assert!(head.body.is_empty() && field(&head, "content-length").is_some());
    }

    #[test]
    fn a_folder_without_its_slash_is_redirected() {
        for (target, location) in [
            ("/", "/media/"),
            ("/media", "/media/"),
            ("/media/album", "./album/"),
            ("/media/album?q=%20", "./album/?q=%20"),
        ] {
            let response = ask("GET", target, &[]);
            assert_eq!(response.status, 308, "{target}");
            assert_eq!(field(&response, "location"), Some(location));
        }
        assert_eq!(ask("GET", "/media/none/", &[]).status, 404);
        assert_eq!(ask("GET", "/media/busy-folder/", &[]).status, 503);
    }

    #[test]
    fn without_browse_no_folder_is_told_from_what_is_missing() {
        let store = with_settings(&[("browse", "off")]);
        for target in [
            "/",
            "/media",
            "/media/",
            "/media/album",
            "/media/album/",
            "/api/gallery.js",
        ] {
            let response = ask_of(&store, "GET", target, &[BROWSER]);
            assert_eq!(response.status, 404, "{target}");
            assert_eq!(field(&response, "content-type"), Some("application/json"));
            assert_eq!(field(&response, "vary"), None);
        }
    }

    #[test]
    fn errors_are_pages_for_browsers() {
        let response = ask("GET", "/media/none", &[BROWSER]);
        assert_eq!(response.status, 404);
        assert_eq!(
            field(&response, "content-type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(field(&response, "cache-control"), Some("public, max-age=5"));
        assert_eq!(field(&response, "vary"), Some("accept"));
        assert_eq!(response.cacheability.unwrap().vary, ["accept", "origin"]);
    }

    #[test]
    fn assets_of_the_gallery_are_in_gzip_and_validated() {
        for (target, media_type) in [
            ("/api/gallery.css", "text/css; charset=utf-8"),
            ("/api/gallery.js", "text/javascript; charset=utf-8"),
        ] {
            let response = ask("GET", target, &[]);
            assert_eq!(response.status, 200);
            assert_eq!(field(&response, "content-type"), Some(media_type));
            assert_eq!(field(&response, "content-encoding"), Some("gzip"));
            let etag = field(&response, "etag").unwrap();
            let again = ask("GET", target, &[("if-none-match", etag)]);
            assert_eq!(again.status, 304);
        }
    }
}
