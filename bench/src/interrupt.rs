//! What a measurement leaves behind when somebody interrupts it: nothing.

use anyhow::{Context, Result, bail};
use std::future::Future;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a measurement on a runtime until it ends or SIGINT or SIGTERM comes; whichever it is, the servers that it has
/// started are dropped, and so ended.
pub(crate) fn unless_interrupted<T>(
    runtime: &mut Builder,
    measurement: impl Future<Output = Result<T>>,
) -> Result<T> {
    let runtime = runtime
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        tokio::select! {
            measured = measurement => measured,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}
