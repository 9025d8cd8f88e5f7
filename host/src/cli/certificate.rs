//! Follows the certificate's files, so that a renewal needs no restart.

use anyhow::{Context, Result};
use millpond::tls::Certificate;
use std::time::Duration;
use tokio::time::timeout;

/// How often the files are read again. Renewals come weeks ahead, so this is soon enough, and two small files cost
/// nothing.
const PERIOD: Duration = Duration::from_secs(5);

/// Reads the files again from time to time, and at once when SIGHUP comes, for as long as the runtime runs. What is
/// wrong with them is said once.
///
/// # Errors
/// When the system has no way to wait for SIGHUP.
pub(crate) fn follow(certificate: Certificate) -> Result<()> {
    let mut asked = Asked::new().context("cannot wait for SIGHUP")?;
    tokio::spawn(async move {
        let mut told = String::new();
        loop {
            // It is time to look, whichever it was.
            let _ = timeout(PERIOD, asked.next()).await;
            let certificate = certificate.clone();
            let reload = tokio::task::spawn_blocking(move || certificate.reload());
            let error = match reload.await {
                Ok(Ok(is_new)) => {
                    if is_new {
                        tracing::info!("the certificate was renewed");
                    }
                    String::new()
                }
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            if !error.is_empty() && error != told {
                tracing::error!(%error, "the certificate was not renewed; the one before stays");
            }
            told = error;
        }
    });
    Ok(())
}

/// SIGHUP, where there is such a thing.
#[cfg(unix)]
struct Asked(tokio::signal::unix::Signal);

#[cfg(unix)]
impl Asked {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Asked(signal(SignalKind::hangup())?))
    }

    async fn next(&mut self) {
        self.0.recv().await;
    }
}

#[cfg(not(unix))]
struct Asked;

#[cfg(not(unix))]
impl Asked {
    fn new() -> std::io::Result<Self> {
        Ok(Asked)
    }

    async fn next(&mut self) {
        std::future::pending().await
    }
}
