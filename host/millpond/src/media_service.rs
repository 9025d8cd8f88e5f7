//! The service traits: `tower`'s for any server, and [`MediaService`] for millpond's own server.

use crate::body::MediaBody;
use crate::downstream::SimpleHead;
#[cfg(feature = "uploads")]
use crate::request_content::RequestContent;
use crate::response_body::ResponseBody;
use crate::service::{CachedResponse, Millpond};
#[cfg(feature = "uploads")]
use http::{Method, Uri};
use http::{Request, Response};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A service that millpond's own server drives: a [`Millpond`], or a program's service around one.
///
/// Such a service may answer requests itself, or change responses. It has to pass a request's extensions on, because
/// they contain the connection.
pub trait MediaService: Clone + Send + Sync + Unpin + 'static {
    /// The body of its responses.
    type Body: ResponseBody;

    /// The host. The server keeps to its memory plan.
    fn millpond(&self) -> &Millpond;

    /// Responds to one request.
    fn serve(&self, request: Request<()>) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Returns whether the service reads the content of a request with this method and target. The server skips any other content.
    /// The default is `false`.
    #[cfg(feature = "uploads")]
    fn reads_content(&self, method: &Method, target: &Uri) -> bool {
        let _ = (method, target);
        false
    }

    /// Responds to one request whose content the service reads. The default is [`MediaService::serve`].
    #[cfg(feature = "uploads")]
    fn serve_with_content(
        &self,
        request: Request<RequestContent>,
    ) -> impl Future<Output = Response<Self::Body>> + Send {
        self.serve(request.map(drop))
    }

    /// Returns a response from the cache, if that needs no waiting. The server sends it unchanged. The default is
    /// `None`.
    fn try_cached(&self, head: &impl SimpleHead) -> Option<CachedResponse> {
        let _ = head;
        None
    }
}

impl MediaService for Millpond {
    type Body = MediaBody;

    fn millpond(&self) -> &Millpond {
        self
    }

    fn serve(&self, request: Request<()>) -> impl Future<Output = Response<MediaBody>> + Send {
        Millpond::serve(self, request)
    }

    #[cfg(feature = "uploads")]
    fn reads_content(&self, method: &Method, target: &Uri) -> bool {
        Millpond::reads_content(self, method, target)
    }

    #[cfg(feature = "uploads")]
    fn serve_with_content(
        &self,
        request: Request<RequestContent>,
    ) -> impl Future<Output = Response<MediaBody>> + Send {
        Millpond::serve_with_content(self, request)
    }

    fn try_cached(&self, head: &impl SimpleHead) -> Option<CachedResponse> {
        Millpond::try_cached(self, head)
    }
}

impl<B: Send + 'static> tower_service::Service<Request<B>> for Millpond {
    type Response = Response<MediaBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let millpond = self.clone();
        Box::pin(async move { Ok(millpond.serve(request).await) })
    }
}
