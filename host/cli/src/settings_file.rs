//! The configuration file: options of `serve` at the top level, and settings of the component.

use millpond::config::{Config, ConfigError};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A configuration file, parsed.
#[derive(Debug)]
pub(crate) struct SettingsFile {
    pub(crate) path: PathBuf,
    /// Values of options, by key.
    pub(crate) options: BTreeMap<String, FileValue>,
    /// Settings of the component.
    pub(crate) component: Config,
    /// Line of each key, with the table before it, as in `cors.origins`.
    lines: BTreeMap<String, usize>,
}

/// Value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileValue {
    Text(String),
    Flag(bool),
    List(Vec<String>),
}

impl SettingsFile {
    /// Reads a file. `options` are the keys of the options.
    ///
    /// # Errors
    /// [`ConfigError`], with the line and the field.
    pub(crate) fn read(path: &Path, options: &[String]) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        SettingsFile::parse(path, &text, options)
    }

    fn parse(path: &Path, text: &str, options: &[String]) -> Result<Self, ConfigError> {
        let is_option = |key: &str| options.iter().any(|option| option == key);
        // Without any key of the component, an error is one of the syntax.
        Config::from_toml(path, text, |_| true)?;
        let table = DeTable::parse(text).map_err(|error| ConfigError::Invalid {
            path: path.to_owned(),
            line: 1,
            field: String::new(),
            message: error.message().to_owned(),
        })?;
        let table = table.get_ref();
        let mut lines = BTreeMap::new();
        add_lines(text, "", table, &mut lines);
        let mut file = SettingsFile {
            path: path.to_owned(),
            options: BTreeMap::new(),
            component: Config::default(),
            lines,
        };
        let tables = component_keys();
        for (key, value) in table {
            let key = key.get_ref().as_ref();
            if is_option(key) {
                let value = option_value(value).map_err(|message| file.invalid(key, message))?;
                file.options.insert(key.to_owned(), value);
            } else if !tables.iter().any(|table| table == key) {
                return Err(file.invalid(key, unknown(options, &tables)));
            }
        }
        file.component = Config::from_toml(path, text, is_option)?;
        Ok(file)
    }

    /// Line of a key, if the file has it.
    pub(crate) fn line(&self, key: &str) -> Option<usize> {
        self.lines.get(key).copied()
    }

    /// Returns the error of a key's value.
    pub(crate) fn invalid(&self, key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError::Invalid {
            path: self.path.clone(),
            line: self.line(key).unwrap_or(1),
            field: key.to_owned(),
            message: message.into(),
        }
    }
}

/// Keys of the component's settings at the top level.
fn component_keys() -> Vec<String> {
    let settings = serde_json::to_value(Config::default()).unwrap_or_default();
    let settings = settings.as_object().into_iter().flatten();
    settings.map(|(key, _)| key.clone()).collect()
}

fn unknown(options: &[String], tables: &[String]) -> String {
    let mut allowed: Vec<&str> = options.iter().chain(tables).map(String::as_str).collect();
    allowed.sort_unstable();
    allowed.dedup();
    format!("unknown field, expected one of {}", allowed.join(", "))
}

fn add_lines(text: &str, prefix: &str, table: &DeTable<'_>, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        lines.insert(name.clone(), ConfigError::line_at(text, key.span().start));
        if let DeValue::Table(table) = value.get_ref() {
            add_lines(text, &format!("{name}."), table, lines);
        }
    }
}

fn option_value(value: &Spanned<DeValue<'_>>) -> Result<FileValue, String> {
    match value.get_ref() {
        DeValue::Boolean(flag) => Ok(FileValue::Flag(*flag)),
        DeValue::Array(values) => {
            let texts = values.iter().map(|value| text_of(value.get_ref()));
            texts.collect::<Result<_, _>>().map(FileValue::List)
        }
        value => text_of(value).map(FileValue::Text),
    }
}

fn text_of(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        _ => Err("a text in quotes or a whole number is needed".into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Result<SettingsFile, ConfigError> {
        let options = ["listen", "client-rate", "reuse-port", "mount-path"].map(str::to_owned);
        SettingsFile::parse(Path::new("m.toml"), text, &options)
    }

    #[test]
    fn options_and_settings_of_the_component_stand_in_one_file() {
        let file = parse(
            "# a comment\nlisten = [\"a:1\", \"b:2\"]\nclient-rate = 5\nreuse-port = true\n\n\
             [cache]\nnegative-ttl = \"9s\"\n",
        )
        .unwrap();
        let listen = FileValue::List(vec!["a:1".into(), "b:2".into()]);
        assert_eq!(file.options["listen"], listen);
        assert_eq!(file.options["client-rate"], FileValue::Text("5".into()));
        assert_eq!(file.options["reuse-port"], FileValue::Flag(true));
        assert_eq!(file.line("client-rate"), Some(3));
        assert_eq!(file.line("cache.negative-ttl"), Some(7));
        assert!(file.component.cache.negative_ttl.is_some());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, said) in [
            ("x", "m.toml:1: x: "),
            ("\nlisten = 1.5", "m.toml:2: listen: a text in quotes"),
            ("listen = [[1]]", "m.toml:1: listen: a text in quotes"),
            ("client-rate = 0x10", "m.toml:1: client-rate: a text"),
            (
                "\n\nlisten-to = \"a\"",
                "m.toml:3: listen-to: unknown field, expected one of browse, cache, client-rate, cors, headers, listen, \
                 mount-path, reuse-port, signing-keys",
            ),
            ("[cors]\norigin = []", "m.toml:2: origin: unknown field"),
            (
                "[cache]\nfiles = \"a\\nb\"",
                "m.toml:2: files: a field's value",
            ),
            (
                "listen = \"a\"\nlisten = \"b\"",
                "m.toml:2: listen: duplicate key",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
