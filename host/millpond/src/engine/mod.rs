//! The engine: compiles and links the one component of a process, before the first request.

pub(crate) mod code_cache;
pub(crate) mod component;
mod instance_cost;
pub(crate) mod media;
pub(crate) mod pool;
pub(crate) mod resource_limiter;
pub(crate) mod store_limits;
#[cfg(feature = "wasi-http")]
pub(crate) mod wasi_http;

use crate::config::{self, GuestSettings};
use crate::engine::component::{ComponentError, HttpVersion, Inspection, Source};
use crate::engine::instance_cost::InstanceCost;
use crate::engine::media::{MediaGuestPre, StoreData};
use crate::engine::pool::{
    GUEST_STACK_BYTES, KEEP_MEMORY_BYTES, KEEP_STACK_BYTES, PoolReservation, STACK_BYTES, TICK,
};
use crate::engine::resource_limiter::FixedCost;
use crate::engine::resource_limiter::{CORE_INSTANCES, TABLE_ELEMENT_BYTES};
#[cfg(feature = "wasi-http")]
use crate::engine::wasi_http::{HostContext, HttpGuest};
use crate::error::one_line;
use crate::limits::Limits;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// wasmtime's engine, with a component ready to be instantiated.
#[derive(Clone)]
pub(crate) struct ComponentEngine {
    engine: Engine,
    fixed_cost: FixedCost,
    guest: LinkedGuest,
    inspection: Arc<Inspection>,
    pool_reservation: PoolReservation,
}

/// A linked component, by its exports.
#[derive(Clone)]
pub(crate) enum LinkedGuest {
    /// `millpond:media/media-serve`.
    Media(MediaGuestPre<StoreData>),
    /// `wasi:http`.
    #[cfg(feature = "wasi-http")]
    Http(HttpGuest),
}

impl ComponentEngine {
    /// Compiles and links a component. A component of `wasi:http` has access to the folder and the settings.
    ///
    /// # Errors
    /// [`ComponentError`], with a message for the author of the component.
    pub(crate) fn new(
        source: &Source,
        limits: &Limits,
        folder: Option<&Path>,
        settings: &Arc<GuestSettings>,
    ) -> Result<Self, ComponentError> {
        let http = component::http_version(source);
        let instance_cost = component::instance_cost(source)?;
        let fixed_cost = FixedCost::new(limits, instance_cost.total_bytes(), stacks(http));
        // Compiling takes a while, so this error comes first.
        check_room(source, instance_cost, fixed_cost, http, limits)?;
        let engine = Engine::new(&config(limits, http, instance_cost))
            .map_err(|error| ComponentError::Engine(one_line(&error)))?;
        let component = component::compile(&engine, source)?;
        let unsupported = |error: wasmtime::Error| ComponentError::Unsupported {
            name: source.name.clone(),
            reason: one_line(&error),
        };
        let pool_reservation = PoolReservation::default();
        let guest = match http {
            None => link(&engine, &component).map(LinkedGuest::Media),
            #[cfg(feature = "wasi-http")]
            Some(version) => {
                let given = HostContext::new(folder, settings)
                    .map_err(|error| ComponentError::Engine(one_line(&error)))?;
                HttpGuest::link(&engine, &component, version, given, &pool_reservation)
                    .map(LinkedGuest::Http)
            }
            #[cfg(not(feature = "wasi-http"))]
            Some(_) => {
                let _ = (folder, settings);
                Err(wasmtime::Error::msg(
                    "the component is for wasi:http, and this program was built without the feature wasi-http",
                ))
            }
        };
        let guest = guest.map_err(unsupported)?;
        tick(&engine)?;
        Ok(ComponentEngine {
            inspection: Arc::new(Inspection::of(&component, source, instance_cost)),
            engine,
            fixed_cost,
            guest,
            pool_reservation,
        })
    }

    /// Returns the same component with other settings.
    ///
    /// # Errors
    /// [`ComponentError::Engine`], if the folder cannot be opened again.
    pub(crate) fn with_settings(
        &self,
        folder: Option<&Path>,
        settings: &Arc<GuestSettings>,
    ) -> Result<Self, ComponentError> {
        #[cfg(not(feature = "wasi-http"))]
        let _ = (folder, settings);
        let guest = match &self.guest {
            LinkedGuest::Media(guest) => LinkedGuest::Media(guest.clone()),
            #[cfg(feature = "wasi-http")]
            LinkedGuest::Http(guest) => {
                let given = HostContext::new(folder, settings)
                    .map_err(|error| ComponentError::Engine(one_line(&error)))?;
                LinkedGuest::Http(guest.with_context(given))
            }
        };
        Ok(ComponentEngine {
            guest,
            ..self.clone()
        })
    }

    /// Description of the component.
    pub(crate) fn inspection(&self) -> &Arc<Inspection> {
        &self.inspection
    }

    /// The reservation of the instance pool, which all clones share.
    pub(crate) fn pool_reservation(&self) -> &PoolReservation {
        &self.pool_reservation
    }

    /// Memory of each store.
    pub(crate) fn fixed_cost(&self) -> FixedCost {
        self.fixed_cost
    }

    pub(crate) fn wasmtime(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn guest(&self) -> &LinkedGuest {
        &self.guest
    }
}

impl Source {
    /// Compiles the component, checks that it can be served, and describes it.
    ///
    /// # Errors
    /// [`ComponentError`], except `Read` and `TooLarge`.
    pub fn inspect(&self, limits: &Limits) -> Result<Inspection, ComponentError> {
        let settings = Arc::new(config::Config::default().settings(false));
        let engine = ComponentEngine::new(self, limits, None, &settings)?;
        Ok(Inspection::clone(&engine.inspection))
    }
}

/// Checks that an instance fits the memory limit of a request.
fn check_room(
    source: &Source,
    instance_cost: InstanceCost,
    fixed_cost: FixedCost,
    http: Option<HttpVersion>,
    limits: &Limits,
) -> Result<(), ComponentError> {
    #[cfg(feature = "wasi-http")]
    let buffers_bytes = http.map_or(0, |_| wasi_http::HTTP_BUFFERS_BYTES);
    #[cfg(not(feature = "wasi-http"))]
    let buffers_bytes = http.map_or(0, |_| 0);
    let needs_bytes = fixed_cost
        .bytes()
        .saturating_add(instance_cost.initial_bytes)
        .saturating_add(buffers_bytes);
    if needs_bytes <= limits.request_memory_bytes {
        return Ok(());
    }
    Err(ComponentError::ExceedsLimits {
        name: source.name.clone(),
        needs_bytes,
        limit_bytes: limits.request_memory_bytes,
    })
}

fn link(engine: &Engine, component: &Component) -> wasmtime::Result<MediaGuestPre<StoreData>> {
    let mut linker = Linker::new(engine);
    StoreData::add_to_linker(&mut linker)?;
    linker
        .instantiate_pre(component)
        .and_then(MediaGuestPre::new)
}

/// Number of fiber stacks of an instance. A task of WASI 0.3 has one of its own, besides its caller's.
fn stacks(http: Option<HttpVersion>) -> u32 {
    match http {
        Some(HttpVersion::P3) => 2,
        _ => 1,
    }
}

/// Maximum address space of one table in the pool, in bytes.
const TABLE_BYTES: usize = 8 * 1024 * 1024;

fn config(limits: &Limits, http: Option<HttpVersion>, instance_cost: InstanceCost) -> Config {
    let instances = u32::try_from(limits.concurrent_instances).unwrap_or(u32::MAX);
    // Each memory and table in the pool has address space of its own. The pool has enough for components with a few of
    // them. With more, a request may find none and is rejected with status 503. Components of `wasi:http` are usually
    // composed, and live longer.
    let (parts, keep_resident_share) = match http {
        None => (instances.saturating_mul(4), 1),
        Some(_) => (instances.saturating_mul(16), 4),
    };
    let per_component = u32::try_from(CORE_INSTANCES).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        // wasmtime rejects a component that is larger than its charge.
        .max_component_instance_size(instance_cost.vmctx_bytes)
        .max_core_instance_size(instance_cost.vmctx_bytes)
        // These are counts, and need no address space.
        .total_core_instances(instances.saturating_mul(per_component))
        .total_memories(parts.max(per_component))
        .total_tables(parts.max(per_component))
        .total_stacks(instances.saturating_mul(stacks(http)))
        .table_elements(limits.request_memory_bytes.min(TABLE_BYTES) / TABLE_ELEMENT_BYTES)
        .max_core_instances_per_component(per_component)
        .max_memories_per_component(per_component)
        .max_tables_per_component(per_component)
        .max_memories_per_module(per_component)
        .max_tables_per_module(per_component)
        .linear_memory_keep_resident(KEEP_MEMORY_BYTES / keep_resident_share)
        .async_stack_keep_resident(KEEP_STACK_BYTES / keep_resident_share)
        .table_keep_resident(KEEP_STACK_BYTES / keep_resident_share);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(STACK_BYTES);
    // Costs time in each call, and only tasks of WASI 0.3 need it.
    #[cfg(feature = "wasi-http")]
    config.concurrency_support(http == Some(HttpVersion::P3));
    config
}

/// Starts the ticker thread, which ends with the engine.
fn tick(engine: &Engine) -> Result<(), ComponentError> {
    let weak = engine.weak();
    thread::Builder::new()
        .name("millpond-ticker".into())
        .spawn(move || {
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                thread::sleep(TICK);
            }
        })
        .map_err(|error| ComponentError::Engine(format!("cannot start a thread: {error}")))?;
    Ok(())
}
