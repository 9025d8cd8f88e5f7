//! The same component in other hosts: the table of requests and answers, a small and a large file, and clients that
//! leave.
//!
//! [`runtime`] starts each host, and [`outcome`] is the result of a run in `target/hosts`. `cargo xtask hosts` runs all hosts
//! whose programs are installed, and writes docs/hosts.md from the results. Tests of hosts that need another program are
//! ignored by default.

mod outcome;
mod runtime;

use crate::conformance::{self, Settings};
use crate::host::noise;
use millpond::store::Importer;
use outcome::Outcome;
use runtime::{Runtime, Serves, Started};
pub(crate) use runtime::{component_path, installed, root};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn millpond_runs_its_own_component() {
    run(Runtime::millpond(None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn millpond_runs_the_component_for_wasi_0_2() {
    run(Runtime::millpond(Some("millpond-http-p2.wasm"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn millpond_runs_the_component_for_wasi_0_3() {
    run(Runtime::millpond(Some("millpond-http-p3.wasm"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs wasmtime"]
async fn wasmtime_serve_runs_the_component_for_wasi_0_2() {
    run(Runtime::wasmtime_serve("millpond-http-p2.wasm", &[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs wasmtime"]
async fn wasmtime_serve_runs_the_component_for_wasi_0_3() {
    run(Runtime::wasmtime_serve("millpond-http-p3.wasm", &[])).await;
}

/// An instance that is taken up again for another request, or for many at once, must cut no body short.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs wasmtime"]
async fn wasmtime_serve_uses_an_instance_of_wasi_0_3_again() {
    for (uses, at_once) in [("1", "1"), ("2", "2"), ("128", "16")] {
        let flags = [
            format!("--max-instance-reuse-count={uses}"),
            format!("--max-instance-concurrent-reuse-count={at_once}"),
        ];
        let flags = flags.each_ref().map(String::as_str);
        run(Runtime::wasmtime_serve("millpond-http-p3.wasm", &flags)).await;
    }
}

/// Both ways of moving a body are right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs wasmtime"]
async fn wasmtime_serve_splices_bodies() {
    let flags = ["--env=MILLPOND_PUMP=splice"];
    run(Runtime::wasmtime_serve("millpond-http-p2.wasm", &flags)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs wash"]
async fn wasmcloud_runs_the_component_for_wasi_0_2() {
    run(Runtime::wasmcloud("millpond-http-p2.wasm")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs wash"]
async fn wasmcloud_runs_the_component_for_wasi_0_3() {
    run(Runtime::wasmcloud("millpond-http-p3.wasm")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs wash"]
async fn wasmcloud_runs_the_component_over_its_blobstore() {
    run(Runtime::wasmcloud_blobstore()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs jco"]
async fn jco_serves_the_component_for_wasi_0_2() {
    run(Runtime::jco_serve(&[])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs jco"]
async fn jco_serves_each_request_from_an_instance_of_its_own() {
    run(Runtime::jco_serve(&["--isolate-requests=instance"])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs node"]
async fn the_package_for_node_answers_as_the_table_says() {
    run(Runtime::node()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs python"]
async fn the_package_for_python_answers_as_the_table_says() {
    run(Runtime::python()).await;
}

/// Puts the table and the loads to a host, and keeps what came of it.
async fn run(runtime: Runtime) {
    let mut outcome = Outcome::new(&runtime);
    let differences = answers(&runtime).await;
    outcome.topics = differences.topics;
    let folder = tempfile::tempdir().unwrap();
    let small = put(folder.path(), &runtime, "small.gif", 500_000);
    let large = put(folder.path(), &runtime, "large.mp4", 50_000_000);
    let started = runtime.start(folder.path(), &Settings::new());
    tokio::task::block_in_place(|| {
        outcome.small = load(&started, &small, 500_000);
        outcome.large = load(&started, &large, 50_000_000);
        // One that is known to keep something keeps it however long that is waited for.
        let minutes = if runtime.harmed_by_leaving.is_some() {
            0.5
        } else {
            5.0
        };
        let patience = Duration::from_secs_f64(minutes * 60.0);
        outcome.disconnects = disconnect(&started, &large, patience);
    });
    outcome.keep();
    let unexpected = runtime.unexpected(&differences.failures);
    assert!(
        unexpected.is_empty(),
        "{}: {} of {} went otherwise:\n{}",
        runtime.name,
        unexpected.len(),
        differences.exchanges,
        unexpected.concat()
    );
    outcome.disconnects.assert_as_known(&runtime);
}

/// Puts a file of that length where the host has it, and gives its target.
fn put(folder: &Path, runtime: &Runtime, name: &str, length: usize) -> String {
    let path = folder.join(name);
    fs::write(&path, noise(length)).unwrap();
    match runtime.serves {
        Serves::All => format!("/media/{name}"),
        Serves::MediaByContent => {
            let added = Importer::open(folder).unwrap().add(&path, |_| ()).unwrap();
            format!("/api/media/{}", added.id)
        }
    }
}

/// Asks a host everything in the table, started anew for each path that it serves files at.
async fn answers(runtime: &Runtime) -> conformance::Differences {
    let serves = |target: &str| runtime.serves.has(target);
    conformance::put_to(serves, async |fixtures, settings| {
        let folder = tempfile::tempdir().unwrap();
        fixtures.put_into(folder.path());
        let started = runtime.start(folder.path(), settings);
        (started.address, (folder, started))
    })
    .await
}

/// Takes a file a few times, one after the other, and looks at what the host has while it gives it.
fn load(started: &Started, target: &str, length: u64) -> outcome::Load {
    const TIMES: u32 = 5;
    get(started.address, target, length);
    let before_bytes = started.memory_bytes();
    let mut most_bytes = 0;
    let mut spent = Duration::ZERO;
    for _ in 0..TIMES {
        let mut begun = Instant::now();
        let mut stream = ask(started.address, target);
        let mut buffer = vec![0; 64 * 1024];
        let mut looked = 0;
        let mut taken = 0;
        loop {
            let count = stream.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            taken += count;
            // Looking takes longer than reading, and is no time of the host's.
            if taken >= looked + 5_000_000 || looked == 0 {
                spent += begun.elapsed();
                most_bytes = most_bytes.max(started.memory_bytes());
                looked = taken;
                begun = Instant::now();
            }
        }
        spent += begun.elapsed();
    }
    outcome::Load {
        milliseconds: spent.as_secs_f64() * 1000.0 / f64::from(TIMES),
        memory_bytes: most_bytes,
        grown_bytes: most_bytes.saturating_sub(before_bytes),
    }
}

/// Asks for a file, takes some of it and leaves, 200 times; then looks at what is left alive of it.
fn disconnect(started: &Started, target: &str, patience: Duration) -> outcome::Disconnects {
    const TIMES: usize = 200;
    get(started.address, target, 50_000_000);
    let before = started.alive();
    let mut stalled = 0;
    for place in noise(TIMES * 4).chunks_exact(4) {
        let place = u32::from_le_bytes(place.try_into().unwrap());
        let mut stream = ask(started.address, target);
        let mut buffer = vec![0; (place % 1_000_000) as usize];
        // Leaving in the middle of a read is the point: what was read does not matter, but that something was.
        if stream.read(&mut buffer).is_err() {
            stalled += 1;
        }
        drop(stream);
        if stalled > 2 {
            break;
        }
    }
    // A busy machine takes its time over what is let go of, as over a file that is still read for its digest.
    let until = Instant::now() + patience;
    let mut after = started.alive();
    while !after.is_no_more_than(&before) && Instant::now() < until {
        std::thread::yield_now();
        after = started.alive();
    }
    let still_serves = get(started.address, target, 50_000_000);
    outcome::Disconnects {
        times: TIMES,
        stalled,
        before,
        after,
        still_serves,
    }
}

fn ask(address: SocketAddr, target: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let patience = Duration::from_secs(5);
    stream.set_read_timeout(Some(patience)).unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Whether the whole file comes.
fn get(address: SocketAddr, target: &str, length: u64) -> bool {
    let mut answer = Vec::new();
    let read = ask(address, target).read_to_end(&mut answer);
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    read.is_ok() && head.is_some_and(|head| (answer.len() - head - 4) as u64 == length)
}
