//! State of the store of a `wasi:http` instance.

use crate::config::GuestSettings;
use crate::engine::resource_limiter::InstanceLimiter;
use crate::engine::store_limits::{CpuBudget, LimitedStore};
use http::{Request, Response};
use millpond_ledger::{Charge, LedgerHandle};
use std::future::Future;
use std::sync::Arc;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

pub(super) use bindings::wasi::config::store as config;

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../../components/wit/p2/deps/config.wit",
        world: "wasi:config/imports",
        imports: { default: trappable },
    });
}

/// Maximum bytes that a component of `wasi:http` writes to its body at a time. With half as much, a large file takes
/// half as long again.
pub(crate) const HTTP_CHUNK_BYTES: usize = 64 * 1024;

/// State of the store of one request.
pub(crate) struct HttpState {
    pub(super) limiter: InstanceLimiter,
    pub(super) table: ResourceTable,
    pub(super) wasi: WasiCtx,
    pub(super) http: WasiHttpCtx,
    pub(super) hooks: Hooks,
    pub(super) settings: Arc<GuestSettings>,
    /// CPU time until the next chunk of the body.
    pub(super) cpu: Arc<CpuBudget>,
    pub(super) ledger: LedgerHandle,
    /// Charge of the bytes between the component and the connection.
    pub(super) _buffers: Charge,
}

impl LimitedStore for HttpState {
    fn limiter(&self) -> &InstanceLimiter {
        &self.limiter
    }

    fn limiter_mut(&mut self) -> &mut InstanceLimiter {
        &mut self.limiter
    }

    fn cpu(&self) -> &CpuBudget {
        &self.cpu
    }
}

impl WasiView for HttpState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for HttpState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.hooks,
        }
    }
}

impl config::Host for HttpState {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, config::Error>> {
        Ok(Ok(self.settings.get(&key)))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, config::Error>> {
        Ok(Ok(self.settings.pairs().to_vec()))
    }
}

/// Hooks that deny outgoing requests, and keep chunks small.
pub(super) struct Hooks;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        _request: Request<WasiBody>,
        _options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>,
    ) -> SendFuture {
        Box::new(async { Err(wasmtime_wasi_http::Error::HttpRequestDenied) })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        HTTP_CHUNK_BYTES
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        HTTP_CHUNK_BYTES
    }
}

type SentRequest = (
    Response<WasiBody>,
    Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>,
);

type SendFuture = Box<dyn Future<Output = Result<SentRequest, wasmtime_wasi_http::Error>> + Send>;
