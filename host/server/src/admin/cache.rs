//! `/cache`: the cache of media from an origin, if the program has one.

use futures_util::future::{BoxFuture, FutureExt};
use http::{Method, StatusCode, Uri};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// A request about the program's cache of media.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CacheRequest {
    /// Method.
    pub method: Method,
    /// Path after `/cache`: empty, or beginning with a slash.
    pub path: String,
    /// Parameters of the query, in order, decoded.
    pub parameters: Vec<(String, String)>,
}

impl CacheRequest {
    fn new(method: &Method, target: &Uri, path: &str) -> Self {
        let query = target.query().unwrap_or_default();
        let parameters = form_urlencoded::parse(query.as_bytes());
        CacheRequest {
            method: method.clone(),
            path: path.to_owned(),
            parameters: parameters.into_owned().collect(),
        }
    }

    /// Returns the value of a parameter. `None` if the query lacks it.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut parameters = self.parameters.iter();
        let found = parameters.find(|(parameter, _)| parameter == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Function of the program that responds to requests about its cache.
#[derive(Clone)]
pub(super) struct CacheHook(
    Arc<dyn Fn(CacheRequest) -> BoxFuture<'static, (StatusCode, Value)> + Send + Sync>,
);

impl CacheHook {
    pub(super) fn new<F, R>(respond: F) -> Self
    where
        F: Fn(CacheRequest) -> R + Send + Sync + 'static,
        R: Future<Output = (StatusCode, Value)> + Send + 'static,
    {
        CacheHook(Arc::new(move |request| respond(request).boxed()))
    }

    /// Returns the path after `/cache` of a target that is one of the cache.
    pub(super) fn path(target: &Uri) -> Option<&str> {
        let path = target.path().strip_prefix("/cache")?;
        (path.is_empty() || path.starts_with('/')).then_some(path)
    }

    /// Returns status and content of the response to a request.
    pub(super) async fn respond(
        &self,
        method: &Method,
        target: &Uri,
        path: &str,
    ) -> (StatusCode, Value) {
        (self.0)(CacheRequest::new(method, target, path)).await
    }
}

impl fmt::Debug for CacheHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheHook")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn targets_of_the_cache() {
        for (target, path) in [
            ("/cache", Some("")),
            ("/cache/purge?name=a%20b", Some("/purge")),
            ("/cached", None),
            ("/memory", None),
        ] {
            assert_eq!(CacheHook::path(&target.parse().unwrap()), path, "{target}");
        }
        let target = "/cache/purge?name=a%20b+c&all".parse().unwrap();
        let request = CacheRequest::new(&Method::POST, &target, "/purge");
        assert_eq!(request.parameter("name"), Some("a b c"));
        assert_eq!(request.parameter("all"), Some(""));
        assert_eq!(request.parameter("prefix"), None);
    }
}
