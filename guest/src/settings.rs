//! Settings of the component: those of `wit/settings.wit`, with a default for each that is absent.

use crate::imports::{Imports, SettingsError};
use millpond_format::settings::Settings;

/// Settings with a value for each: the configured one or the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveSettings {
    /// Path under which named files are served: `/`, or a path without a `/` at its end.
    pub mount_path: String,
    /// Origins whose pages may read responses.
    pub cors_origins: Origins,
    /// Lifetime of a preflight response, in seconds.
    pub cors_max_age_s: u32,
    /// `Timing-Allow-Origin`; empty to omit it.
    pub timing_allow_origin: String,
    /// `Cross-Origin-Resource-Policy`; empty to omit it.
    pub cross_origin_resource_policy: String,
    /// `Content-Security-Policy` of types that can run scripts; empty to omit it.
    pub content_security_policy: String,
    /// `Cache-Control` of media by content id.
    pub cache_content: String,
    /// `Cache-Control` of named files.
    pub cache_files: String,
    /// Lifetime of the response that media does not exist, in seconds.
    pub negative_ttl_s: u32,
    /// Whether folders are listed.
    pub browse: bool,
    /// Whether the host accepts uploads.
    pub uploads: bool,
}

/// Origins (RFC 6454) whose pages may read responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Every origin.
    Any,
    /// These origins.
    Listed(Vec<String>),
}

/// `Cache-Control` of media by content id, which never changes.
pub const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// `Content-Security-Policy` of pages and pictures: they run no script, and load from their own origin only.
pub const SANDBOX: &str = "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; \
                           style-src 'self' 'unsafe-inline'; font-src 'self'";

impl EffectiveSettings {
    /// Reads the settings.
    ///
    /// # Errors
    /// [`SettingsError`] if they cannot be read.
    pub fn read(imports: &impl Imports) -> Result<Self, SettingsError> {
        imports.settings().map(EffectiveSettings::from)
    }
}

impl Default for EffectiveSettings {
    fn default() -> Self {
        Settings::default().into()
    }
}

impl From<Settings> for EffectiveSettings {
    fn from(settings: Settings) -> Self {
        let text = |value: Option<String>, default: &str| value.unwrap_or_else(|| default.into());
        EffectiveSettings {
            mount_path: text(settings.mount_path, "/media"),
            cors_origins: settings.cors_origins.map_or(Origins::Any, Origins::Listed),
            cors_max_age_s: settings.cors_max_age_s.unwrap_or(86_400),
            timing_allow_origin: text(settings.timing_allow_origin, "*"),
            cross_origin_resource_policy: text(
                settings.cross_origin_resource_policy,
                "cross-origin",
            ),
            content_security_policy: text(settings.content_security_policy, SANDBOX),
            cache_content: text(settings.cache_content, IMMUTABLE),
            // A name may be given to another file, so caches have to validate it.
            cache_files: text(settings.cache_files, "public, no-cache"),
            negative_ttl_s: settings.negative_ttl_s.unwrap_or(5),
            browse: settings.browse.unwrap_or(true),
            uploads: settings.uploads.unwrap_or(false),
        }
    }
}
