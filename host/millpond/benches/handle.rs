//! Measures a request up to its body: an instance, a whole call, and a call that opens a file. The smallest possible
//! component gives the engine's own cost, the minimum of every request.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use criterion::{Criterion, criterion_group, criterion_main};
use http::Request;
use millpond::store::{Folder, Importer};
use millpond::{Config, Limits, Millpond, Source};
use std::fs;
use std::hint::black_box;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker};
use wasmtime::{Engine, PoolingAllocationConfig, Store};

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

criterion_group!(benches, handle);
criterion_main!(benches);
