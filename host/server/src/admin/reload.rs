//! `POST /reload`: reloads the settings of the program.

use futures_util::future::{BoxFuture, FutureExt};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;

/// Function of the program that reloads its settings.
#[derive(Clone)]
pub(super) struct ReloadHook(
    Arc<dyn Fn() -> BoxFuture<'static, Result<Value, Value>> + Send + Sync>,
);

impl ReloadHook {
    pub(super) fn new<F, R>(reload: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<Value, Value>> + Send + 'static,
    {
        ReloadHook(Arc::new(move || reload().boxed()))
    }

    /// Returns status and content of the response to a request for `/reload`.
    pub(super) async fn respond(&self, method: &Method, fields: &HeaderMap) -> (StatusCode, Value) {
        let error = |message: &str| json!({ "error": message });
        if method != Method::POST {
            return (StatusCode::METHOD_NOT_ALLOWED, error("only POST"));
        }
        if !is_same_origin(fields) {
            let message = "a page of another origin may not reload the settings";
            return (StatusCode::FORBIDDEN, error(message));
        }
        match (self.0)().await {
            Ok(changes) => (StatusCode::OK, changes),
            Err(error) => (StatusCode::BAD_REQUEST, error),
        }
    }
}

/// Returns whether a request comes from no browser, or from a page of this listener. A browser sends `Origin` with each
/// POST (Fetch section 3.1).
fn is_same_origin(fields: &HeaderMap) -> bool {
    let Some(origin) = fields.get(header::ORIGIN) else {
        return true;
    };
    let origin = origin.to_str().unwrap_or_default();
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    let host = fields.get(header::HOST).and_then(|host| host.to_str().ok());
    authority.is_some() && authority == host
}

impl fmt::Debug for ReloadHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReloadHook")
    }
}
