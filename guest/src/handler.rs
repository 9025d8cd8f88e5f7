//! Handlers: the entry point of a guest.

use crate::imports::{Imports, InputStream};
use crate::message::{Request, Response};

/// A handler of requests, exported from a component by [`export!`](crate::export).
pub trait Handler {
    /// Returns the response to a request. Failures are responses with an error status.
    fn handle<I: Imports>(request: &Request<'_>, imports: &I) -> Response<InputStream<I>>;
}

/// The handler of millpond's own component: [`handle`](crate::handle) as it is.
#[derive(Debug, Clone, Copy)]
pub struct Media;

impl Handler for Media {
    fn handle<I: Imports>(request: &Request<'_>, imports: &I) -> Response<InputStream<I>> {
        crate::handle(request, imports)
    }
}

/// Exports a [`Handler`] from the component: the world `media-guest`.
///
/// Compiled for another target than WebAssembly it exports nothing, so that the crate can be tested natively.
#[macro_export]
macro_rules! export {
    ($handler:ty) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code)]
        mod millpond_component {
            use super::*;
            type ExportedComponent = $crate::component::HandlerComponent<$handler>;
            $crate::component::bindings::export!(ExportedComponent with_types_in $crate::component::bindings);
        }
    };
}
