//! Renewal of the certificate.

use millpond_server::tls::Certificate;
use std::time::Duration;
use tokio::time::sleep;

/// Interval between two reads of the certificate's files. Renewals come weeks ahead, and reading two small files costs
/// nothing.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Reads the certificate's files periodically, until the runtime ends. Each new certificate logs a line, and an error is
/// logged once.
pub(crate) fn follow(certificate: Certificate) {
    tokio::spawn(async move {
        let mut last_error = String::new();
        loop {
            sleep(RELOAD_INTERVAL).await;
            let certificate = certificate.clone();
            let reload = tokio::task::spawn_blocking(move || certificate.reload());
            let error = match reload.await {
                Ok(Ok(is_new)) => {
                    if is_new {
                        tracing::info!("certificate reloaded");
                    }
                    String::new()
                }
                Ok(Err(error)) => format!("{:#}", anyhow::Error::from(error)),
                Err(error) => error.to_string(),
            };
            if !error.is_empty() && error != last_error {
                tracing::error!(%error, "cannot reload the certificate; the previous one stays in use");
            }
            last_error = error;
        }
    });
}
