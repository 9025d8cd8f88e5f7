//! The settings, as `wit/world.wit` lists them: read once for each request, each with its default.

use crate::imports::{Imports, SettingsError};

/// What the component's answers depend on beside the request and the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Path under which named files are served: `/`, or a path without a `/` at its end.
    pub files_at: String,
    /// Whose pages may read answers.
    pub cors_origins: Origins,
    /// Seconds for which a preflight's answer holds.
    pub cors_max_age: String,
    /// Value of `Timing-Allow-Origin`; empty for none.
    pub timing_allow_origin: String,
    /// Value of `Cross-Origin-Resource-Policy`; empty for none.
    pub resource_policy: String,
    /// Value of `Content-Security-Policy` for what a browser would run; empty for none.
    pub document_policy: String,
    /// `Cache-Control` of media by content.
    pub cache_content: String,
    /// `Cache-Control` of named files.
    pub cache_files: String,
    /// Seconds for which it holds that there is no such media.
    pub cache_missing: u32,
}

/// Origins (RFC 6454) whose pages may read answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// All of them.
    Any,
    /// These, and none where there are none.
    Listed(Vec<String>),
}

/// What is served by its content never changes.
pub const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// A page or picture that is served as media runs nothing, and loads from where it came from only.
pub const SANDBOX: &str = "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; \
                           style-src 'self' 'unsafe-inline'; font-src 'self'";

impl Default for Config {
    fn default() -> Self {
        Config {
            files_at: "/media".into(),
            cors_origins: Origins::Any,
            cors_max_age: "86400".into(),
            timing_allow_origin: "*".into(),
            resource_policy: "cross-origin".into(),
            document_policy: SANDBOX.into(),
            cache_content: IMMUTABLE.into(),
            // Another file may have the name tomorrow, so it is asked for again.
            cache_files: "public, no-cache".into(),
            cache_missing: 5,
        }
    }
}

impl Config {
    /// Reads the settings; what is absent, and what cannot be understood, has its default: the host validates
    /// them before it serves.
    ///
    /// # Errors
    /// When the host cannot read them.
    pub fn read(imports: &impl Imports) -> Result<Self, SettingsError> {
        let mut config = Config::default();
        for (key, value) in imports.settings()? {
            match key.as_str() {
                "files-at" => config.files_at = value,
                "cors-origins" => config.cors_origins = Origins::parse(&value),
                "cors-max-age" => config.cors_max_age = value,
                "timing-allow-origin" => config.timing_allow_origin = value,
                "resource-policy" => config.resource_policy = value,
                "document-policy" => config.document_policy = value,
                "cache-content" => config.cache_content = value,
                "cache-files" => config.cache_files = value,
                "cache-missing" => {
                    config.cache_missing = value.parse().unwrap_or(config.cache_missing);
                }
                _ => {}
            }
        }
        Ok(config)
    }
}

impl Origins {
    fn parse(text: &str) -> Self {
        if text == "*" {
            return Origins::Any;
        }
        let origins = text.split_ascii_whitespace();
        Origins::Listed(origins.map(str::to_owned).collect())
    }
}
