//! A host as a service: for any server by `tower`, and for millpond's own server, which asks for a little more.

use crate::body::MediaBody;
use crate::downstream::SimpleHead;
use crate::response_body::ResponseBody;
use crate::service::{CachedResponse, Millpond};
use http::{Request, Response};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A service that millpond's own server drives: a [`Millpond`], or one that a program has put around it.
///
/// A program's own one answers some requests itself, or changes responses on their way. It hands a request on with its
/// extensions, since the connection is among them.
pub trait MediaService: Clone + Send + Sync + Unpin + 'static {
    /// The body of its responses.
    type Body: ResponseBody;

    /// The host, whose memory plan the server keeps to.
    fn millpond(&self) -> &Millpond;

    /// Answers one request.
    fn serve(&self, request: Request<()>) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Answers a request from a cache, if that needs nothing to be waited for. The server writes such a response as it is.
    /// A program's own service answers none so, unless it says otherwise.
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
