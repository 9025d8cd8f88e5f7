//! Interruption of a measurement: it leaves no servers running.

use anyhow::{Context, Result, bail};
use std::future::Future;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a measurement on a runtime until it ends or SIGINT or SIGTERM arrives. In both cases its servers are dropped, which
/// ends them.
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
