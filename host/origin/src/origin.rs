//! An origin: object storage or an HTTP server that has the media.

use crate::aws_files::{self, AwsProfile};
use crate::client::{FieldsSlot, OriginClient, OriginFields, ReadInParts};
use crate::fetch::{
    Fetch, FetchError, FreshnessFields, HeadResponse, ObjectHead, ObjectValidators,
};
use crate::origin_url::{OriginKind, OriginUrl};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, StreamExt};
use http::header::{self, HeaderMap};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::multipart::MultipartStore;
use object_store::path::Path as ObjectPath;
use object_store::{
    BackoffConfig, ClientOptions, Extensions, GetOptions, GetRange, ListResult, ObjectMeta,
    ObjectStore, RetryConfig,
};
use std::env;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An origin of media. Clones share its connections.
#[derive(Clone)]
pub struct Origin(Arc<OriginState>);

struct OriginState {
    store: Arc<dyn ObjectStore>,
    /// Listing page by page. `None` if the origin lists nothing.
    lister: Option<Arc<dyn PaginatedListStore>>,
    /// Uploads in parts. `None` if the origin takes none.
    multipart: Option<Arc<dyn MultipartStore>>,
    prefix: String,
    client: Option<OriginClient>,
}

/// Options of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OriginOptions {
    /// Maximum number of requests for content at the same time. A few more are for metadata.
    pub connections: usize,
    /// Whether redirects to private addresses are followed.
    pub allow_private_redirects: bool,
    /// Maximum number of retries of a request, also while its body is read.
    pub retries: usize,
}

/// Default maximum number of requests for content at the same time.
const CONNECTIONS: usize = 32;

/// Maximum number of other requests at the same time: for metadata, lists and credentials.
const OTHER_CONNECTIONS: usize = 24;

/// Default maximum number of retries. A client waits for the response meanwhile.
const RETRIES: usize = 3;

/// Time before the first retry. It doubles for each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);

/// Maximum time before a retry.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Time after a request in which it is retried. A long body may fail late.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// The error of an origin that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// The credentials or the address are invalid or missing.
    #[error("{0}")]
    Store(#[from] object_store::Error),
    /// The system has no root certificates.
    #[error("cannot check certificates: {0}: install ca-certificates, or set SSL_CERT_FILE")]
    Certificates(#[source] io::Error),
}

/// Counts of an origin since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct OriginCounts {
    pub(crate) requests: u64,
    pub(crate) received_bytes: u64,
}

/// One page of a folder's listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ListPage {
    /// Names of folders in it.
    pub(crate) folders: Vec<String>,
    /// Objects in it.
    pub(crate) objects: Vec<ListedObject>,
    /// Token of the next page. `None` for the last page.
    pub(crate) next: Option<String>,
}

/// An object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedObject {
    pub(crate) name: String,
    pub(crate) length: u64,
    pub(crate) modified: Option<SystemTime>,
}

impl Default for OriginOptions {
    fn default() -> Self {
        OriginOptions {
            connections: CONNECTIONS,
            allow_private_redirects: false,
            retries: RETRIES,
        }
    }
}

impl Origin {
    /// Prepares an origin. Credentials come from the environment, as for other tools of its service. Nothing is sent yet.
    ///
    /// # Errors
    /// [`OriginError`].
    pub fn connect(url: &OriginUrl, options: OriginOptions) -> Result<Self, OriginError> {
        let client = OriginClient::new(
            options.connections + OTHER_CONNECTIONS,
            options.allow_private_redirects,
            url.kind() == OriginKind::Http,
            url.is_encrypted(),
        );
        let client = client.map_err(OriginError::Certificates)?;
        let OpenedStore {
            store,
            lister,
            multipart,
        } = open_store(url, &client, options.retries)?;
        Ok(Origin(Arc::new(OriginState {
            store,
            lister,
            multipart,
            prefix: url.prefix().to_owned(),
            client: Some(client),
        })))
    }

    /// Returns an origin over an object store of the program. It lists nothing.
    #[must_use]
    pub fn from_object_store(store: Arc<dyn ObjectStore>, prefix: &str) -> Self {
        Origin(Arc::new(OriginState {
            store,
            lister: None,
            multipart: None,
            prefix: prefix.trim_matches('/').to_owned(),
            client: None,
        }))
    }

    /// Returns an origin over an object store of the program, which media can be added to. `multipart` is the same store,
    /// for uploads in parts. The origin lists no folders.
    #[must_use]
    pub fn from_writable_store(
        store: Arc<dyn ObjectStore>,
        multipart: Arc<dyn MultipartStore>,
        prefix: &str,
    ) -> Self {
        Origin(Arc::new(OriginState {
            store,
            lister: None,
            multipart: Some(multipart),
            prefix: prefix.trim_matches('/').to_owned(),
            client: None,
        }))
    }

    /// Returns the metadata of an object. With `known`, it asks only whether they have changed.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn head(
        &self,
        path: &str,
        known: Option<&ObjectValidators>,
    ) -> Result<HeadResponse, FetchError> {
        let slot = FieldsSlot::default();
        let mut options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        options.extensions.insert(slot.clone());
        if let Some(known) = known {
            options.if_none_match.clone_from(&known.entity_tag);
            if known.entity_tag.is_none() {
                options.if_modified_since = known.modified.map(Into::into);
            }
        }
        match self.0.store.get_opts(&self.path(path)?, options).await {
            Ok(result) => {
                let fields = fields(&result.extensions);
                check_coding(fields)?;
                Ok(HeadResponse::Found(head_of(&result.meta, fields)))
            }
            Err(object_store::Error::NotModified { .. }) if known.is_some() => {
                let fields = slot.take().as_ref().map(freshness);
                Ok(HeadResponse::NotModified(fields.unwrap_or_default()))
            }
            Err(error) => Err(fetch_error(error)),
        }
    }

    /// Requests an object, or a range of it. With `expected`, the response has to be of the same version.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get(
        &self,
        path: &str,
        range: Option<Range<u64>>,
        expected: Option<&ObjectHead>,
    ) -> Result<Fetch, FetchError> {
        let mut options = GetOptions::default();
        options.extensions.insert(ReadInParts);
        options.range = range.clone().map(GetRange::Bounded);
        if let Some(expected) = expected {
            let validators = &expected.validators;
            match &validators.entity_tag {
                // The comparison of `If-Match` is strong (RFC 9110 section 13.1.1), so a weak tag never matches.
                Some(entity_tag) if !entity_tag.starts_with("W/") => {
                    options.if_match = Some(entity_tag.clone());
                }
                Some(_) => {}
                None => options.if_unmodified_since = validators.modified.map(Into::into),
            }
        }
        let result = self.0.store.get_opts(&self.path(path)?, options).await;
        let result = result.map_err(fetch_error)?;
        let fields = fields(&result.extensions);
        check_coding(fields)?;
        let head = head_of(&result.meta, fields);
        if expected.is_some_and(|expected| !is_same_version(expected, &head)) {
            return Err(FetchError::Changed);
        }
        let found = result.range.clone();
        if range.is_some_and(|range| range != found) {
            return Err(FetchError::Invalid(format!(
                "bytes {found:?} instead of those requested"
            )));
        }
        let body = result.into_stream();
        let length = found.end - found.start;
        let body = body.map(|bytes| bytes.map_err(fetch_error)).boxed();
        Ok(Fetch {
            head,
            range: found,
            body: exactly(body, length),
        })
    }

    /// Reads a small object whole.
    ///
    /// # Errors
    /// [`FetchError`]; [`FetchError::Invalid`] if it has more than `max_bytes`.
    pub(crate) async fn read(&self, path: &str, max_bytes: u64) -> Result<Bytes, FetchError> {
        let mut fetch = self.get(path, None, None).await?;
        let too_large = || FetchError::Invalid(format!("more than {max_bytes} bytes"));
        if fetch.head.length > max_bytes {
            return Err(too_large());
        }
        let mut content = BytesMut::new();
        while let Some(bytes) = fetch.body.next().await {
            content.extend_from_slice(&bytes?);
        }
        Ok(content.freeze())
    }

    /// Lists a page of a folder, with about `max` entries at most.
    ///
    /// # Errors
    /// [`FetchError::Unsupported`], if the origin lists nothing; other errors of the origin.
    pub(crate) async fn list(
        &self,
        folder: &str,
        page: Option<String>,
        max: usize,
    ) -> Result<ListPage, FetchError> {
        let lister = self.0.lister.as_ref().ok_or(FetchError::Unsupported)?;
        let prefix = match self.path(folder)?.to_string() {
            prefix if prefix.is_empty() => None,
            prefix => Some(prefix + "/"),
        };
        let options = PaginatedListOptions {
            delimiter: Some("/".into()),
            max_keys: Some(max),
            page_token: page,
            ..PaginatedListOptions::default()
        };
        let listed = lister.list_paginated(prefix.as_deref(), options).await;
        let listed = listed.map_err(fetch_error)?;
        Ok(ListPage::new(&listed.result, listed.page_token))
    }

    /// Object store that has the objects, under paths of [`Origin::path`].
    pub(crate) fn object_store(&self) -> &dyn ObjectStore {
        &*self.0.store
    }

    /// Uploads in parts. `None` if the origin takes no uploads.
    pub(crate) fn multipart_store(&self) -> Option<&dyn MultipartStore> {
        self.0.multipart.as_deref()
    }

    /// Counts since the start.
    pub(crate) fn counts(&self) -> OriginCounts {
        let counts = self.0.client.as_ref().map(OriginClient::counts);
        counts.map_or(OriginCounts::default(), |counts| OriginCounts {
            requests: counts.requests.load(Ordering::Relaxed),
            received_bytes: counts.received_bytes.load(Ordering::Relaxed),
        })
    }

    /// Returns the path of an object in its store. Segments that lead elsewhere are not found.
    ///
    /// # Errors
    /// [`FetchError::NotFound`].
    pub(crate) fn path(&self, path: &str) -> Result<ObjectPath, FetchError> {
        let path = match (self.0.prefix.as_str(), path) {
            ("", path) => ObjectPath::parse(path),
            (prefix, "") => ObjectPath::parse(prefix),
            (prefix, path) => ObjectPath::parse(format!("{prefix}/{path}")),
        };
        path.map_err(|_| FetchError::NotFound)
    }
}

impl ListPage {
    fn new(result: &ListResult, next: Option<String>) -> Self {
        let folders = result.common_prefixes.iter();
        let objects = result.objects.iter().filter_map(|object| {
            Some(ListedObject {
                name: object.location.filename()?.to_owned(),
                length: object.size,
                modified: Some(object.last_modified.into()),
            })
        });
        ListPage {
            folders: folders
                .filter_map(|path| path.filename().map(str::to_owned))
                .collect(),
            objects: objects.collect(),
            next,
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin")
            .field("prefix", &self.0.prefix)
            .finish_non_exhaustive()
    }
}

/// Returns the files that hold credentials, which an origin reads when it is set up.
#[must_use]
pub fn credential_files() -> Vec<PathBuf> {
    let named = [
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AZURE_FEDERATED_TOKEN_FILE",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_PATH",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ];
    let named = named
        .iter()
        .filter_map(|name| env::var_os(name).map(PathBuf::from));
    let google = env::var_os("HOME").map(|home| {
        PathBuf::from(home).join(".config/gcloud/application_default_credentials.json")
    });
    named
        .chain(aws_files::files().into_iter().flatten())
        .chain(google)
        .collect()
}

/// A store with the parts of its interface that not every store has.
struct OpenedStore {
    store: Arc<dyn ObjectStore>,
    lister: Option<Arc<dyn PaginatedListStore>>,
    multipart: Option<Arc<dyn MultipartStore>>,
}

impl OpenedStore {
    /// Returns a store of object storage, which has all parts.
    fn whole<S: ObjectStore + PaginatedListStore + MultipartStore>(store: S) -> Self {
        let store = Arc::new(store);
        OpenedStore {
            lister: Some(Arc::clone(&store) as _),
            multipart: Some(Arc::clone(&store) as _),
            store,
        }
    }
}

fn open_store(
    url: &OriginUrl,
    client: &OriginClient,
    retries: usize,
) -> Result<OpenedStore, OriginError> {
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: FIRST_BACKOFF,
            max_backoff: MAX_BACKOFF,
            base: 2.0,
        },
        max_retries: retries,
        retry_timeout: RETRY_TIMEOUT,
    };
    Ok(match url.kind() {
        OriginKind::S3 => {
            let store = s3(url)
                .with_retry(retry)
                .with_http_connector(client.clone())
                .build()?;
            OpenedStore::whole(store)
        }
        OriginKind::Gcs => {
            let store = GoogleCloudStorageBuilder::from_env().with_url(url.url().as_str());
            let store = store
                .with_retry(retry)
                .with_http_connector(client.clone())
                .build()?;
            OpenedStore::whole(store)
        }
        OriginKind::Azure => {
            let store = MicrosoftAzureBuilder::from_env().with_url(url.url().as_str());
            let store = store
                .with_retry(retry)
                .with_http_connector(client.clone())
                .build()?;
            OpenedStore::whole(store)
        }
        OriginKind::Http => {
            let options = ClientOptions::new().with_allow_http(true);
            let store = HttpBuilder::new()
                .with_url(url.url().as_str())
                .with_client_options(options)
                .with_retry(retry)
                .with_http_connector(client.clone())
                .build()?;
            OpenedStore {
                store: Arc::new(store),
                lister: None,
                multipart: None,
            }
        }
    })
}

/// Returns the settings of S3: those of the environment, then those of the shared files.
fn s3(url: &OriginUrl) -> AmazonS3Builder {
    let is_set = |name: &str| env::var_os(name).is_some();
    // The digest of a payload is signed, so that the service refuses content that has changed on the way.
    let mut builder = AmazonS3Builder::from_env().with_url(url.url().as_str());
    let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let endpoint = endpoint.iter().find_map(|name| env::var(name).ok());
    if let Some(endpoint) = endpoint {
        builder = builder
            .with_allow_http(endpoint.starts_with("http://"))
            .with_endpoint(endpoint);
    }
    let others = [
        "AWS_ACCESS_KEY_ID",
        "AWS_SKIP_SIGNATURE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ];
    let profile = AwsProfile::read();
    if !others.iter().any(|name| is_set(name))
        && let (Some(id), Some(secret)) = (profile.access_key_id, profile.secret_access_key)
    {
        builder = builder
            .with_access_key_id(id)
            .with_secret_access_key(secret);
        if let Some(token) = profile.session_token {
            builder = builder.with_token(token);
        }
    }
    if !is_set("AWS_REGION")
        && !is_set("AWS_DEFAULT_REGION")
        && let Some(region) = profile.region
    {
        builder = builder.with_region(region);
    }
    builder
}

fn fields(extensions: &Extensions) -> Option<&HeaderMap> {
    extensions.get::<OriginFields>().map(|fields| &fields.0)
}

/// Checks that a response has no content coding. The offsets of an encoded response are not those of the object.
fn check_coding(fields: Option<&HeaderMap>) -> Result<(), FetchError> {
    let codings = fields.map(|fields| fields.get_all(header::CONTENT_ENCODING).iter());
    let is_identity =
        |coding: &http::HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    match codings
        .into_iter()
        .flatten()
        .find(|coding| !is_identity(coding))
    {
        Some(coding) => Err(FetchError::Invalid(format!(
            "it has the content coding {coding:?}"
        ))),
        None => Ok(()),
    }
}

fn head_of(meta: &ObjectMeta, fields: Option<&HeaderMap>) -> ObjectHead {
    let modified = SystemTime::from(meta.last_modified);
    // The store gets strong tags only.
    let entity_tag = |fields: &HeaderMap| {
        let entity_tag = fields.get(header::ETAG)?.to_str().ok()?;
        Some(entity_tag.to_owned())
    };
    ObjectHead {
        length: meta.size,
        validators: ObjectValidators {
            entity_tag: fields.map_or_else(|| meta.e_tag.clone(), entity_tag),
            // The epoch stands for a response without the field.
            modified: Some(modified).filter(|modified| *modified > UNIX_EPOCH),
        },
        media_type: fields.and_then(media_type),
        freshness: fields.map(freshness).unwrap_or_default(),
    }
}

/// Returns the media type, unless it says nothing.
fn media_type(fields: &HeaderMap) -> Option<String> {
    let text = fields.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = text.split(';').next().unwrap_or_default().trim();
    let says_nothing = ["", "application/octet-stream", "binary/octet-stream"];
    let says_nothing = says_nothing
        .iter()
        .any(|other| essence.eq_ignore_ascii_case(other));
    (!says_nothing).then(|| text.to_owned())
}

fn freshness(fields: &HeaderMap) -> FreshnessFields {
    let lines = fields.get_all(header::CACHE_CONTROL).iter();
    let lines: Vec<&str> = lines.filter_map(|line| line.to_str().ok()).collect();
    let age = fields.get(header::AGE).and_then(|age| age.to_str().ok());
    let age = age.and_then(|age| age.trim().parse().ok());
    FreshnessFields {
        cache_control: (!lines.is_empty()).then(|| lines.join(", ")),
        age: Duration::from_secs(age.unwrap_or(0)),
    }
}

fn is_same_version(expected: &ObjectHead, found: &ObjectHead) -> bool {
    let (expected_validators, found_validators) = (&expected.validators, &found.validators);
    expected.length == found.length
        && expected_validators.entity_tag == found_validators.entity_tag
        && (expected_validators.entity_tag.is_some()
            || expected_validators.modified == found_validators.modified)
}

/// Returns a body that has exactly this many bytes, or ends with an error.
fn exactly(
    body: BoxStream<'static, Result<Bytes, FetchError>>,
    length: u64,
) -> BoxStream<'static, Result<Bytes, FetchError>> {
    let parts =
        futures_util::stream::unfold((body, Some(length)), |(mut body, remaining)| async move {
            let remaining = remaining?;
            let (result, remaining) = match body.next().await {
                Some(Ok(bytes)) => match remaining.checked_sub(bytes.len() as u64) {
                    Some(rest) => (Ok(bytes), Some(rest)),
                    None => (
                        Err(FetchError::Invalid("it is longer than it says".into())),
                        None,
                    ),
                },
                Some(Err(error)) => (Err(error), None),
                None if remaining == 0 => return None,
                None => (
                    Err(FetchError::Unavailable("the response ended early".into())),
                    None,
                ),
            };
            Some((result, (body, remaining)))
        });
    parts.boxed()
}

/// Returns the error of a request, by its kind.
pub(crate) fn fetch_error(error: object_store::Error) -> FetchError {
    use object_store::Error;
    match &error {
        Error::NotFound { .. } => FetchError::NotFound,
        Error::Precondition { .. } => FetchError::Changed,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            FetchError::Denied(error_text(&error))
        }
        _ => failure(&error),
    }
}

/// Returns the error of a response that could not be used. The store says what is wrong with it by text alone.
fn failure(error: &object_store::Error) -> FetchError {
    let text = error_text(error);
    let has = |part: &str| text.contains(part);
    if has("non-partial response") || has("Range request not supported") {
        return FetchError::NoRanges;
    }
    if has("status code: 410") {
        return FetchError::NotFound;
    }
    let invalid = [
        "Content-Range",
        "Content-Length",
        "content length",
        "Last-Modified",
        "last modified",
        "got",
        "non UTF-8",
        "non-ASCII",
        "redirect",
        "too large",
    ];
    match invalid.iter().any(|part| has(part)) {
        true => FetchError::Invalid(text),
        false => FetchError::Unavailable(text),
    }
}

/// Returns the text of an error with its causes, of which the store repeats some.
fn error_text(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        let part = source.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = source.source();
    }
    // Before the dash stand the URL, the retries and their limits.
    let reason = text.split_once(" - ").map(|(_, reason)| reason.to_owned());
    reason.unwrap_or(text)
}
