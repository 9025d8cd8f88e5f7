//! The guest's settings: typed here and validated at the start, strings by key for the guest (`wit/world.wit`).

use millpond_guest::signature::Key;
use millpond_store::settings::SECRET;
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a guest is told of how to answer. In a TOML file its fields have these names with `-` for `_`; what is left
/// out has its default.
///
/// ```
/// use millpond::Config;
///
/// let mut config = Config::default();
/// assert_eq!(config.files_at(), "/media");
/// config.files_at = Some("/files".parse()?);
/// config.cors.origins = Some(vec!["https://a.example".parse()?]);
/// config.cache.missing = Some("10s".to_owned().try_into()?);
/// assert_eq!(config.files_at(), "/files");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// Where named files are served; `/media`.
    pub files_at: Option<FilesAt>,
    /// Whose pages may read answers.
    pub cors: Cors,
    /// What browsers are told.
    pub browser: Browser,
    /// What caches are told.
    pub cache: Cache,
    /// Keys that signed URLs are made with, by id.
    pub signing_keys: SigningKeys,
}

/// Whose pages may read answers (Fetch section 3.2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Cors {
    /// Origins as in `https://a.example`; all of them where this is left out.
    pub origins: Option<Vec<Origin>>,
    /// How long a preflight's answer holds; a day.
    pub max_age: Option<Age>,
}

/// What browsers are told, each a field's value; an empty one for no such field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Browser {
    /// `Timing-Allow-Origin`; `*`.
    pub timing_allow_origin: Option<FieldText>,
    /// `Cross-Origin-Resource-Policy`; `cross-origin`.
    pub resource_policy: Option<FieldText>,
    /// `Content-Security-Policy` of types that a browser runs script in; a sandbox.
    pub document_policy: Option<FieldText>,
}

/// What caches are told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Cache {
    /// `Cache-Control` of media by content; a year, immutable.
    pub content: Option<FieldText>,
    /// `Cache-Control` of named files; asked for again.
    pub files: Option<FieldText>,
    /// How long it holds that there is no such media; 5 seconds.
    pub missing: Option<Age>,
}

/// Where named files are served, as a path: `/`, or segments without a `/` at the end.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FilesAt(Arc<str>);

/// The text is no path to serve files at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a path to serve files at begins with `/`, has no `?`, `#`, `%` or space, and is neither `/api/media`, where media \
     is served by its content, nor beneath it"
)]
pub struct NotAPath;

/// A web origin: scheme, host and port, nothing behind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Origin(String);

/// The text is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an origin is `scheme://host` or `scheme://host:port`, in lower case, with nothing behind it"
)]
pub struct NotAnOrigin;

/// A field's value (RFC 9110 section 5.5).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FieldText(String);

/// The text can be no field's value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a field's value is visible ASCII and spaces")]
pub struct NotAFieldValue;

/// A time in whole seconds, as in `5s`, `10m`, `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Age(u32);

/// The text is no time in whole seconds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a time is a number with a unit, as in `5s`, `10m` or `1d`")]
pub struct NotAnAge;

/// Keys that signed URLs are made with. They are shown by nothing: not by `Debug`, not by an error.
#[derive(Clone, Default, Deserialize)]
#[serde(try_from = "std::collections::BTreeMap<String, String>")]
pub struct SigningKeys(Vec<Key>);

/// A signing key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a signing key has an id of letters, digits, `-` and `_`, and 16 bytes or more in hexadecimal"
)]
pub struct NotAKey;

/// A configuration that cannot be used, and where it is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{line}: {field}: {message}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The field that stands there, or what else does.
        field: String,
        /// What is wrong with it.
        message: String,
    },
}

impl Config {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// [`ConfigError`], which names file, line and field.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.get(..start).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let content = text.lines().nth(line - 1).unwrap_or_default();
            let field = content.split('=').next().unwrap_or_default().trim();
            // A value is not told: it may be a secret.
            ConfigError::Wrong {
                path: path.to_owned(),
                line,
                field: field.to_owned(),
                message: error.message().trim().replace('\n', ", "),
            }
        })
    }

    /// Where named files are served.
    #[must_use]
    pub fn files_at(&self) -> &str {
        self.files_at.as_ref().map_or("/media", FilesAt::as_str)
    }

    /// The settings as a guest is given them.
    pub(crate) fn settings(&self) -> Settings {
        let text = |text: &Option<FieldText>| text.as_ref().map(|text| text.0.clone());
        let age = |age: Option<Age>| age.map(|age| age.0.to_string());
        let origins = self.cors.origins.as_ref().map(|origins| {
            let origins: Vec<&str> = origins.iter().map(|origin| origin.0.as_str()).collect();
            origins.join(" ")
        });
        let all = [
            ("files-at", Some(self.files_at().to_owned())),
            ("cors-origins", origins),
            ("cors-max-age", age(self.cors.max_age)),
            (
                "timing-allow-origin",
                text(&self.browser.timing_allow_origin),
            ),
            ("resource-policy", text(&self.browser.resource_policy)),
            ("document-policy", text(&self.browser.document_policy)),
            ("cache-content", text(&self.cache.content)),
            ("cache-files", text(&self.cache.files)),
            ("cache-missing", age(self.cache.missing)),
        ];
        let all = all.into_iter();
        Settings {
            all: all
                .filter_map(|(key, value)| Some((key.to_owned(), value?)))
                .collect(),
            signing_keys: self.signing_keys.to_setting(),
            has_told_of_no_key: AtomicBool::new(false),
        }
    }
}

/// The settings as strings by key, for the guest.
pub(crate) struct Settings {
    all: Vec<(String, String)>,
    signing_keys: String,
    /// Whether the log has it that there is private media and no key.
    has_told_of_no_key: AtomicBool,
}

impl Settings {
    /// All but secrets.
    pub(crate) fn all(&self) -> &[(String, String)] {
        &self.all
    }

    /// One of them, which may be a secret.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        if key == SECRET {
            return Some(&self.signing_keys);
        }
        let found = self.all.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// Private media was asked for: where there is no key to sign URLs with, nobody can have it, which is said once.
    pub(crate) fn asked_for_private(&self) {
        if self.signing_keys.is_empty() && !self.has_told_of_no_key.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "private media was requested, but nobody can get it: there are no signing keys in the configuration"
            );
        }
    }
}

impl SigningKeys {
    /// Reads `<id>:<secret in hexadecimal>`, with a space or a comma between them.
    ///
    /// # Errors
    /// [`NotAKey`].
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        let keys = text.split([',', ' ', '\t', '\n', '\r']);
        let keys = keys.filter(|key| !key.is_empty());
        keys.map(|key| Key::parse(key).ok_or(NotAKey))
            .collect::<Result<_, _>>()
            .map(SigningKeys)
    }

    /// The key of that id, or the first one.
    #[must_use]
    pub fn find(&self, id: Option<&str>) -> Option<&Key> {
        match id {
            Some(id) => self.0.iter().find(|key| key.id() == id),
            None => self.0.first(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn to_setting(&self) -> String {
        let keys = self.0.iter();
        let keys: Vec<String> = keys.map(Key::to_text).collect();
        keys.join(" ")
    }
}

impl TryFrom<std::collections::BTreeMap<String, String>> for SigningKeys {
    type Error = NotAKey;

    fn try_from(keys: std::collections::BTreeMap<String, String>) -> Result<Self, NotAKey> {
        keys.iter()
            .map(|(id, secret)| Key::parse(&format!("{id}:{secret}")).ok_or(NotAKey))
            .collect::<Result<_, _>>()
            .map(SigningKeys)
    }
}

impl PartialEq for SigningKeys {
    fn eq(&self, other: &Self) -> bool {
        self.to_setting() == other.to_setting()
    }
}

impl Eq for SigningKeys {}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(Key::id)).finish()
    }
}

impl std::str::FromStr for FilesAt {
    type Err = NotAPath;

    fn from_str(text: &str) -> Result<Self, NotAPath> {
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '%' | '\\');
        if !text.starts_with('/') || !text.chars().all(plain) || text.contains("//") {
            return Err(NotAPath);
        }
        let path = text.trim_end_matches('/');
        // What lies there is looked for by its content, so that no file would ever be found.
        if matches!(path.strip_prefix("/api/media"), Some(rest) if rest.is_empty() || rest.starts_with('/'))
        {
            return Err(NotAPath);
        }
        Ok(FilesAt(if path.is_empty() { "/" } else { path }.into()))
    }
}

impl TryFrom<String> for FilesAt {
    type Error = NotAPath;

    fn try_from(text: String) -> Result<Self, NotAPath> {
        text.parse()
    }
}

impl FilesAt {
    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Origin {
    type Error = NotAnOrigin;

    fn try_from(text: String) -> Result<Self, NotAnOrigin> {
        let (scheme, authority) = text.split_once("://").ok_or(NotAnOrigin)?;
        let is_plain =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-+:[]".contains(c);
        let fits = |part: &str| !part.is_empty() && part.chars().all(is_plain);
        if fits(scheme) && fits(authority) {
            Ok(Origin(text))
        } else {
            Err(NotAnOrigin)
        }
    }
}

impl std::str::FromStr for Origin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for FieldText {
    type Error = NotAFieldValue;

    fn try_from(text: String) -> Result<Self, NotAFieldValue> {
        let is_visible = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
        if text.bytes().all(is_visible) && text.trim() == text {
            Ok(FieldText(text))
        } else {
            Err(NotAFieldValue)
        }
    }
}

impl TryFrom<String> for Age {
    type Error = NotAnAge;

    fn try_from(text: String) -> Result<Self, NotAnAge> {
        let duration = humantime::parse_duration(&text).map_err(|_| NotAnAge)?;
        u32::try_from(duration.as_secs())
            .map(Age)
            .map_err(|_| NotAnAge)
    }
}

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
            "files-at = \"/files/\"\n[cors]\norigins = [\"https://a.example\", \"http://b.example:81\"]\n\
             max-age = \"10m\"\n[browser]\ndocument-policy = \"\"\n[cache]\nmissing = \"0s\"\n\
             [signing-keys]\nk1 = \"000102030405060708090a0b0c0d0e0f\"\n",
        )
        .unwrap();
        let settings = config.settings();
        for (key, value) in [
            ("files-at", Some("/files")),
            (
                "cors-origins",
                Some("https://a.example http://b.example:81"),
            ),
            ("cors-max-age", Some("600")),
            ("document-policy", Some("")),
            ("cache-missing", Some("0")),
            ("cache-files", None),
            ("signing-keys", Some("k1:000102030405060708090a0b0c0d0e0f")),
        ] {
            assert_eq!(settings.get(key), value, "{key}");
        }
        assert!(settings.all().iter().all(|(key, _)| key != "signing-keys"));
        assert!(
            !format!("{config:?}").contains("0001"),
            "secrets are not shown"
        );
        assert_eq!(read("").unwrap(), Config::default());
    }

    #[test]
    fn files_are_not_served_where_media_is_by_its_content() {
        for text in ["/api/media", "/api/media/", "/api/media/files"] {
            assert_eq!(text.parse::<FilesAt>(), Err(NotAPath), "{text}");
            let config = read(&format!("files-at = \"{text}\""));
            assert!(config.is_err(), "{text}");
        }
        for text in ["/", "/api", "/api/mediathek", "/media", "/v1/api/media"] {
            assert!(text.parse::<FilesAt>().is_ok(), "{text}");
        }
    }

    #[test]
    fn keys_may_have_commas_between_them() {
        let secret = "000102030405060708090a0b0c0d0e0f";
        for between in [" ", ",", ", ", "\n"] {
            let keys = SigningKeys::parse(&format!("a:{secret}{between}b:{secret}")).unwrap();
            assert_eq!(keys.to_setting(), format!("a:{secret} b:{secret}"));
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_line_and_field_and_no_secret() {
        for (text, line, field, message) in [
            ("files-at = \"media\"", 1, "files-at", "begins with `/`"),
            ("\n[cors]\norigin = []", 3, "origin", "unknown field"),
            ("[cors]\norigins = [\"*\"]", 2, "origins", "an origin is"),
            ("[cors]\nmax-age = 5", 2, "max-age", "invalid type"),
            ("[cache]\nmissing = \"soon\"", 2, "missing", "a time is"),
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
            let ConfigError::Wrong {
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
