//! What a request costs before its body moves: an instance, a whole call, and a call that opens a file.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use criterion::{Criterion, criterion_group, criterion_main};
use http::Request;
use millpond::store::{Adder, Folder};
use millpond::{Config, Limits, Millpond, Source};
use std::fs;
use std::hint::black_box;

fn handle(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("small.gif"), vec![7; 4096]).unwrap();
    let adder = Adder::open(folder.path()).unwrap();
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

criterion_group!(benches, handle);
criterion_main!(benches);
