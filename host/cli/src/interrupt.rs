//! Ends `millpond add` on a signal, without leaving temporary files.

use anyhow::{Context, Result};
use std::io;
use tokio::runtime::Builder;

/// Calls `end` on SIGINT, SIGTERM or SIGHUP, which removes temporary files and ends the process. On systems other than Unix,
/// it does so on Ctrl-C. The exit code is 128 plus the number of the signal, as in a shell.
///
/// It runs on a thread of its own, because the command may wait for a pipe or a disk.
pub(crate) fn on_interrupt(end: impl FnOnce(i32) + Send + 'static) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build();
    let runtime = runtime.context("cannot wait for signals")?;
    let guard = runtime.enter();
    let mut signals = InterruptSignals::new().context("cannot wait for signals")?;
    drop(guard);
    let wait = move || {
        let number = runtime.block_on(signals.next());
        end(128 + number);
    };
    let thread = std::thread::Builder::new().name("signals".into());
    thread.spawn(wait).context("cannot start a thread")?;
    Ok(())
}

#[cfg(unix)]
struct InterruptSignals(Vec<(i32, tokio::signal::unix::Signal)>);

#[cfg(unix)]
impl InterruptSignals {
    /// Signals that were ignored at the start stay ignored, as with `nohup`.
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut signals = Vec::new();
        for kind in [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ] {
            let number = kind.as_raw_value();
            if !is_ignored(number) {
                signals.push((number, signal(kind)?));
            }
        }
        Ok(InterruptSignals(signals))
    }

    /// Waits for a signal, and returns its number.
    async fn next(&mut self) -> i32 {
        use std::future::poll_fn;
        use std::task::Poll;
        poll_fn(|context| {
            let received = self.0.iter_mut().find_map(|(number, signal)| {
                signal.poll_recv(context).is_ready().then_some(*number)
            });
            received.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Returns whether a signal is ignored, according to `/proc/self/status` (proc_pid_status(5)). Other systems have no
/// safe call for it, so none counts as ignored.
#[cfg(unix)]
fn is_ignored(number: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << (number - 1) != 0)
}

#[cfg(not(unix))]
struct InterruptSignals;

#[cfg(not(unix))]
impl InterruptSignals {
    fn new() -> io::Result<Self> {
        Ok(InterruptSignals)
    }

    async fn next(&mut self) -> i32 {
        const INTERRUPT: i32 = 2;
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        INTERRUPT
    }
}
