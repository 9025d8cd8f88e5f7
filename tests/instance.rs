//! Heap of a live instance, and the charge in its request's ledger, which is never less.

use crate::hosts::component_path;
use millpond::ledger::{Kind, LedgerHandle, MemoryDomain};
use millpond::store::{Folder, MediaObject, MediaStore, ObjectKey, OpenError};
use millpond::{Config, Limits, Millpond, Source};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use tikv_jemalloc_ctl::thread;

/// The allocator of this program keeps count for each thread.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measured heap of a request with a live instance, and the charge for it, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    measured: usize,
    /// For the instance, by what its component is made of.
    instance: usize,
    /// For what else was in use on the heap.
    others: usize,
}

impl Taken {
    /// The ledger says enough, and not so much that nothing could be told from it.
    pub(crate) fn assert_charged(self, name: &str) {
        println!("{name}: {self:?}");
        assert!(
            self.measured <= self.instance + self.others,
            "{name}: {self:?}"
        );
        assert!(self.instance <= 3 * self.measured, "{name}: {self:?}");
    }
}

/// A store whose `open` never returns.
#[derive(Default)]
struct Never {
    is_asked: AtomicBool,
}

impl MediaStore for Never {
    async fn open(
        &self,
        _key: &ObjectKey,
        _ledger: &LedgerHandle,
    ) -> Result<MediaObject, OpenError> {
        self.is_asked.store(true, Ordering::Relaxed);
        std::future::pending().await
    }

    fn runs_on_fiber_stack(&self) -> bool {
        true
    }
}

/// Bytes that this thread has allocated, less those that it has freed: fewer than none, where others allocated them.
fn thread_bytes() -> i64 {
    let allocated = thread::allocatedp::read().unwrap().get();
    let freed = thread::deallocatedp::read().unwrap().get();
    allocated.wrapping_sub(freed).cast_signed()
}

fn limits(request_memory_bytes: usize) -> Limits {
    crate::host::with(|limits: &mut Limits| {
        limits.memory_bytes = 4 << 30;
        limits.request_memory_bytes = request_memory_bytes;
        limits.concurrent_instances = 2;
        // A language runtime in a component takes its time on a busy machine.
        limits.cpu = std::time::Duration::from_secs(60);
    })
}

fn request() -> http::Request<()> {
    let request = http::Request::get("/media/a.gif").header("host", "a");
    request.body(()).unwrap()
}

/// Of a guest for `media-serve`, while it waits for the store.
pub(crate) async fn of_waiting_guest(source: &Source, request_memory_bytes: usize) -> Taken {
    let limits = limits(request_memory_bytes);
    let store = Arc::new(Never::default());
    let config = Config::default();
    let millpond = Millpond::new(source, Arc::clone(&store), &config, limits).unwrap();
    // The first one finds the engine's own memory not yet as it stays.
    let mut taken = None;
    for _ in 0..2 {
        let mut answer = Box::pin(millpond.serve(request()));
        let before = thread_bytes();
        store.is_asked.store(false, Ordering::Relaxed);
        poll_fn(|cx| {
            assert!(answer.as_mut().poll(cx).is_pending(), "it opens nothing");
            // Until then it only lets others go on.
            match store.is_asked.load(Ordering::Relaxed) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        let measured = usize::try_from(thread_bytes() - before).unwrap();
        assert_eq!(millpond.registry().in_use().stores(), 1);
        let held = millpond.registry().snapshot().total();
        let instance = held.of(Kind::Instance);
        // It has no handle yet, and room for many is charged.
        let others = held.in_domain(MemoryDomain::Heap) - instance - held.of(Kind::Handles);
        taken = Some(Taken {
            measured,
            instance,
            others,
        });
    }
    taken.unwrap()
}

/// Heap of a component for `wasi:http`, while its response waits for its reader.
async fn of_running_component(source: &Source) -> Taken {
    let folder = tempfile::tempdir().unwrap();
    // More than lies in buffers, so that the instance is not done with it.
    std::fs::write(folder.path().join("a.gif"), vec![7; 2_000_000]).unwrap();
    let store = Folder::open(folder.path()).unwrap();
    let limits = limits(4 << 20);
    let millpond = Millpond::new(source, store, &Config::default(), limits).unwrap();
    let mut taken = None;
    for _ in 0..2 {
        let before = thread_bytes();
        let answer = millpond.serve(request()).await;
        assert_eq!(answer.status(), 200);
        let measured = usize::try_from(thread_bytes() - before).unwrap();
        assert_eq!(millpond.registry().in_use().stores(), 1);
        let held = millpond.registry().snapshot().total();
        let instance = held.of(Kind::Instance);
        let others = held.in_domain(MemoryDomain::Heap) - instance;
        taken = Some(Taken {
            measured,
            instance,
            others,
        });
        drop(answer);
        millpond.registry().idle().await;
    }
    taken.unwrap()
}

#[tokio::test]
async fn an_instance_of_the_embedded_component_takes_no_more_than_its_ledger_says() {
    let taken = of_waiting_guest(&Source::embedded(), 1 << 20).await;
    taken.assert_charged("embedded");
}

#[tokio::test]
async fn an_instance_of_a_component_for_wasi_http_takes_no_more_than_its_ledger_says() {
    for name in ["millpond-http-p2.wasm", "millpond-http-p3.wasm"] {
        let source = Source::from_file(&component_path(name)).unwrap();
        of_running_component(&source).await.assert_charged(name);
    }
}

/// As one has that a language runtime came with: many core instances, and many functions in a table.
#[tokio::test]
async fn an_instance_of_many_parts_takes_no_more_than_its_ledger_says() {
    let embedded = Source::embedded();
    let parts = crate::hostile_guests::with_core_instances(embedded.bytes(), 50);
    let source = Source::from_bytes("many parts", parts);
    let taken = of_waiting_guest(&source, 2 << 20).await;
    taken.assert_charged("many parts");
}

/// Once, it answered 404 to everything, which looks like an empty folder.
#[tokio::test]
async fn a_component_without_its_folder_fails_and_does_not_say_that_there_is_nothing() {
    for name in ["millpond-http-p2.wasm", "millpond-http-p3.wasm"] {
        let source = Source::from_file(&component_path(name)).unwrap();
        // A store that is no folder gives such a component none.
        let store = Never::default();
        let config = Config::default();
        let millpond = Millpond::new(&source, store, &config, limits(4 << 20)).unwrap();
        assert_eq!(millpond.serve(request()).await.status(), 500, "{name}");
    }
}
