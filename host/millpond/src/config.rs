//! Configuration of the guest, validated at the start: the settings of `wit/settings.wit`.

use millpond_format::settings::{self, SIGNING_KEYS};
use millpond_format::signature::SigningKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use toml::de::DeTable;

/// Settings of the guest. The TOML file uses the names of the fields, with `-` for `_`. The guest has a default for
/// each. `Serialize` shows the ids of the signing keys and no secret.
///
/// ```
/// use millpond::Config;
///
/// let mut config = Config::default();
/// assert_eq!(config.mount_path(), "/media");
/// config.mount_path = Some("/files".parse()?);
/// config.cors.origins = Some(vec!["https://a.example".parse()?]);
/// config.cache.negative_ttl = Some("10s".parse()?);
/// assert_eq!(config.mount_path(), "/files");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// Path under which named files are served. Default: `/media`.
    pub mount_path: Option<MountPath>,
    /// Whether folders are listed: as pages for browsers, and in JSON for others. Default: `true`.
    pub browse: Option<bool>,
    /// Cross-origin resource sharing.
    pub cors: Cors,
    /// Response headers.
    pub headers: Headers,
    /// Directives for caches.
    pub cache: Cache,
    /// Keys that sign URLs, by id.
    pub signing_keys: SigningKeys,
}

/// Cross-origin resource sharing (Fetch section 3.2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Cors {
    /// Origins whose pages may read responses, as in `https://a.example`. Default: all origins.
    pub origins: Option<Vec<WebOrigin>>,
    /// Lifetime of a preflight response. Default: one day.
    pub max_age: Option<WholeSeconds>,
}

/// Values of response headers. An empty value omits the header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Headers {
    /// `Timing-Allow-Origin`. Default: `*`.
    pub timing_allow_origin: Option<FieldValue>,
    /// `Cross-Origin-Resource-Policy`. Default: `cross-origin`.
    pub cross_origin_resource_policy: Option<FieldValue>,
    /// `Content-Security-Policy` of types that can run scripts in a browser. Default: a sandbox.
    pub content_security_policy: Option<FieldValue>,
}

/// Directives for caches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Cache {
    /// `Cache-Control` of media by content id. Default: a year, immutable.
    pub content: Option<FieldValue>,
    /// `Cache-Control` of named files. Default: `public, no-cache`.
    pub files: Option<FieldValue>,
    /// Lifetime of the response that media does not exist. Default: 5 seconds.
    pub negative_ttl: Option<WholeSeconds>,
}

/// Path under which named files are served: `/`, or segments without a `/` at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPath(Arc<str>);

/// A web origin: scheme, host and port (RFC 6454).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin(String);

/// Value of a field (RFC 9110 section 5.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldValue(String);

/// Duration in whole seconds, as in `5s`, `10m`, `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WholeSeconds(u32);

/// Keys that sign URLs. `Debug` and errors do not show the secrets.
#[derive(Clone, Default, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct SigningKeys(Vec<SigningKey>);

/// The error of a text that is not a valid value. Each variant has the name of the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidValue {
    /// The text is not a mount path.
    #[error(
        "a mount path begins with `/`, has no `?`, `#`, `%` or space, and is neither `/api/media`, where media \
         is served by its content, nor beneath it"
    )]
    MountPath,
    /// The text is not an origin.
    #[error(
        "an origin is `scheme://host` or `scheme://host:port`, in lower case, with nothing behind it"
    )]
    WebOrigin,
    /// The text is not a field value.
    #[error("a field's value is visible ASCII and spaces")]
    FieldValue,
    /// The text is not a duration.
    #[error("a time is a number with a unit, as in `5s`, `10m` or `1d`")]
    WholeSeconds,
    /// The text is not a list of signing keys.
    #[error(
        "a signing key has an id of letters, digits, `-` and `_`, and 16 bytes or more in hexadecimal"
    )]
    SigningKeys,
}

/// The error of a configuration file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A value or a key of the file is invalid.
    #[error("{}:{line}: {field}: {message}", path.display())]
    Invalid {
        /// Path of the file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Field at that place, or the text of the line.
        field: String,
        /// Description of the error.
        message: String,
    },
}

impl ConfigError {
    /// Line of a byte offset in a text, counted from 1.
    #[must_use]
    pub fn line_at(text: &str, offset: usize) -> usize {
        let before = text.get(..offset).unwrap_or_default();
        before.matches('\n').count() + 1
    }
}

impl Config {
    /// Reads a TOML file of these settings only. A program with settings of its own in the same file calls
    /// [`Config::from_toml`].
    ///
    /// # Errors
    /// [`ConfigError::Read`] if the file cannot be read, and [`ConfigError::Invalid`] with the line and the field if a
    /// value is invalid.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Config::from_toml(path, &text, |_| false)
    }

    /// Parses TOML. `path` appears in errors. `is_other` selects keys of the top level that are the program's own, and
    /// no settings of the guest.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`], as [`Config::from_file`].
    pub fn from_toml(
        path: &Path,
        text: &str,
        is_other: impl Fn(&str) -> bool,
    ) -> Result<Self, ConfigError> {
        let parsed = DeTable::parse(text).and_then(|table| {
            let span = table.span();
            let mut settings = DeTable::new();
            for (key, value) in table.into_inner() {
                if !is_other(key.get_ref()) {
                    settings.insert(key, value);
                }
            }
            let settings = toml::Spanned::new(span, settings);
            Config::deserialize(toml::Deserializer::from(settings))
        });
        parsed.map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = ConfigError::line_at(text, start);
            let content = text.lines().nth(line - 1).unwrap_or_default();
            let field = content.split('=').next().unwrap_or_default().trim();
            // The value may be a secret, so the error does not include it.
            ConfigError::Invalid {
                path: path.to_owned(),
                line,
                field: field.to_owned(),
                message: error.message().trim().replace('\n', ", "),
            }
        })
    }

    /// Path under which named files are served.
    #[must_use]
    pub fn mount_path(&self) -> &str {
        self.mount_path.as_ref().map_or("/media", MountPath::as_str)
    }

    /// Returns the settings for the guest of a host that accepts uploads, or does not.
    pub(crate) fn settings(&self, uploads: bool) -> GuestSettings {
        let text = |text: &Option<FieldValue>| text.as_ref().map(|text| text.0.clone());
        let seconds = |age: Option<WholeSeconds>| age.map(|age| age.0);
        let origins = self.cors.origins.as_ref();
        let typed = settings::Settings {
            mount_path: Some(self.mount_path().to_owned()),
            cors_origins: origins
                .map(|origins| origins.iter().map(|origin| origin.0.clone()).collect()),
            cors_max_age_s: seconds(self.cors.max_age),
            timing_allow_origin: text(&self.headers.timing_allow_origin),
            cross_origin_resource_policy: text(&self.headers.cross_origin_resource_policy),
            content_security_policy: text(&self.headers.content_security_policy),
            cache_content: text(&self.cache.content),
            cache_files: text(&self.cache.files),
            negative_ttl_s: seconds(self.cache.negative_ttl),
            browse: self.browse,
            uploads: uploads.then_some(true),
        };
        GuestSettings::new(typed, self.signing_keys.clone())
    }
}

/// Settings in both forms: typed for `millpond:media/settings`, and as text by key for `wasi:config`.
pub(crate) struct GuestSettings {
    typed: settings::Settings,
    pairs: Vec<(String, String)>,
    signing_keys: SigningKeys,
    /// Whether the log has a warning that there is private media and no key.
    has_warned_of_no_key: AtomicBool,
}

impl GuestSettings {
    fn new(typed: settings::Settings, signing_keys: SigningKeys) -> Self {
        let pairs = typed.to_pairs().into_iter();
        GuestSettings {
            pairs: pairs.map(|(key, value)| (key.to_owned(), value)).collect(),
            typed,
            signing_keys,
            has_warned_of_no_key: AtomicBool::new(false),
        }
    }

    /// Returns the same settings for a host that accepts uploads.
    #[cfg(feature = "uploads")]
    pub(crate) fn with_uploads(&self) -> Self {
        let typed = settings::Settings {
            uploads: Some(true),
            ..self.typed.clone()
        };
        GuestSettings::new(typed, self.signing_keys.clone())
    }

    /// Settings without the signing keys.
    pub(crate) fn typed(&self) -> &settings::Settings {
        &self.typed
    }

    /// Signing keys.
    pub(crate) fn signing_keys(&self) -> &[SigningKey] {
        &self.signing_keys.0
    }

    /// Settings without the signing keys, as text by key.
    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// Returns a setting as text. The signing keys are one of them.
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        if key == SIGNING_KEYS {
            return Some(self.signing_keys.to_text());
        }
        let found = self.pairs.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.clone())
    }

    /// Warns once if private media is requested and there is no signing key.
    pub(crate) fn warn_of_private_without_key(&self) {
        if self.signing_keys.is_empty() && !self.has_warned_of_no_key.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "private media was requested, but nobody can get it: there are no signing keys in the configuration"
            );
        }
    }
}

impl SigningKeys {
    /// Parses `<id>:<secret in hexadecimal>`. Spaces or commas separate several keys.
    ///
    /// # Errors
    /// [`InvalidValue::SigningKeys`], if a key has another form or its secret is shorter than 16 bytes.
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        settings::parse_signing_keys(text)
            .map(SigningKeys)
            .map_err(|_| InvalidValue::SigningKeys)
    }

    /// Returns the key with that id. `None` returns the first key.
    #[must_use]
    pub fn find(&self, id: Option<&str>) -> Option<&SigningKey> {
        match id {
            Some(id) => self.0.iter().find(|key| key.id() == id),
            None => self.0.first(),
        }
    }

    /// Returns whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn to_text(&self) -> String {
        let keys = self.0.iter();
        let keys: Vec<String> = keys.map(SigningKey::to_text).collect();
        keys.join(" ")
    }
}

impl TryFrom<BTreeMap<String, String>> for SigningKeys {
    type Error = InvalidValue;

    fn try_from(keys: BTreeMap<String, String>) -> Result<Self, InvalidValue> {
        let keys = keys.iter();
        keys.map(|(id, secret)| SigningKey::parse(&format!("{id}:{secret}")))
            .collect::<Option<_>>()
            .map(SigningKeys)
            .ok_or(InvalidValue::SigningKeys)
    }
}

/// Shows ids only.
impl Serialize for SigningKeys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|key| (key.id(), "(hidden)")))
    }
}

impl PartialEq for SigningKeys {
    fn eq(&self, other: &Self) -> bool {
        self.to_text() == other.to_text()
    }
}

impl Eq for SigningKeys {}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.0.iter().map(SigningKey::id))
            .finish()
    }
}

impl MountPath {
    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '%' | '\\');
        if !text.starts_with('/') || !text.chars().all(is_plain) || text.contains("//") {
            return None;
        }
        let path = text.trim_end_matches('/');
        // `/api/media` serves media by content id, so a named file beneath it would never be found.
        let beneath = path.strip_prefix("/api/media");
        if beneath.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            return None;
        }
        Some(MountPath(if path.is_empty() { "/" } else { path }.into()))
    }
}

impl WebOrigin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let is_plain =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-+:[]".contains(c);
        let fits = |part: &str| !part.is_empty() && part.chars().all(is_plain);
        (fits(scheme) && fits(authority)).then(|| WebOrigin(text.to_owned()))
    }
}

impl FieldValue {
    fn parse(text: &str) -> Option<Self> {
        let is_visible = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        let fits = text.bytes().all(is_visible) && text.trim() == text;
        fits.then(|| FieldValue(text.to_owned()))
    }
}

impl WholeSeconds {
    fn parse(text: &str) -> Option<Self> {
        let duration = humantime::parse_duration(text).ok()?;
        u32::try_from(duration.as_secs()).ok().map(WholeSeconds)
    }
}

impl fmt::Display for MountPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for WholeSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(Duration::from_secs(self.0.into())).fmt(f)
    }
}

/// Parses types from the texts of the configuration file and of the command's options, and shows them as such.
macro_rules! from_text {
    ($($name:ident)+) => {$(
        impl FromStr for $name {
            type Err = InvalidValue;

            fn from_str(text: &str) -> Result<Self, InvalidValue> {
                $name::parse(text).ok_or(InvalidValue::$name)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}

from_text!(MountPath WebOrigin FieldValue WholeSeconds);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::from_file(file.path())
    }

    #[test]
    fn a_whole_configuration() {
        let config = read(
            "mount-path = \"/files/\"\n[cors]\norigins = [\"https://a.example\", \"http://b.example:81\"]\n\
             max-age = \"10m\"\n[headers]\ncontent-security-policy = \"\"\n[cache]\nnegative-ttl = \"0s\"\n\
             [signing-keys]\nk1 = \"000102030405060708090a0b0c0d0e0f\"\n",
        )
        .unwrap();
        let settings = config.settings(false);
        for (key, value) in [
            ("mount-path", Some("/files")),
            (
                "cors-origins",
                Some("https://a.example http://b.example:81"),
            ),
            ("cors-max-age", Some("600")),
            ("content-security-policy", Some("")),
            ("negative-ttl", Some("0")),
            ("cache-files", None),
            ("signing-keys", Some("k1:000102030405060708090a0b0c0d0e0f")),
        ] {
            assert_eq!(settings.get(key).as_deref(), value, "{key}");
        }
        assert!(
            settings
                .pairs()
                .iter()
                .all(|(key, _)| key != "signing-keys")
        );
        assert!(
            !format!("{config:?}").contains("0001"),
            "secrets are not shown"
        );
        assert_eq!(read("").unwrap(), Config::default());
    }

    #[test]
    fn other_keys_are_left_out_and_what_is_shown_has_no_secret() {
        let text = "listen = \"a:1\"\nmount-path = \"/x\"\n[cors]\nmax-age = \"90m\"\n\
                    [signing-keys]\nk1 = \"000102030405060708090a0b0c0d0e0f\"\n";
        let path = Path::new("m.toml");
        let config = Config::from_toml(path, text, |key| key == "listen").unwrap();
        let shown = serde_json::to_value(&config).unwrap();
        assert_eq!(shown["mount-path"], "/x");
        assert_eq!(shown["cors"]["max-age"], "1h 30m");
        assert_eq!(shown["cors"]["origins"], serde_json::Value::Null);
        assert_eq!(shown["signing-keys"]["k1"], "(hidden)");
        let error = Config::from_toml(path, text, |_| false).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("m.toml:1: listen: unknown field"),
            "{error}"
        );
    }

    #[test]
    fn files_are_not_served_where_media_is_by_its_content() {
        for text in ["/api/media", "/api/media/", "/api/media/files"] {
            assert_eq!(
                text.parse::<MountPath>(),
                Err(InvalidValue::MountPath),
                "{text}"
            );
            let config = read(&format!("mount-path = \"{text}\""));
            assert!(config.is_err(), "{text}");
        }
        for text in ["/", "/api", "/api/mediathek", "/media", "/v1/api/media"] {
            assert!(text.parse::<MountPath>().is_ok(), "{text}");
        }
    }

    #[test]
    fn keys_may_have_commas_between_them() {
        let secret = "000102030405060708090a0b0c0d0e0f";
        for between in [" ", ",", ", ", "\n"] {
            let keys = SigningKeys::parse(&format!("a:{secret}{between}b:{secret}")).unwrap();
            assert_eq!(keys.to_text(), format!("a:{secret} b:{secret}"));
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_line_and_field_and_no_secret() {
        for (text, line, field, message) in [
            ("mount-path = \"media\"", 1, "mount-path", "begins with `/`"),
            ("\n[cors]\norigin = []", 3, "origin", "unknown field"),
            ("[cors]\norigins = [\"*\"]", 2, "origins", "an origin is"),
            ("[cors]\nmax-age = 5", 2, "max-age", "invalid type"),
            (
                "[cache]\nnegative-ttl = \"soon\"",
                2,
                "negative-ttl",
                "a time is",
            ),
            ("[cache]\nfiles = \"a\\nb\"", 2, "files", "visible ASCII"),
            ("x", 1, "x", ""),
            (
                "[signing-keys]\nk1 = \"5ec2e7\"",
                1,
                "[signing-keys]",
                "a signing key",
            ),
        ] {
            let error = read(text).unwrap_err();
            let said = error.to_string();
            let ConfigError::Invalid {
                line: at,
                field: of,
                ..
            } = error
            else {
                unreachable!("{said}");
            };
            assert_eq!((at, of.as_str()), (line, field), "{said}");
            assert!(said.contains(message) && !said.contains("5ec2e7"), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}
