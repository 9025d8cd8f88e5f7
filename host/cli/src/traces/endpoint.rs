//! URL of the collector, from the option or from the variables of OpenTelemetry.

use anyhow::{Result, anyhow};
use http::Uri;
use opentelemetry_otlp::{OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT};
use std::env;
use std::fmt;
use std::str::FromStr;

/// URL of a collector, to which the path of a signal is appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CollectorUrl(Uri);

/// URL to which traces are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TracesEndpoint(Uri);

/// The error of a URL to which nothing can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidUrl {
    #[error("a URL of http or https is needed, as in http://127.0.0.1:4318")]
    Form,
    #[error("a URL without user and password is needed: OTEL_EXPORTER_OTLP_HEADERS has those")]
    UserInfo,
}

impl FromStr for CollectorUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        http_url(text).map(CollectorUrl)
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn http_url(text: &str) -> Result<Uri, InvalidUrl> {
    let url: Uri = text.parse().map_err(|_| InvalidUrl::Form)?;
    let authority = url.authority().map_or("", |authority| authority.as_str());
    match url.scheme_str() {
        _ if authority.contains('@') => Err(InvalidUrl::UserInfo),
        Some("http" | "https") if url.host().is_some_and(|host| !host.is_empty()) => {
            match url.query() {
                None => Ok(url),
                Some(_) => Err(InvalidUrl::Form),
            }
        }
        _ => Err(InvalidUrl::Form),
    }
}

impl TracesEndpoint {
    /// Returns the endpoint of the given collector, or else the one of the variables of OpenTelemetry. `None` if traces
    /// are off.
    ///
    /// # Errors
    /// A variable has no URL of `http` or `https`.
    pub(crate) fn resolve(given: Option<&CollectorUrl>) -> Result<Option<Self>> {
        let variable = |name: &'static str| {
            let value = env::var_os(name).filter(|value| !value.is_empty());
            value.map(|value| value.to_string_lossy().into_owned())
        };
        resolve_by(given, variable)
    }

    /// The URL as text.
    pub(super) fn url(&self) -> String {
        self.0.to_string()
    }

    /// TCP port of the collector.
    pub(crate) fn port(&self) -> u16 {
        let default = if self.is_https() { 443 } else { 80 };
        self.0.port_u16().unwrap_or(default)
    }

    /// Whether the connection is encrypted.
    pub(super) fn is_https(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }
}

fn resolve_by(
    given: Option<&CollectorUrl>,
    variable: impl Fn(&'static str) -> Option<String>,
) -> Result<Option<TracesEndpoint>> {
    let is = |name, value: &str| {
        variable(name).is_some_and(|found: String| found.eq_ignore_ascii_case(value))
    };
    let is_off = is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none");
    let parsed = |name: &'static str| {
        let url = variable(name).map(|url| http_url(&url));
        url.transpose().map_err(|error| anyhow!("{name}: {error}"))
    };
    if is_off {
        return Ok(None);
    }
    if let Some(CollectorUrl(url)) = given {
        return Ok(Some(of_collector(url)));
    }
    if let Some(url) = parsed(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT)? {
        return Ok(Some(TracesEndpoint(url)));
    }
    let url = parsed(OTEL_EXPORTER_OTLP_ENDPOINT)?;
    Ok(url.as_ref().map(of_collector))
}

/// Appends the path of traces to the URL of a collector, as OTLP has it.
fn of_collector(url: &Uri) -> TracesEndpoint {
    let text = url.to_string();
    let text = format!("{}/v1/traces", text.trim_end_matches('/'));
    // A longer path makes no URL invalid, unless it exceeds the maximum length of one.
    TracesEndpoint(text.parse().unwrap_or_else(|_| url.clone()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_url_of_http_or_https_is_a_collector() {
        for url in [
            "http://127.0.0.1:4318",
            "https://otel.example/base/",
            "http://[::1]:4318/",
        ] {
            assert!(url.parse::<CollectorUrl>().is_ok(), "{url}");
        }
        for url in [
            "",
            "4318",
            "127.0.0.1:4318",
            "localhost",
            "grpc://a:4317",
            "ftp://a",
            "http://",
            "/v1/traces",
            "http://a/?b",
            "http:// a",
        ] {
            assert_eq!(url.parse::<CollectorUrl>(), Err(InvalidUrl::Form), "{url}");
        }
        let with_password = "https://a:b@c".parse::<CollectorUrl>();
        assert_eq!(with_password, Err(InvalidUrl::UserInfo));
    }

    #[test]
    fn the_option_comes_before_the_variables_and_that_of_traces_before_the_other() {
        let of_traces = (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, "http://t/own");
        let of_all = (OTEL_EXPORTER_OTLP_ENDPOINT, "http://all/");
        let resolve = |given: Option<&str>, variables: &[(&str, &str)]| {
            let given = given.map(|url| url.parse().unwrap());
            let variable = |name: &'static str| {
                let found = variables.iter().find(|(found, _)| *found == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let endpoint = resolve_by(given.as_ref(), variable);
            endpoint.map(|endpoint| endpoint.map(|endpoint| endpoint.url()))
        };
        let url = |text: &str| Some(text.to_owned());
        assert_eq!(resolve(None, &[]).unwrap(), None);
        assert_eq!(
            resolve(Some("https://o/x"), &[of_traces, of_all]).unwrap(),
            url("https://o/x/v1/traces")
        );
        assert_eq!(
            resolve(None, &[of_traces, of_all]).unwrap(),
            url("http://t/own")
        );
        assert_eq!(
            resolve(None, &[of_all]).unwrap(),
            url("http://all/v1/traces")
        );
        for off in [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ] {
            assert_eq!(resolve(Some("http://o"), &[off, of_all]).unwrap(), None);
        }
        let error = resolve(None, &[(OTEL_EXPORTER_OTLP_ENDPOINT, "all:4317")]).unwrap_err();
        let error = error.to_string();
        assert!(
            error.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: a URL of"),
            "{error}"
        );
    }
}
