//! URL of an origin.

use object_store::ObjectStoreScheme;
use sha2::{Digest, Sha256};
use std::env;
use std::fmt;
use std::str::FromStr;
use url::Url;

/// URL of an origin: a bucket of object storage, or a folder of an HTTP server.
#[derive(Clone, PartialEq, Eq)]
pub struct OriginUrl {
    url: Url,
    kind: OriginKind,
    prefix: String,
}

/// Kind of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OriginKind {
    /// S3, and services with its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
    /// Any HTTP server.
    Http,
}

/// The error of a text that is no URL of an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginUrlError {
    /// It is no URL.
    #[error(
        "{0} is no URL: s3://BUCKET/PREFIX, gs://BUCKET, az://CONTAINER or https://HOST/PATH is needed"
    )]
    Syntax(String),
    /// Its scheme is unknown.
    #[error("{0} is of no kind that is known: s3://, gs://, az://, https:// or http:// is needed")]
    Scheme(String),
    /// It has a user or a password.
    #[error("the URL has a user or a password: set the credentials in the environment")]
    Credentials,
    /// It has a query or a fragment.
    #[error("the URL has a query or a fragment, which an origin cannot have")]
    Query,
}

impl OriginUrl {
    /// Returns whether a text is meant as a URL, rather than as a path.
    #[must_use]
    pub fn looks_like(text: &str) -> bool {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        scheme.is_some_and(|scheme| {
            !scheme.is_empty()
                && scheme
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'+')
        })
    }

    /// Returns the TCP ports that requests to the origin need, those of a service for credentials among them.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        let endpoint = match self.kind {
            OriginKind::S3 => {
                variable(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"])
            }
            OriginKind::Azure => variable(&["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"]),
            OriginKind::Gcs => variable(&["GOOGLE_BASE_URL", "GOOGLE_STORAGE_EMULATOR_HOST"]),
            OriginKind::Http => None,
        };
        let endpoint = endpoint.and_then(|text| Url::parse(&text).ok());
        let endpoint = endpoint.as_ref().and_then(Url::port_or_known_default);
        let own = self.url.port_or_known_default();
        match self.kind {
            OriginKind::Http => own.into_iter().collect(),
            // The services that hand out credentials listen on port 80.
            _ => [endpoint.unwrap_or(443), 443, 80].into(),
        }
    }

    /// Returns the name of a folder for the cache of the origin. Another origin has another name.
    #[must_use]
    pub fn cache_name(&self) -> String {
        /// Maximum length of the readable part.
        const READABLE: usize = 40;
        let host = self.url.host_str().unwrap_or_default();
        let readable = host.chars().map(|c| match c {
            'a'..='z' | '0'..='9' | '.' | '-' => c,
            _ => '_',
        });
        let readable: String = readable.take(READABLE).collect();
        let endpoint = variable(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]);
        let endpoint = endpoint
            .filter(|_| self.kind == OriginKind::S3)
            .unwrap_or_default();
        let identity = format!("{endpoint}\n{}", self.url);
        let digest = Sha256::digest(identity);
        format!(
            "{}-{}",
            readable.trim_matches('.'),
            hex::encode(&digest[..8])
        )
    }

    /// Whether requests to the origin are encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        let s3 = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
        match self.kind {
            OriginKind::Http => self.url.scheme() == "https",
            OriginKind::S3 => !variable(&s3).is_some_and(|url| url.starts_with("http://")),
            OriginKind::Gcs | OriginKind::Azure => true,
        }
    }

    pub(crate) fn kind(&self) -> OriginKind {
        self.kind
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Path below the bucket that every object has, without slashes around it. Empty for an HTTP server, whose URL has it.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl FromStr for OriginUrl {
    type Err = OriginUrlError;

    fn from_str(text: &str) -> Result<Self, OriginUrlError> {
        let syntax = || OriginUrlError::Syntax(text.to_owned());
        let mut url = Url::parse(text).map_err(|_| syntax())?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(OriginUrlError::Query);
        }
        if url.password().is_some() || (!url.username().is_empty() && url.scheme() != "abfss") {
            return Err(OriginUrlError::Credentials);
        }
        let scheme = ObjectStoreScheme::parse(&url);
        let (scheme, path) = scheme.map_err(|_| OriginUrlError::Scheme(text.to_owned()))?;
        let kind = match scheme {
            ObjectStoreScheme::AmazonS3 => OriginKind::S3,
            ObjectStoreScheme::GoogleCloudStorage => OriginKind::Gcs,
            ObjectStoreScheme::MicrosoftAzure => OriginKind::Azure,
            ObjectStoreScheme::Http => OriginKind::Http,
            _ => return Err(OriginUrlError::Scheme(text.to_owned())),
        };
        if url.host_str().is_none_or(str::is_empty) {
            return Err(syntax());
        }
        // A URL of a folder may end with a slash or not.
        let folder = url.path().trim_end_matches('/').to_owned();
        url.set_path(&folder);
        let prefix = match kind {
            OriginKind::Http => String::new(),
            _ => path.to_string(),
        };
        Ok(OriginUrl { url, kind, prefix })
    }
}

impl fmt::Display for OriginUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for OriginUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns the first variable of the environment that is set.
fn variable(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| env::var(name).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_and_their_prefixes() {
        for (text, kind, prefix, shown) in [
            ("s3://media", OriginKind::S3, "", "s3://media"),
            ("s3://media/a/b/", OriginKind::S3, "a/b", "s3://media/a/b"),
            ("gs://media/a", OriginKind::Gcs, "a", "gs://media/a"),
            ("az://media/a", OriginKind::Azure, "a", "az://media/a"),
            (
                "https://a.example",
                OriginKind::Http,
                "",
                "https://a.example",
            ),
            (
                "http://a.example:81/b/",
                OriginKind::Http,
                "",
                "http://a.example:81/b",
            ),
        ] {
            let url: OriginUrl = text.parse().unwrap();
            let found = (url.kind(), url.prefix(), url.to_string());
            assert_eq!(found, (kind, prefix, shown.to_owned()), "{text}");
        }
        for text in [
            "s3://",
            "ftp://a",
            "file:///media",
            "https://u:p@a.example",
            "https://a.example/?b",
            "https://a.example/#b",
            "s3",
            "https://",
        ] {
            assert!(text.parse::<OriginUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_url_is_told_from_a_path() {
        for text in ["s3://a", "https://a", "x+y://"] {
            assert!(OriginUrl::looks_like(text), "{text}");
        }
        for text in [".", "/media", "./s3://a", "C:\\media", "a:b", "://"] {
            assert!(!OriginUrl::looks_like(text), "{text}");
        }
    }

    #[test]
    fn each_origin_has_a_cache_of_its_own() {
        let name = |text: &str| text.parse::<OriginUrl>().unwrap().cache_name();
        assert_eq!(name("https://a.example/b"), name("https://a.example/b/"));
        assert_ne!(name("https://a.example/b"), name("https://a.example/c"));
        assert!(name("https://a.example/b").starts_with("a.example-"));
        assert!(!name("http://[::1]:80/").contains(':'));
    }

    #[test]
    fn ports_of_an_http_origin() {
        for (text, port) in [("http://a", 80), ("https://a", 443), ("http://a:81", 81)] {
            assert_eq!(text.parse::<OriginUrl>().unwrap().ports(), [port]);
        }
    }
}
