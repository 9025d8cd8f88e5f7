//! Memory by millpond's own account, read from its admin listener.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

/// The figures of `GET /memory` that are drawn or judged. A figure that a server does not report is zero or empty.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Memory {
    pub(crate) memory_limit_bytes: u64,
    pub(crate) kernel: Kernel,
    pub(crate) ledger: Ledger,
    pub(crate) heap_unattributed_bytes: i64,
    pub(crate) trend: Trend,
    pub(crate) requests_total: u64,
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) in_use: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Kernel {
    pub(crate) socket_bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Ledger {
    pub(crate) requests: u64,
    pub(crate) connections: u64,
    pub(crate) total_bytes: u64,
    pub(crate) by_kind: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Trend {
    pub(crate) slope_bytes_per_minute: Option<f64>,
    pub(crate) shape: Option<String>,
}

/// Timeout of one request for the figures. The next sample tries again.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// Largest answer that is read, in bytes.
const MOST_BYTES: usize = 1024 * 1024;

/// The admin listener of one server.
pub(crate) struct Admin {
    uri: String,
    client: legacy::Client<HttpConnector, Empty<Bytes>>,
}

impl Admin {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Admin {
            uri: format!("http://{address}/memory"),
            client: legacy::Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    pub(crate) async fn memory(&self) -> Result<Memory> {
        let body = timeout(LONGEST_LOOK, self.get())
            .await
            .context("the admin listener does not answer")??;
        serde_json::from_slice(&body).context("the admin listener says what is not understood")
    }

    async fn get(&self) -> Result<Bytes> {
        let request = Request::get(&self.uri).body(Empty::new())?;
        let response = self.client.request(request).await?;
        let status = response.status();
        ensure!(status.is_success(), "the admin listener says {status}");
        let body = Limited::new(response.into_body(), MOST_BYTES);
        let body = body.collect().await.map_err(anyhow::Error::from_boxed)?;
        Ok(body.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_millpond_says_is_understood() {
        let memory: Memory = serde_json::from_str(
            r#"{"memory_limit_bytes":100,"process":{"anonymous_bytes":1,"file_bytes":2,"allocated_bytes":3},
                "kernel":{"socket_bytes":4},
                "ledger":{"requests":5,"connections":6,"total_bytes":7,"by_kind":{"buffers":8}},
                "heap_unattributed_bytes":-9,"trend":{"slope_bytes_per_minute":1.5,"shape":"flat"},
                "requests_total":10,"outcomes":{"completed":11,"aborted":0},"in_use":{"files":12}}"#,
        )
        .unwrap();
        assert_eq!(
            (memory.memory_limit_bytes, memory.kernel.socket_bytes),
            (100, 4)
        );
        assert_eq!(
            (memory.ledger.total_bytes, memory.ledger.by_kind["buffers"]),
            (7, 8)
        );
        assert_eq!(
            (memory.heap_unattributed_bytes, memory.in_use["files"]),
            (-9, 12)
        );
        assert_eq!(memory.trend.shape.as_deref(), Some("flat"));
    }

    #[test]
    fn what_it_does_not_say_is_nothing() {
        let memory: Memory = serde_json::from_str(r#"{"ledger":{"total_bytes":7}}"#).unwrap();
        assert_eq!(
            (memory.ledger.total_bytes, memory.memory_limit_bytes),
            (7, 0)
        );
    }
}
