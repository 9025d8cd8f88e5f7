//! What the process's allocator tells of itself, where it tells anything.
//!
//! The library allocates with whatever the program has. A program whose allocator keeps figures gives them by
//! [`install`]; the command does so. Without them the watch has less to go by, and says so.

use crate::route::Route;
use serde::Serialize;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

/// An allocator that keeps figures.
pub trait Heap: Send + Sync {
    /// The figures at this moment.
    fn figures(&self) -> HeapFigures;

    /// Bytes that this thread has allocated, less those that it has freed, since it began; negative for a thread
    /// that frees what others allocate.
    fn thread_bytes(&self) -> i64;

    /// What the allocator writes of itself, for a report.
    fn report(&self) -> String;
}

/// An allocator's figures, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct HeapFigures {
    /// What the program holds: what it asked for, rounded up to the allocator's sizes.
    pub allocated_bytes: u64,
    /// Pages with something of that in them.
    pub active_bytes: u64,
    /// Pages of the allocator's that are in memory, the empty ones that it keeps included.
    pub resident_bytes: u64,
}

static HEAP: OnceLock<&'static dyn Heap> = OnceLock::new();

/// Says where the figures come from: once, at the program's start. Later calls change nothing.
pub fn install(heap: &'static dyn Heap) {
    let _ = HEAP.set(heap);
}

/// The allocator that was installed.
pub fn installed() -> Option<&'static dyn Heap> {
    HEAP.get().copied()
}

fn thread_bytes() -> i64 {
    installed().map_or(0, Heap::thread_bytes)
}

/// The same work, which counts what it leaves on the heap for the route that it is done for.
pub fn attribute<T>(route: Option<Arc<Route>>, work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    move || {
        let before = thread_bytes();
        let result = work();
        if let Some(route) = route {
            route.add_heap_growth(thread_bytes() - before);
        }
        result
    }
}

/// The same future, whose polls count what they leave on the heap for the route that they are made for.
pub fn attribute_future<F: Future>(
    route: Option<Arc<Route>>,
    future: F,
) -> impl Future<Output = F::Output> {
    let mut future = Box::pin(future);
    std::future::poll_fn(move |cx| attribute(route.clone(), || future.as_mut().poll(cx))())
}

impl Route {
    fn add_heap_growth(&self, bytes: i64) {
        self.heap_growth_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What a connection's task leaves on the heap, and which route's request it was serving.
///
/// A request allocates and frees while its connection's task runs, so what that task has allocated and not freed
/// from one request to the next is what the request left behind. It is no exact figure: a connection's own buffers
/// are in it until the connection ends. But a route that leaks cannot hide in it.
#[derive(Debug, Default)]
pub struct AllocTracker {
    /// Of the steps of the task that are over.
    done_bytes: AtomicI64,
    /// What the thread's figure was when the present step began.
    poll_began_bytes: AtomicI64,
    tracked: Mutex<Option<TrackedRequest>>,
}

#[derive(Debug)]
struct TrackedRequest {
    route: Arc<Route>,
    from_bytes: i64,
}

impl AllocTracker {
    /// From now on the task serves a request of that route.
    pub fn begin_request(&self, route: &Arc<Route>) {
        if installed().is_some() {
            let poll_bytes = thread_bytes() - self.poll_began_bytes.load(Ordering::Relaxed);
            let now_bytes = self.done_bytes.load(Ordering::Relaxed) + poll_bytes;
            self.attribute_to(now_bytes, Some(route));
        }
    }

    /// Gives the route that was served what was left, and begins with the next one.
    fn attribute_to(&self, now_bytes: i64, next: Option<&Arc<Route>>) {
        let mut tracked = self.tracked.lock().unwrap_or_else(PoisonError::into_inner);
        let last = tracked.take();
        *tracked = next.map(|route| TrackedRequest {
            route: Arc::clone(route),
            // The connection's own buffers are its first request's, since they go with its last.
            from_bytes: if last.is_some() { now_bytes } else { 0 },
        });
        if let Some(last) = last {
            last.route.add_heap_growth(now_bytes - last.from_bytes);
        }
    }

    fn track<T>(&self, poll: impl FnOnce() -> T) -> T {
        let began = thread_bytes();
        self.poll_began_bytes.store(began, Ordering::Relaxed);
        let result = poll();
        self.done_bytes
            .fetch_add(thread_bytes() - began, Ordering::Relaxed);
        result
    }
}

/// A connection's task, each of whose steps is counted.
pub struct TrackAllocs<F> {
    task: Option<Pin<Box<F>>>,
    tracker: Arc<AllocTracker>,
}

impl<F> TrackAllocs<F> {
    /// Makes the task's future, and counts that already.
    pub fn new(tracker: Arc<AllocTracker>, make: impl FnOnce() -> F) -> Self {
        let task = tracker.track(|| Some(Box::pin(make())));
        TrackAllocs { task, tracker }
    }
}

impl<F: Future> Future for TrackAllocs<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        match &mut this.task {
            Some(task) => this.tracker.track(|| task.as_mut().poll(cx)),
            // Polled after its end, which futures may answer as they like.
            None => Poll::Pending,
        }
    }
}

impl<F> Drop for TrackAllocs<F> {
    fn drop(&mut self) {
        let task = self.task.take();
        self.tracker.track(|| drop(task));
        let done = self.tracker.done_bytes.load(Ordering::Relaxed);
        self.tracker.attribute_to(done, None);
    }
}
