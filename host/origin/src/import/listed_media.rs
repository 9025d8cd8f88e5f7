//! Media in a listing of object storage. A content and its record are adjacent there, in the order of their names.

use crate::fetch::FetchError;
use crate::origin::{Origin, fetch_error};
use futures_util::stream::{self, BoxStream, Peekable, StreamExt};
use millpond::store::ContentId;
use object_store::ObjectMeta;
use std::pin::Pin;

/// Media in a listing. A service that lists in no order may have its content and its record apart, as two of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListedMedia {
    pub(super) id: ContentId,
    /// Length of the content, if that is here.
    pub(super) content_bytes: Option<u64>,
    /// Whether the record is here.
    pub(super) has_record: bool,
}

/// An object of a listing that belongs to media.
#[derive(Clone, Copy)]
enum MediaPart {
    Content(ContentId, u64),
    Record(ContentId),
}

type MediaParts = Pin<Box<Peekable<BoxStream<'static, Result<MediaPart, FetchError>>>>>;

/// Lists the media of an origin. Other objects are left out. It holds a page of the listing at a time.
pub(super) fn listed_media(origin: &Origin) -> BoxStream<'static, Result<ListedMedia, FetchError>> {
    let prefix = match origin.path("") {
        Ok(prefix) => prefix,
        Err(error) => return stream::once(async { Err(error) }).boxed(),
    };
    let is_whole_store = prefix.as_ref().is_empty();
    let folder = match is_whole_store {
        true => String::new(),
        false => format!("{prefix}/"),
    };
    let objects = origin
        .object_store()
        .list((!is_whole_store).then_some(&prefix));
    let parts = objects.filter_map(move |object| {
        let part = match object {
            Ok(object) => media_part(&object, &folder).map(Ok),
            Err(error) => Some(Err(fetch_error(error))),
        };
        async { part }
    });
    let parts: MediaParts = Box::pin(parts.boxed().peekable());
    stream::unfold(parts, |mut parts| async {
        let media = next_media(&mut parts).await?;
        Some((media, parts))
    })
    .boxed()
}

async fn next_media(parts: &mut MediaParts) -> Option<Result<ListedMedia, FetchError>> {
    let (id, content_bytes) = match parts.next().await? {
        Ok(MediaPart::Content(id, bytes)) => (id, Some(bytes)),
        Ok(MediaPart::Record(id)) => (id, None),
        Err(error) => return Some(Err(error)),
    };
    let has_record = match content_bytes {
        None => true,
        Some(_) => {
            let is_its_record = |part: &Result<MediaPart, FetchError>| matches!(part, Ok(MediaPart::Record(other)) if *other == id);
            parts.as_mut().next_if(is_its_record).await.is_some()
        }
    };
    Some(Ok(ListedMedia {
        id,
        content_bytes,
        has_record,
    }))
}

/// Returns which part of media an object is. `None` for a named file.
fn media_part(object: &ObjectMeta, folder: &str) -> Option<MediaPart> {
    let path = object.location.as_ref().strip_prefix(folder)?;
    let (folder, name) = path.split_once('/')?;
    let record_of = name.strip_suffix(".json");
    let id = record_of.unwrap_or(name);
    if id.get(..2)? != folder {
        return None;
    }
    let id: ContentId = id.parse().ok()?;
    Some(match record_of {
        Some(_) => MediaPart::Record(id),
        None => MediaPart::Content(id, object.size),
    })
}
