//! `POST /reload`: reloads the settings of the program.

use futures_util::future::{BoxFuture, FutureExt};
use http::{Method, StatusCode};
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
    pub(super) async fn respond(&self, method: &Method) -> (StatusCode, Value) {
        let error = |message: &str| json!({ "error": message });
        if method != Method::POST {
            return (StatusCode::METHOD_NOT_ALLOWED, error("only POST"));
        }
        match (self.0)().await {
            Ok(changes) => (StatusCode::OK, changes),
            Err(error) => (StatusCode::BAD_REQUEST, error),
        }
    }
}

impl fmt::Debug for ReloadHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReloadHook")
    }
}
