//! Measures a request up to its body: an instance, a whole call, and a call that opens a file. The smallest possible
//! component gives the engine's own cost, the minimum of every request. The same component in a host without limits and
//! ledgers gives the minimum of ours.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use bindings::exports::millpond::media::media_serve;
use bindings::millpond::media::{media_store, settings};
use criterion::{Criterion, criterion_group, criterion_main};
use http::Request;
use millpond::store::{Folder, Importer};
use millpond::{Config, Limits, Millpond, Source};
use std::fs;
use std::hint::black_box;
use wasmtime::component::{
    Component, ComponentExportIndex, HasSelf, InstancePre, Linker, Resource, ResourceTable,
};
use wasmtime::{Engine, PoolingAllocationConfig, Store};
use wasmtime_wasi_io::IoView;
use wasmtime_wasi_io::streams::DynInputStream;

fn handle(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("small.gif"), vec![7; 4096]).unwrap();
    let adder = Importer::open(folder.path()).unwrap();
    let id = adder
        .add(&folder.path().join("small.gif"), |_| ())
        .unwrap()
        .id;
    let millpond = Millpond::new(
        &Source::embedded(),
        Folder::open(folder.path()).unwrap(),
        &Config::default(),
        Limits::default(),
    )
    .unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();

    let mut group = criterion.benchmark_group("request");
    let smallest = Smallest::new();
    group.bench_function(
        "the smallest component, made, called and freed",
        |bencher| {
            bencher.to_async(&runtime).iter(|| smallest.call());
        },
    );
    let bare = BareHost::new();
    group.bench_function("whole call without a file, bare host", |bencher| {
        bencher.to_async(&runtime).iter(|| bare.call());
    });
    group.bench_function("instance made and freed", |bencher| {
        bencher.to_async(&runtime).iter(|| millpond.probe());
    });
    for (name, method, target) in [
        ("whole call without a file", "GET", "/nothing".to_owned()),
        (
            "whole call, named file",
            "HEAD",
            "/media/small.gif".to_owned(),
        ),
        ("whole call, by content", "HEAD", format!("/api/media/{id}")),
    ] {
        group.bench_function(name, |bencher| {
            bencher.to_async(&runtime).iter(|| {
                let request = Request::builder()
                    .method(method)
                    .uri(&target)
                    .header("host", "millpond.test")
                    .header("user-agent", "criterion")
                    .header("accept", "image/avif,image/webp,*/*;q=0.8");
                let millpond = &millpond;
                async move { black_box(millpond.serve(request.body(()).unwrap()).await) }
            });
        });
    }
    group.finish();
}

/// One function that does nothing, in a component of one module without a memory.
struct Smallest {
    engine: Engine,
    made: InstancePre<()>,
    function: ComponentExportIndex,
}

impl Smallest {
    fn new() -> Self {
        const TEXT: &str = r#"(component
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m))
            (func (export "f") (canon lift (core func $i "f"))))"#;
        let mut config = wasmtime::Config::new();
        config
            .allocation_strategy(PoolingAllocationConfig::new())
            .concurrency_support(false)
            .epoch_interruption(true);
        let engine = Engine::new(&config).unwrap();
        let component = Component::new(&engine, wat::parse_str(TEXT).unwrap()).unwrap();
        let (_, function) = component.get_export(None, "f").unwrap();
        let made = Linker::new(&engine).instantiate_pre(&component).unwrap();
        Smallest {
            engine,
            made,
            function,
        }
    }

    async fn call(&self) {
        let mut store = Store::new(&self.engine, ());
        store.set_epoch_deadline(1);
        let instance = self.made.instantiate_async(&mut store).await.unwrap();
        let function = instance.get_typed_func::<(), ()>(&mut store, self.function);
        function.unwrap().call_async(&mut store, ()).await.unwrap();
    }
}

#[allow(clippy::all, clippy::pedantic, unreachable_pub)]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "media-guest",
        imports: { default: trappable },
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
        with: { "wasi:io": wasmtime_wasi_io::bindings::wasi::io },
    });
}

/// The embedded component in wasmtime, as our host sets it up, and nothing else around it.
struct BareHost {
    engine: Engine,
    guest: bindings::MediaGuestPre<BareState>,
}

/// State of a store: the default settings, and no media.
#[derive(Default)]
struct BareState(ResourceTable);

impl IoView for BareState {
    fn table(&mut self) -> &mut ResourceTable {
        &mut self.0
    }
}

impl settings::Host for BareState {
    fn get(&mut self) -> wasmtime::Result<Result<settings::Settings, ()>> {
        Ok(Ok(settings::Settings {
            mount_path: None,
            cors_origins: None,
            cors_max_age_s: None,
            timing_allow_origin: None,
            cross_origin_resource_policy: None,
            content_security_policy: None,
            cache_content: None,
            cache_files: None,
            negative_ttl_s: None,
            browse: None,
            uploads: None,
        }))
    }

    fn signing_keys(&mut self) -> wasmtime::Result<Result<Vec<settings::SigningKey>, ()>> {
        Ok(Ok(Vec::new()))
    }
}

/// The call opens nothing.
impl media_store::Host for BareState {
    fn open(
        &mut self,
        _key: media_store::Key,
    ) -> wasmtime::Result<Result<Resource<media_store::Object>, media_store::ErrorCode>> {
        Ok(Err(media_store::ErrorCode::NotFound))
    }

    fn list(
        &mut self,
        _folder: String,
        _query: media_store::ListQuery,
    ) -> wasmtime::Result<Result<media_store::Listing, media_store::ErrorCode>> {
        Ok(Err(media_store::ErrorCode::NotFound))
    }
}

impl media_store::HostObject for BareState {
    fn info(&mut self, _: Resource<media_store::Object>) -> wasmtime::Result<media_store::Info> {
        wasmtime::bail!("there is no object")
    }

    fn variants(
        &mut self,
        _: Resource<media_store::Object>,
    ) -> wasmtime::Result<Vec<media_store::VariantInfo>> {
        wasmtime::bail!("there is no object")
    }

    fn read(
        &mut self,
        _: Resource<media_store::Object>,
        _offset: u64,
        _length: u64,
    ) -> wasmtime::Result<Result<Resource<DynInputStream>, media_store::ReadError>> {
        wasmtime::bail!("there is no object")
    }

    fn drop(&mut self, _: Resource<media_store::Object>) -> wasmtime::Result<()> {
        wasmtime::bail!("there is no object")
    }
}

impl BareHost {
    fn new() -> Self {
        let mut pool = PoolingAllocationConfig::new();
        pool.linear_memory_keep_resident(128 * 1024)
            .async_stack_keep_resident(32 * 1024)
            .table_keep_resident(32 * 1024);
        let mut config = wasmtime::Config::new();
        config
            .allocation_strategy(pool)
            .concurrency_support(false)
            .epoch_interruption(true);
        let engine = Engine::new(&config).unwrap();
        let component = Component::new(&engine, Source::embedded().bytes()).unwrap();
        let mut linker = Linker::new(&engine);
        wasmtime_wasi_io::add_to_linker_async(&mut linker).unwrap();
        settings::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).unwrap();
        media_store::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).unwrap();
        let guest = linker.instantiate_pre(&component).unwrap();
        BareHost {
            engine,
            guest: bindings::MediaGuestPre::new(guest).unwrap(),
        }
    }

    async fn call(&self) {
        let mut store = Store::new(&self.engine, BareState::default());
        store.set_epoch_deadline(1);
        let guest = self.guest.instantiate_async(&mut store).await.unwrap();
        let request = media_serve::Request {
            method: "GET",
            path_with_query: "/nothing",
            headers: &[
                ("host", &b"millpond.test"[..]),
                ("user-agent", b"criterion"),
                ("accept", b"image/avif,image/webp,*/*;q=0.8"),
            ],
            received: 1_700_000_000_000_000_000,
            random: 7,
            client: None,
        };
        let guest = guest.millpond_media_media_serve();
        let response = guest.call_handle(&mut store, request).await.unwrap();
        assert_eq!(black_box(response).status_code, 404);
    }
}

criterion_group!(benches, handle);
criterion_main!(benches);
