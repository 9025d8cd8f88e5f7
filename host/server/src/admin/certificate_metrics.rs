//! Metric of a certificate.

use crate::tls::Certificate;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::time::UNIX_EPOCH;

/// Registers `millpond_certificate_expiry_timestamp_seconds`: the time at which the certificate in use expires, in seconds
/// since the Unix epoch. It follows each reload.
pub fn register_certificate(registry: &mut Registry, certificate: &Certificate) {
    let certificate = certificate.clone();
    registry.register_collector(Box::new(CertificateCollector(certificate)));
}

#[derive(Debug)]
struct CertificateCollector(Certificate);

impl Collector for CertificateCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(expiry) = self.0.expiry() else {
            return Ok(());
        };
        let since = expiry.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = ConstGauge::new(since.as_secs_f64());
        let help = "Time at which the certificate expires, in seconds since the Unix epoch.";
        let (unit, metric_type) = (Some(&Unit::Seconds), seconds.metric_type());
        let name = "millpond_certificate_expiry_timestamp";
        seconds.encode(encoder.encode_descriptor(name, help, unit, metric_type)?)
    }
}
