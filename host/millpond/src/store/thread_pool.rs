//! Thread pools for blocking file system calls, one for each file system. If one hangs, the others continue.

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Pools of one folder, by the device number of the file system. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct ThreadPools(Arc<Pools>);

/// Threads for one file system. Clones share them. They start on demand, and end when they are idle.
#[derive(Clone)]
pub(crate) struct ThreadPool(Arc<Pool>);

/// The error of an open beyond the maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file system does not answer: {0} files are being opened")]
pub(crate) struct PoolFull(usize);

/// Maximum number of threads of one pool. A network file system answers that many at a time.
const THREADS: usize = 16;

/// Default maximum number of opens of one file system: one for each thread, and as many waiting.
const OPENS: usize = 2 * THREADS;

/// Maximum number of pools of one folder. Further file systems share the last one.
const POOLS: usize = 16;

/// Stack of a thread, in bytes. It holds paths and one buffer.
const STACK_BYTES: usize = 256 * 1024;

/// Time after which an idle thread ends.
const IDLE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Pools {
    by_device: Mutex<HashMap<u64, ThreadPool>>,
    max_opens: Arc<AtomicUsize>,
}

struct Pool {
    state: Mutex<PoolState>,
    job_queued: Condvar,
    max_opens: Arc<AtomicUsize>,
    /// Whether a thread computes a digest.
    is_digesting: Arc<AtomicBool>,
}

#[derive(Default)]
struct PoolState {
    jobs: VecDeque<Job>,
    threads: usize,
    idle_threads: usize,
    opens: usize,
}

type Job = Box<dyn FnOnce() + Send>;

impl ThreadPools {
    pub(super) fn new() -> Self {
        ThreadPools(Arc::new(Pools {
            by_device: Mutex::default(),
            max_opens: Arc::new(AtomicUsize::new(OPENS)),
        }))
    }

    /// Sets the maximum number of opens of one file system. Each occupies an instance.
    pub(super) fn limit_opens(&self, most: usize) {
        let most = most.clamp(1, OPENS);
        self.0.max_opens.store(most, Ordering::Relaxed);
    }

    /// Returns the pool of a file system.
    pub(super) fn of(&self, device: u64) -> ThreadPool {
        /// A device number that no file system has.
        const OTHERS: u64 = u64::MAX;
        let mut by_device = self.0.by_device.lock();
        if let Some(pool) = by_device.get(&device) {
            return pool.clone();
        }
        by_device.retain(|_, pool| pool.is_used());
        let is_last = by_device.len() + 1 >= POOLS;
        let device = if is_last { OTHERS } else { device };
        let new = || ThreadPool::new(Arc::clone(&self.0.max_opens));
        by_device.entry(device).or_insert_with(new).clone()
    }
}

impl ThreadPool {
    fn new(max_opens: Arc<AtomicUsize>) -> Self {
        ThreadPool(Arc::new(Pool {
            state: Mutex::default(),
            job_queued: Condvar::new(),
            max_opens,
            is_digesting: Arc::default(),
        }))
    }

    /// Returns whether another handle exists, or a thread is alive.
    fn is_used(&self) -> bool {
        // One reference is the map's. A live thread has another.
        Arc::strong_count(&self.0) > 1
    }

    /// Runs an open on a thread of the pool. If the returned task is dropped first, it does not run.
    ///
    /// # Errors
    /// [`PoolFull`].
    pub(super) fn open<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<BlockingTask<T>, PoolFull> {
        let mut state = self.0.state.lock();
        let most = self.0.max_opens.load(Ordering::Relaxed);
        if state.opens >= most {
            return Err(PoolFull(state.opens));
        }
        state.opens += 1;
        let under_way = OpenCount(Arc::clone(&self.0));
        let (task, job) = task(job);
        let job = move || {
            let _under_way = under_way;
            job();
        };
        self.run(state, Box::new(job));
        Ok(task)
    }

    /// Runs a job for an open file on a thread of the pool. An open file has one job at a time, so there is no limit.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> BlockingTask<T> {
        let (task, job) = task(job);
        self.run(self.0.state.lock(), Box::new(job));
        task
    }

    /// Runs a job without a result, such as closing a file.
    pub(super) fn detach(&self, job: impl FnOnce() + Send + 'static) {
        self.run(self.0.state.lock(), Box::new(job));
    }

    /// Whether a file of the file system is being read for its digest.
    pub(super) fn is_digesting(&self) -> &Arc<AtomicBool> {
        &self.0.is_digesting
    }

    fn run(&self, mut state: MutexGuard<'_, PoolState>, job: Job) {
        state.jobs.push_back(job);
        if state.idle_threads >= state.jobs.len() {
            self.0.job_queued.notify_one();
            return;
        }
        if state.threads >= THREADS {
            return;
        }
        state.threads += 1;
        let has_others = state.threads > 1;
        drop(state);
        let pool = Arc::clone(&self.0);
        let thread = thread::Builder::new().name("millpond-files".into());
        let started = thread.stack_size(STACK_BYTES).spawn(move || pool.serve());
        if let Err(error) = started {
            let mut state = self.0.state.lock();
            state.threads -= 1;
            // Without another thread, nobody would run the jobs. Dropping them fails their tasks.
            if !has_others {
                let undone = std::mem::take(&mut state.jobs);
                drop(state);
                drop(undone);
            }
            tracing::warn!(%error, "cannot start a file system thread");
        }
    }
}

impl Pool {
    /// Runs jobs on the current thread, until none arrives for a while.
    fn serve(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // A panic drops the job, which fails its task.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.state.lock();
                continue;
            }
            state.idle_threads += 1;
            let timeout = self.job_queued.wait_for(&mut state, IDLE);
            state.idle_threads -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        f.debug_struct("ThreadPool")
            .field("threads", &state.threads)
            .field("waiting", &state.jobs.len())
            .field("opens", &state.opens)
            .finish()
    }
}

/// Returns the task of a job, and the job that completes it. If the task is dropped first, the job does nothing.
fn task<T>(job: impl FnOnce() -> T) -> (BlockingTask<T>, impl FnOnce()) {
    let (result_tx, result_rx) = oneshot::channel();
    let job = move || {
        if !result_tx.is_closed() {
            let _ = result_tx.send(job());
        }
    };
    (BlockingTask::Pool(result_rx), job)
}

/// Counts an open, running or waiting, until it is dropped.
struct OpenCount(Arc<Pool>);

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.0.state.lock().opens -= 1;
    }
}

/// Work on a blocking thread, as a future of its result.
#[derive(Debug)]
pub(crate) enum BlockingTask<T> {
    /// On a thread of the runtime, for work that waits for a local disk at most.
    Runtime(JoinHandle<T>),
    /// On a thread of a file system's pool.
    Pool(oneshot::Receiver<T>),
}

impl<T> Future for BlockingTask<T> {
    /// An error if the work panicked, or no thread could be started.
    type Output = io::Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        Poll::Ready(match self.get_mut() {
            BlockingTask::Runtime(task) => {
                ready!(Pin::new(task).poll(cx)).map_err(io::Error::other)
            }
            BlockingTask::Pool(result_rx) => ready!(Pin::new(result_rx).poll(cx))
                .map_err(|_| io::Error::other("the thread ended without a result")),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc;

    /// Work that signals its start, and ends on a signal.
    fn hanging() -> (
        impl FnOnce() + Send + 'static,
        mpsc::Receiver<()>,
        mpsc::Sender<()>,
    ) {
        let (begin, started) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let job = move || {
            begin.send(()).unwrap();
            let _ = released.recv();
        };
        (job, started, release)
    }

    #[tokio::test]
    async fn a_file_system_that_hangs_holds_its_own_threads_only_and_goes_on_when_it_answers() {
        let pools = ThreadPools::new();
        let mut hanging_opens = Vec::new();
        for _ in 0..OPENS {
            let (job, started, release) = hanging();
            let open = pools.of(1).open(job).unwrap();
            hanging_opens.push((open, started, release));
        }
        // One open for each thread has started. The others wait, and a further one is rejected.
        for (_, started, _) in &hanging_opens[..THREADS] {
            started.recv().unwrap();
        }
        assert!(hanging_opens[THREADS].1.try_recv().is_err());
        assert_eq!(pools.of(1).open(|| ()).unwrap_err(), PoolFull(OPENS));
        assert_eq!(pools.of(2).open(|| 7).unwrap().await.unwrap(), 7);
        // Jobs of open files wait without a limit.
        let read = pools.of(1).spawn(|| 8);
        for (open, _, release) in hanging_opens {
            drop(release);
            open.await.unwrap();
        }
        assert_eq!(read.await.unwrap(), 8);
        assert_eq!(pools.of(1).open(|| 9).unwrap().await.unwrap(), 9);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_is_not_begun() {
        let pools = ThreadPools::new();
        pools.limit_opens(1);
        let pool = pools.of(1);
        let mut releases = Vec::new();
        for _ in 0..THREADS {
            let (job, started, release) = hanging();
            pool.detach(job);
            started.recv().unwrap();
            releases.push(release);
        }
        let (begin, started) = mpsc::channel();
        let given_up = pool.open(move || begin.send(())).unwrap();
        assert_eq!(pool.open(|| ()).unwrap_err(), PoolFull(1));
        drop(given_up);
        let after = pool.spawn(|| ());
        drop(releases);
        after.await.unwrap();
        assert!(started.recv().is_err());
    }

    #[tokio::test]
    async fn a_panic_is_the_works_own_failure() {
        let pool = ThreadPools::new().of(1);
        let panicked = pool.open(|| panic!("as the test wants")).unwrap();
        assert!(panicked.await.is_err());
        assert_eq!(pool.open(|| 1).unwrap().await.unwrap(), 1);
    }

    #[test]
    fn there_are_so_many_pools_at_most() {
        let pools = ThreadPools::new();
        let held: Vec<_> = (0..1000).map(|device| pools.of(device)).collect();
        assert_eq!(pools.0.by_device.lock().len(), POOLS);
        drop(held);
        pools.of(2000);
        assert_eq!(pools.0.by_device.lock().len(), 1);
    }
}
