//! `/cache` on the admin listener: the cache of media from an origin.

use http::{Method, StatusCode};
use millpond::store::{ContentId, ObjectKey};
use millpond_origin::{OriginStore, Purge, WarmError};
use millpond_server::admin::CacheRequest;
use serde_json::{Value, json};

/// Maximum number of objects in a response.
pub(crate) const LISTED_OBJECTS: usize = 1000;

/// Responds to a request about the cache.
pub(crate) async fn respond(store: OriginStore, request: CacheRequest) -> (StatusCode, Value) {
    match (&request.method, request.path.as_str()) {
        (&Method::GET | &Method::HEAD, "") => (StatusCode::OK, json!(store.figures())),
        (&Method::GET | &Method::HEAD, "/objects") => objects(&store, &request),
        (&Method::POST, "/purge") => purge(&store, &request),
        (&Method::POST, "/warm") => warm(&store, &request).await,
        (_, "" | "/objects") => error(StatusCode::METHOD_NOT_ALLOWED, "only GET"),
        (_, "/purge" | "/warm") => error(StatusCode::METHOD_NOT_ALLOWED, "only POST"),
        _ => error(
            StatusCode::NOT_FOUND,
            "try GET /cache, GET /cache/objects, POST /cache/purge or POST /cache/warm",
        ),
    }
}

fn objects(store: &OriginStore, request: &CacheRequest) -> (StatusCode, Value) {
    let prefix = request.parameter("prefix").unwrap_or_default();
    let objects = store.objects(prefix, request.parameter("after"), LISTED_OBJECTS);
    (StatusCode::OK, json!({ "objects": objects }))
}

fn purge(store: &OriginStore, request: &CacheRequest) -> (StatusCode, Value) {
    let key = request.parameter("key");
    let purge = match (key, request.parameter("prefix"), request.parameter("all")) {
        (Some(key), None, None) => Purge::Key(object_key(key)),
        (None, Some(prefix), None) => Purge::Prefix(prefix.to_owned()),
        (None, None, Some(_)) => Purge::All,
        _ => {
            let needed = "one of the parameters key, prefix and all is needed";
            return error(StatusCode::BAD_REQUEST, needed);
        }
    };
    (StatusCode::OK, json!({ "purged": store.purge(&purge) }))
}

async fn warm(store: &OriginStore, request: &CacheRequest) -> (StatusCode, Value) {
    let Some(key) = request.parameter("key") else {
        return error(StatusCode::BAD_REQUEST, "the parameter key is needed");
    };
    match store.warm(&object_key(key)).await {
        Ok(state) => (StatusCode::OK, json!(state)),
        Err(failed) => {
            let status = match failed {
                WarmError::NotFound => StatusCode::NOT_FOUND,
                WarmError::Busy => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_GATEWAY,
            };
            error(status, &failed.to_string())
        }
    }
}

/// Returns the key that a text stands for: a content id, or a name.
fn object_key(text: &str) -> ObjectKey {
    match text.parse::<ContentId>() {
        Ok(id) => ObjectKey::Content(id),
        Err(_) => ObjectKey::Named(text.to_owned()),
    }
}

fn error(status: StatusCode, message: &str) -> (StatusCode, Value) {
    (status, json!({ "error": message }))
}
