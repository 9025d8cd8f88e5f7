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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_had_by_its_key_again() {
        for setting in ["files-at", "cache-missing", SECRET] {
            assert_eq!(key(&variable(setting)).as_deref(), Some(setting));
        }
        assert_eq!(variable("files-at"), "MILLPOND_FILES_AT");
        assert_eq!(key("PATH"), None);
    }
}
