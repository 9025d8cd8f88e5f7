//! Credentials and region of the files that the tools of AWS share.

use std::env;
use std::fs;
use std::path::PathBuf;

/// Maximum size of such a file, in bytes. A larger file is another one by mistake.
const FILE_BYTES: u64 = 1024 * 1024;

/// Settings of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AwsProfile {
    pub(crate) access_key_id: Option<String>,
    pub(crate) secret_access_key: Option<String>,
    pub(crate) session_token: Option<String>,
    pub(crate) region: Option<String>,
}

impl AwsProfile {
    /// Reads the profile that `AWS_PROFILE` names, or `default`, from `~/.aws/credentials` and `~/.aws/config`. Other settings
    /// stay unset.
    pub(crate) fn read() -> Self {
        let profile = env::var("AWS_PROFILE").unwrap_or_else(|_| "default".to_owned());
        let section = match profile.as_str() {
            "default" => "default".to_owned(),
            _ => format!("profile {profile}"),
        };
        let mut found = AwsProfile::default();
        let [credentials, config] = files();
        for (file, section) in [(config, section), (credentials, profile)] {
            if let Some(text) = file.and_then(read) {
                found.add(&text, &section);
            }
        }
        found
    }

    /// Adds the settings of a section. A later call takes precedence.
    fn add(&mut self, text: &str, section: &str) {
        let mut is_in_section = false;
        for line in text.lines().map(str::trim) {
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|name| name.split(']').next())
            {
                is_in_section = name.trim() == section;
                continue;
            }
            let Some((name, value)) = line.split_once('=').filter(|_| is_in_section) else {
                continue;
            };
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match name.trim() {
                "aws_access_key_id" => self.access_key_id = value,
                "aws_secret_access_key" => self.secret_access_key = value,
                "aws_session_token" => self.session_token = value,
                "region" => self.region = value,
                _ => {}
            }
        }
    }
}

/// Returns the paths of the files of credentials and of the configuration.
pub(crate) fn files() -> [Option<PathBuf>; 2] {
    let home = || env::var_os("HOME").map(PathBuf::from);
    let file = |variable, name: &str| {
        let named = env::var_os(variable).map(PathBuf::from);
        named.or_else(|| Some(home()?.join(".aws").join(name)))
    };
    [
        file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
        file("AWS_CONFIG_FILE", "config"),
    ]
}

fn read(file: PathBuf) -> Option<String> {
    let metadata = fs::metadata(&file).ok()?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES {
        return None;
    }
    fs::read_to_string(&file).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_has_the_settings_of_its_sections() {
        let mut profile = AwsProfile::default();
        profile.add(
            "[default]\nregion = a\n[profile b]\nregion=eu-1 \n",
            "profile b",
        );
        profile.add(
            "# x\n[b]\naws_access_key_id = K=\naws_secret_access_key=S\n[c]\naws_session_token=no\n",
            "b",
        );
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            profile,
            AwsProfile {
                access_key_id: text("K="),
                secret_access_key: text("S"),
                session_token: None,
                region: text("eu-1"),
            }
        );
    }
}
