//! Settings as environment variables, where a component is given those only: `files-at` is `MILLPOND_FILES_AT`.

/// The setting that is a secret: it is given to whoever asks for it by this key, and left out of lists.
pub const SECRET: &str = "signing-keys";

const PREFIX: &str = "MILLPOND_";

/// The variable that holds a setting.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('-', "_"))
}

/// The key of the setting that a variable holds; none where it holds no setting.
#[must_use]
pub fn key(variable: &str) -> Option<String> {
    let key = variable.strip_prefix(PREFIX)?;
    Some(key.to_ascii_lowercase().replace('_', "-"))
}

/// The setting of that key in an environment, a secret too.
pub fn get(environment: Vec<(String, String)>, key: &str) -> Option<String> {
    let mut all = all(environment);
    all.find(|(name, _)| name == key).map(|(_, value)| value)
}

/// Whether an environment has keys to sign URLs with.
#[must_use]
pub fn has_keys(environment: Vec<(String, String)>) -> bool {
    get(environment, SECRET).is_some_and(|keys| !keys.trim().is_empty())
}

/// The settings of an environment, but for the secret.
pub fn listed(environment: Vec<(String, String)>) -> Vec<(String, String)> {
    all(environment).filter(|(key, _)| key != SECRET).collect()
}

fn all(environment: Vec<(String, String)>) -> impl Iterator<Item = (String, String)> {
    let variables = environment.into_iter();
    variables.filter_map(|(variable, value)| {
        let key = key(&variable)?;
        // Lists have spaces in them as settings, and as variables commas too.
        let is_list = matches!(key.as_str(), SECRET | "cors-origins");
        let value = if is_list {
            value.replace(',', " ")
        } else {
            value
        };
        Some((key, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_given_to_who_asks_for_it_and_not_listed() {
        let environment = || {
            let variables = [
                ("PATH", "/bin"),
                ("MILLPOND_FILES_AT", "/"),
                ("MILLPOND_SIGNING_KEYS", "a:00"),
            ];
            variables
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into()
        };
        assert_eq!(get(environment(), SECRET).as_deref(), Some("a:00"));
        assert!(has_keys(environment()) && !has_keys(Vec::new()));
        assert_eq!(get(environment(), "path"), None);
        assert_eq!(listed(environment()), [("files-at".into(), "/".into())]);
    }

    #[test]
    fn a_list_may_have_commas() {
        let variables = [
            (
                "MILLPOND_CORS_ORIGINS",
                "https://a.example,https://b.example",
            ),
            ("MILLPOND_CACHE_FILES", "public, no-cache"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let listed = listed(variables.into());
        let values: Vec<&str> = listed.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(
            values,
            ["https://a.example https://b.example", "public, no-cache"]
        );
    }

    #[test]
    fn a_setting_is_had_by_its_key_again() {
        for setting in ["files-at", "cache-missing", SECRET] {
            assert_eq!(key(&variable(setting)).as_deref(), Some(setting));
        }
        assert_eq!(variable("files-at"), "MILLPOND_FILES_AT");
        assert_eq!(key("PATH"), None);
    }
}
