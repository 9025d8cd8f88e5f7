//! Reloading of the certificate.

use crate::signals::SignalStream;
use millpond_server::tls::Certificate;
use std::time::Duration;
use tokio::time::timeout;

/// Interval between two reads of the certificate's files. Renewals come weeks ahead, and reading two small files costs
/// nothing.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Settings that SIGHUP does not change.
const UNCHANGED_SETTINGS: &str = "options, configuration and component change with a restart only";

/// Reads the certificate's files periodically, and at once on SIGHUP, until the runtime ends. An error is logged once,
/// and again for each SIGHUP. Each SIGHUP logs one line.
pub(crate) fn follow(certificate: Option<Certificate>, mut sighup: SignalStream) {
    tokio::spawn(async move {
        let Some(certificate) = certificate else {
            loop {
                sighup.next().await;
                tracing::info!("SIGHUP: there is no certificate to reload; {UNCHANGED_SETTINGS}");
            }
        };
        let mut last_error = String::new();
        loop {
            let is_requested = timeout(RELOAD_INTERVAL, sighup.next()).await.is_ok();
            let certificate = certificate.clone();
            let reload = tokio::task::spawn_blocking(move || certificate.reload());
            let error = match reload.await {
                Ok(Ok(is_new)) => {
                    if is_requested {
                        let what = if is_new { "reloaded" } else { "unchanged" };
                        tracing::info!("SIGHUP: certificate {what}; {UNCHANGED_SETTINGS}");
                    } else if is_new {
                        tracing::info!("certificate reloaded");
                    }
                    String::new()
                }
                Ok(Err(error)) => format!("{:#}", anyhow::Error::from(error)),
                Err(error) => error.to_string(),
            };
            if !error.is_empty() && (is_requested || error != last_error) {
                tracing::error!(%error, "cannot reload the certificate; the previous one stays in use");
            }
            last_error = error;
        }
    });
}
