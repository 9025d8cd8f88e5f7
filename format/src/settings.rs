//! Settings: typed, as text by key, and as environment variables.
//!
//! A setting has the same key in `wasi:config`, in an environment and on a command line: `mount-path` is the variable
//! `MILLPOND_MOUNT_PATH`.

use crate::signature::SigningKey;

/// Settings of the guest: `record settings` of `wit/settings.wit`, which describes each field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Path under which named files are served.
    pub mount_path: Option<String>,
    /// Origins whose pages may read responses; every origin by default.
    pub cors_origins: Option<Vec<String>>,
    /// Lifetime of a preflight response, in seconds.
    pub cors_max_age_s: Option<u32>,
    /// `Timing-Allow-Origin`.
    pub timing_allow_origin: Option<String>,
    /// `Cross-Origin-Resource-Policy`.
    pub cross_origin_resource_policy: Option<String>,
    /// `Content-Security-Policy` of types that can run scripts.
    pub content_security_policy: Option<String>,
    /// `Cache-Control` of media by content id.
    pub cache_content: Option<String>,
    /// `Cache-Control` of named files.
    pub cache_files: Option<String>,
    /// Lifetime of the response that media does not exist, in seconds.
    pub negative_ttl_s: Option<u32>,
    /// Whether folders are listed.
    pub browse: Option<bool>,
    /// Whether the host accepts uploads.
    pub uploads: Option<bool>,
}

/// Key of the setting that holds the signing keys. It is a secret, so no list of settings contains it.
pub const SIGNING_KEYS: &str = "signing-keys";

/// A setting whose text cannot be parsed. The message does not contain the text, which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: expected {expected}", variable(key))]
pub struct InvalidSetting {
    key: &'static str,
    expected: &'static str,
}

const PREFIX: &str = "MILLPOND_";

/// Returns the environment variable of a setting.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('-', "_"))
}

/// Returns the text of a setting in an environment.
#[must_use]
pub fn value<'a>(environment: &'a [(String, String)], key: &str) -> Option<&'a str> {
    let variable = variable(key);
    let found = environment.iter().find(|(name, _)| *name == variable);
    found.map(|(_, value)| value.as_str())
}

impl Settings {
    /// Reads the settings in an environment.
    ///
    /// # Errors
    /// [`InvalidSetting`] if a number or a switch is malformed.
    pub fn from_environment(environment: &[(String, String)]) -> Result<Self, InvalidSetting> {
        let text = |key| value(environment, key).map(str::to_owned);
        let seconds = |key| {
            let parse = |text: &str| {
                text.parse().map_err(|_| InvalidSetting {
                    key,
                    expected: "a number of seconds",
                })
            };
            value(environment, key).map(parse).transpose()
        };
        let switch = |key| {
            let parse = |text: &str| match text {
                "on" => Ok(true),
                "off" => Ok(false),
                _ => Err(InvalidSetting {
                    key,
                    expected: "on or off",
                }),
            };
            value(environment, key).map(parse).transpose()
        };
        let origins = value(environment, "cors-origins").filter(|text| *text != "*");
        Ok(Settings {
            mount_path: text("mount-path"),
            cors_origins: origins.map(|text| items(text).map(str::to_owned).collect()),
            cors_max_age_s: seconds("cors-max-age")?,
            timing_allow_origin: text("timing-allow-origin"),
            cross_origin_resource_policy: text("cross-origin-resource-policy"),
            content_security_policy: text("content-security-policy"),
            cache_content: text("cache-content"),
            cache_files: text("cache-files"),
            negative_ttl_s: seconds("negative-ttl")?,
            browse: switch("browse")?,
            uploads: switch("uploads")?,
        })
    }

    /// Returns the settings that are present as text by key, without secrets.
    #[must_use]
    pub fn to_pairs(&self) -> Vec<(&'static str, String)> {
        let seconds = |seconds: Option<u32>| seconds.map(|seconds| seconds.to_string());
        let switch =
            |is_on: Option<bool>| is_on.map(|is_on| if is_on { "on" } else { "off" }.into());
        let all = [
            ("mount-path", self.mount_path.clone()),
            (
                "cors-origins",
                self.cors_origins.as_ref().map(|all| all.join(" ")),
            ),
            ("cors-max-age", seconds(self.cors_max_age_s)),
            ("timing-allow-origin", self.timing_allow_origin.clone()),
            (
                "cross-origin-resource-policy",
                self.cross_origin_resource_policy.clone(),
            ),
            (
                "content-security-policy",
                self.content_security_policy.clone(),
            ),
            ("cache-content", self.cache_content.clone()),
            ("cache-files", self.cache_files.clone()),
            ("negative-ttl", seconds(self.negative_ttl_s)),
            ("browse", switch(self.browse)),
            ("uploads", switch(self.uploads)),
        ];
        let all = all.into_iter();
        all.filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

/// Parses signing keys: `<id>:<secret in hexadecimal>`, separated by spaces or commas.
///
/// # Errors
/// [`InvalidSetting`] if one is malformed.
pub fn parse_signing_keys(text: &str) -> Result<Vec<SigningKey>, InvalidSetting> {
    let parse = |text| {
        SigningKey::parse(text).ok_or(InvalidSetting {
            key: SIGNING_KEYS,
            expected: "keys of the form `id:secret`, with at least 16 bytes in hexadecimal",
        })
    };
    items(text).map(parse).collect()
}

/// Items of a list that is separated by spaces or commas.
fn items(text: &str) -> impl Iterator<Item = &str> {
    let items = text.split(|c: char| c == ',' || c.is_ascii_whitespace());
    items.filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        let variables = variables.iter();
        variables
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn whole() -> Settings {
        Settings {
            mount_path: Some("/".into()),
            cors_origins: Some(vec!["https://a.example".into(), "https://b.example".into()]),
            cors_max_age_s: Some(1),
            timing_allow_origin: Some(String::new()),
            cross_origin_resource_policy: Some("same-site".into()),
            content_security_policy: Some("sandbox".into()),
            cache_content: Some("public, max-age=1".into()),
            cache_files: Some("no-store".into()),
            negative_ttl_s: Some(0),
            browse: Some(false),
            uploads: Some(true),
        }
    }

    #[test]
    fn settings_survive_an_environment() {
        for settings in [whole(), Settings::default()] {
            let pairs = settings.to_pairs().into_iter();
            let environment: Vec<_> = pairs.map(|(key, value)| (variable(key), value)).collect();
            assert_eq!(Settings::from_environment(&environment), Ok(settings));
        }
        assert_eq!(variable("mount-path"), "MILLPOND_MOUNT_PATH");
        assert_eq!(whole().to_pairs().len(), 11);
    }

    #[test]
    fn a_list_may_have_commas() {
        for text in [
            "https://a.example,https://b.example",
            " https://a.example  https://b.example",
        ] {
            let environment = environment(&[("MILLPOND_CORS_ORIGINS", text)]);
            let settings = Settings::from_environment(&environment).unwrap();
            assert_eq!(settings.cors_origins, whole().cors_origins, "{text}");
        }
        let every = environment(&[("MILLPOND_CORS_ORIGINS", "*"), ("PATH", "/bin")]);
        assert_eq!(Settings::from_environment(&every), Ok(Settings::default()));
    }

    #[test]
    fn malformed_settings_are_errors_without_their_text() {
        for key in ["negative-ttl", "cors-max-age"] {
            for text in ["", "soon", "-1", "4294967296"] {
                let environment = environment(&[(&variable(key), text)]);
                let error = Settings::from_environment(&environment).unwrap_err();
                assert_eq!(
                    error.to_string(),
                    format!("{}: expected a number of seconds", variable(key))
                );
            }
        }
        let unclear = environment(&[("MILLPOND_BROWSE", "yes")]);
        let error = Settings::from_environment(&unclear).unwrap_err();
        assert_eq!(error.to_string(), "MILLPOND_BROWSE: expected on or off");
        let secret = "000102030405060708090a0b0c0d0e0f";
        let error = parse_signing_keys(&format!("k1:{secret} k2:5ec2e7")).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("MILLPOND_SIGNING_KEYS: "), "{message}");
        assert!(
            !message.contains("0001") && !message.contains("5ec2e7"),
            "{message}"
        );
        assert_eq!(
            parse_signing_keys(&format!("a:{secret}, b:{secret}"))
                .unwrap()
                .len(),
            2
        );
        assert!(parse_signing_keys(" ").unwrap().is_empty());
    }
}
