//! Statistics of the process's allocator, and memory growth by route.
//!
//! The library uses the program's allocator. A program whose allocator keeps statistics registers them with
//! [`install`], as the command `millpond` does. Without them the [`monitor`](crate::monitor) falls back to the kernel's
//! figures.

use crate::route::Route;
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

/// An allocator that keeps statistics.
pub trait Heap: Send + Sync {
    /// Returns the current statistics.
    fn stats(&self) -> HeapStats;

    /// Returns the bytes that the calling thread has allocated minus those that it has freed. Negative for a thread
    /// that frees memory of other threads.
    fn thread_bytes(&self) -> i64;

    /// Returns the allocator's own report, as text.
    fn report(&self) -> String;
}

/// Statistics of an allocator, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeapStats {
    /// Memory that the program holds, rounded up to the allocator's size classes.
    pub allocated_bytes: u64,
    /// Pages that contain allocated memory.
    pub active_bytes: u64,
    /// Resident pages of the allocator, including the empty ones that it retains.
    pub resident_bytes: u64,
}

static HEAP: OnceLock<&'static dyn Heap> = OnceLock::new();

/// Sets the process's allocator statistics. Call it once at the start; later calls have no effect.
pub fn install(heap: &'static dyn Heap) {
    let _ = HEAP.set(heap);
}

/// Returns the allocator that was passed to [`install`].
pub fn installed() -> Option<&'static dyn Heap> {
    HEAP.get().copied()
}

fn thread_bytes() -> i64 {
    installed().map_or(0, Heap::thread_bytes)
}

/// Wraps `work` so that the bytes it leaves on the heap count towards `route`.
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

/// Wraps `future` so that the bytes its polls leave on the heap count towards `route`.
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

/// Attributes the heap growth of a connection's task to the routes that it serves.
///
/// Bytes that the task allocated but did not free between two requests count towards the first request's route. The
/// figure is approximate, because the connection's own buffers are part of it until the connection ends. A route that
/// leaks shows nevertheless.
#[derive(Debug, Default)]
pub struct AllocTracker {
    /// Heap growth of the completed polls.
    done_bytes: AtomicI64,
    /// [`Heap::thread_bytes`] when the current poll began.
    poll_began_bytes: AtomicI64,
    tracked: Mutex<Option<TrackedRequest>>,
}

#[derive(Debug)]
struct TrackedRequest {
    route: Arc<Route>,
    from_bytes: i64,
}

impl AllocTracker {
    /// Marks the start of a request of `route` on this task.
    pub fn begin_request(&self, route: &Arc<Route>) {
        if installed().is_some() {
            let poll_bytes = thread_bytes() - self.poll_began_bytes.load(Ordering::Relaxed);
            let now_bytes = self.done_bytes.load(Ordering::Relaxed) + poll_bytes;
            self.attribute_to(now_bytes, Some(route));
        }
    }

    /// Attributes the growth since the last request to its route, and starts with `next`.
    fn attribute_to(&self, now_bytes: i64, next: Option<&Arc<Route>>) {
        let mut tracked = self.tracked.lock();
        let last = tracked.take();
        *tracked = next.map(|route| TrackedRequest {
            route: Arc::clone(route),
            // The connection's own buffers count towards its first request. They are freed with the connection, so they
            // cancel out.
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

/// Future of a connection's task, which tracks the allocations of each poll.
pub struct TrackAllocs<F> {
    task: Option<Pin<Box<F>>>,
    tracker: Arc<AllocTracker>,
}

impl<F> TrackAllocs<F> {
    /// Makes the task's future, and tracks the allocations of that too.
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
            // Polled after completion, for which the result of a future is unspecified.
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
