//! Settings of `serve`: options of the command line, variables of the environment, the configuration file and defaults,
//! in this order of precedence.
//!
//! clap describes the options, so the file has a key for each of them. This module has no list of its own.

use crate::common::signing_keys;
use crate::settings_file::{FileValue, SettingsFile};
use anyhow::{Result, anyhow};
use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command};
use millpond::config::Config;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Option with the path of the file. The file cannot name another one.
const CONFIG: &str = "config";

/// Option whose key stands in a table of the component's settings.
const CORS_ORIGIN: (&str, &str) = ("cors-origin", "cors.origins");

/// Settings, resolved.
#[derive(Debug)]
pub(crate) struct ResolvedSettings<T> {
    /// Options, with the values of the file.
    pub(crate) options: T,
    /// Settings of the component in the file.
    pub(crate) component: Config,
    /// Each setting with its source.
    pub(crate) list: Vec<Setting>,
    file: Option<SettingsFile>,
}

/// A setting, as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Key in the file, with its table, as in `cors.origins`.
    pub(crate) key: String,
    value: SettingValue,
    pub(crate) source: SettingSource,
    is_secret: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum SettingValue {
    Unset,
    Flag(bool),
    Text(String),
    List(Vec<String>),
}

/// Source of a setting's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SettingSource {
    Default,
    /// Line of the file.
    File(PathBuf, usize),
    /// Variable of the environment.
    Variable(String),
    /// Option of the command line.
    Option(String),
}

impl<T: Args> ResolvedSettings<T> {
    /// Resolves the settings of parsed arguments. Reads the file that they name, if they name one.
    ///
    /// # Errors
    /// A value of the file is invalid. The message names the file, the line, the field and what is allowed.
    pub(crate) fn resolve(given: &ArgMatches) -> Result<Self> {
        let mut settings = ResolvedSettings::of_options(given)?;
        if let Some(keys) = signing_keys()? {
            settings.component.signing_keys = keys;
            let source = SettingSource::Variable("MILLPOND_SIGNING_KEYS".into());
            settings.set_signing_keys(&source);
        }
        Ok(settings)
    }

    /// Resolves the settings of a file alone, without the environment.
    ///
    /// # Errors
    /// As [`ResolvedSettings::resolve`].
    pub(crate) fn of_file(path: &Path) -> Result<Self> {
        let file = [
            "serve".into(),
            "--config".into(),
            path.as_os_str().to_owned(),
        ];
        ResolvedSettings::of_options(&command::<T>().try_get_matches_from(file)?)
    }

    fn of_options(given: &ArgMatches) -> Result<Self> {
        let described = T::augment_args(Command::new("serve"));
        let options: Vec<&Arg> = described
            .get_arguments()
            .filter(|arg| key(arg).is_some())
            .collect();
        let path: Option<&PathBuf> = given.get_one(CONFIG);
        let keys: Vec<String> = options.iter().filter_map(|arg| key(arg)).collect();
        let keys: Vec<String> = keys
            .into_iter()
            .filter(|key| key != CORS_ORIGIN.1)
            .collect();
        let file = path
            .map(|path| SettingsFile::read(path, &keys))
            .transpose()?;

        let mut sources = BTreeMap::new();
        let mut arguments = vec![OsString::from("serve")];
        let mut positional = Vec::new();
        for arg in &options {
            let id = arg.get_id().as_str();
            let Some(key) = key(arg) else { continue };
            let (source, values) = match given_values(given, arg) {
                Some(values) => (given_source(given, arg), values),
                None => match file
                    .as_ref()
                    .and_then(|file| Some((file, file.options.get(&key)?)))
                {
                    Some((file, value)) => {
                        let values = file_values(arg, value);
                        let values = values.map_err(|message| file.invalid(&key, message))?;
                        (file_source(file, &key), values)
                    }
                    None => (SettingSource::Default, Vec::new()),
                },
            };
            if arg.is_positional() {
                positional.extend(values);
            } else {
                arguments.extend(values);
            }
            sources.insert(id.to_owned(), source);
        }
        arguments.push("--".into());
        arguments.extend(positional);
        let matches = command::<T>().try_get_matches_from(arguments);
        let matches = matches.map_err(|error| invalid(&error, &options, file.as_ref()))?;
        let mut list: Vec<Setting> = options
            .iter()
            .filter_map(|arg| {
                let source = sources.remove(arg.get_id().as_str());
                setting(arg, &matches, source?)
            })
            .collect();
        let component = file.as_ref().map(|file| file.component.clone());
        let component = component.unwrap_or_default();
        let of_component = component_settings(&component, file.as_ref());
        for setting in of_component {
            match list.iter_mut().find(|other| other.key == setting.key) {
                Some(other) if other.value == SettingValue::Unset => *other = setting,
                Some(_) => {}
                None => list.push(setting),
            }
        }
        let mut settings = ResolvedSettings {
            options: T::from_arg_matches(&matches)?,
            component,
            list,
            file,
        };
        let source = SettingSource::Default;
        settings.set_signing_keys(&source);
        Ok(settings)
    }

    /// Lists the signing keys, which a line of the file or another source has.
    fn set_signing_keys(&mut self, source: &SettingSource) {
        const TABLE: &str = "signing-keys";
        let is_key = |key: &str| key.split('.').next() == Some(TABLE);
        self.list.retain(|setting| !is_key(&setting.key));
        let keys = serde_json::to_value(&self.component.signing_keys).unwrap_or_default();
        for (id, _) in keys.as_object().into_iter().flatten() {
            let key = format!("{TABLE}.{id}");
            let line = self.file.as_ref().map(|file| file_source(file, &key));
            let secret = self.component.signing_keys.find(Some(id));
            let secret = secret.map(|key| key.to_text()).unwrap_or_default();
            self.list.push(Setting {
                key,
                value: SettingValue::Text(secret),
                source: match source {
                    SettingSource::Default => line.unwrap_or(SettingSource::Default),
                    other => other.clone(),
                },
                is_secret: true,
            });
        }
    }

    /// Path of the configuration file, if there is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// Returns the error of a setting's value, with its place.
    pub(crate) fn invalid(&self, key: &str, message: impl fmt::Display) -> anyhow::Error {
        let found = self.list.iter().find(|setting| setting.key == key);
        match (found.map(|setting| &setting.source), &self.file) {
            (Some(SettingSource::File(..)), Some(file)) => {
                file.invalid(key, message.to_string()).into()
            }
            (Some(SettingSource::Variable(variable)), _) => anyhow!("{variable}: {message}"),
            _ => anyhow!("--{key}: {message}"),
        }
    }
}

/// Returns the command of the options alone, without the environment.
pub(crate) fn command<T: Args>() -> Command {
    let command = T::augment_args(Command::new("serve"));
    command.mut_args(|arg| arg.env(Resettable::Reset))
}

/// Key of an option in the file. `None` for an option that cannot stand there.
pub(crate) fn key(arg: &Arg) -> Option<String> {
    let name = arg.get_long().unwrap_or(arg.get_id().as_str());
    match name {
        CONFIG | "help" | "version" => None,
        name if name == CORS_ORIGIN.0 => Some(CORS_ORIGIN.1.into()),
        name => Some(name.to_owned()),
    }
}

/// Returns the arguments of an option that was given on the command line or by a variable.
fn given_values(given: &ArgMatches, arg: &Arg) -> Option<Vec<OsString>> {
    let id = arg.get_id().as_str();
    let source = given.value_source(id)?;
    if source == ValueSource::DefaultValue {
        return None;
    }
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return Some(if given.get_flag(id) {
            vec![flag(arg)]
        } else {
            Vec::new()
        });
    }
    let values = given.get_raw(id).into_iter().flatten();
    Some(values.map(|value| argument(arg, value)).collect())
}

fn given_source(given: &ArgMatches, arg: &Arg) -> SettingSource {
    let id = arg.get_id().as_str();
    match (given.value_source(id), arg.get_env()) {
        (Some(ValueSource::EnvVariable), Some(variable)) => {
            SettingSource::Variable(variable.to_string_lossy().into_owned())
        }
        _ => SettingSource::Option(
            arg.get_long()
                .map_or(id.to_uppercase(), |long| format!("--{long}")),
        ),
    }
}

fn file_source(file: &SettingsFile, key: &str) -> SettingSource {
    match file.line(key) {
        Some(line) => SettingSource::File(file.path.clone(), line),
        None => SettingSource::Default,
    }
}

/// Returns the arguments for a value of the file.
fn file_values(arg: &Arg, value: &FileValue) -> Result<Vec<OsString>, &'static str> {
    let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
    let is_list = matches!(arg.get_action(), ArgAction::Append);
    match value {
        FileValue::Flag(is_set) if is_flag => {
            Ok(if *is_set { vec![flag(arg)] } else { Vec::new() })
        }
        _ if is_flag => Err("true or false is needed"),
        // Options such as `--browse on|off` are switches too.
        FileValue::Flag(is_on) => {
            let text = if *is_on { "on" } else { "off" };
            Ok(vec![argument(arg, text.as_ref())])
        }
        FileValue::Text(text) => Ok(vec![argument(arg, text.as_ref())]),
        FileValue::List(texts)
            if is_list && (!texts.is_empty() || arg.get_default_values().is_empty()) =>
        {
            Ok(texts
                .iter()
                .map(|text| argument(arg, text.as_ref()))
                .collect())
        }
        FileValue::List(_) if is_list => Err("at least one value is needed"),
        FileValue::List(_) => Err("one value is needed, and no list"),
    }
}

fn flag(arg: &Arg) -> OsString {
    format!("--{}", arg.get_long().unwrap_or_default()).into()
}

fn argument(arg: &Arg, value: &std::ffi::OsStr) -> OsString {
    let mut argument = match arg.get_long() {
        Some(long) => OsString::from(format!("--{long}=")),
        None => OsString::new(),
    };
    argument.push(value);
    argument
}

/// Returns the error of a value. The values of the command line are valid, so it is one of the file.
fn invalid(error: &clap::Error, options: &[&Arg], file: Option<&SettingsFile>) -> anyhow::Error {
    let named = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(name)) => name.as_str(),
        _ => "",
    };
    let name = named.trim_start_matches(['-', '[', '<']);
    let name = name.split([' ', '=', ']', '>']).next().unwrap_or_default();
    let arg = options.iter().find(|arg| {
        arg.get_long()
            .unwrap_or(arg.get_id().as_str())
            .eq_ignore_ascii_case(name)
    });
    let message = match (error.get(ContextKind::ValidValue), error.source()) {
        (Some(ContextValue::Strings(values)), _) if !values.is_empty() => {
            format!("the value is one of {}", values.join(", "))
        }
        (_, Some(source)) => source.to_string(),
        _ => error.kind().to_string(),
    };
    match (file, arg.and_then(|arg| key(arg))) {
        (Some(file), Some(key)) => file.invalid(&key, message).into(),
        _ => anyhow!("{message}"),
    }
}

fn setting(arg: &Arg, matches: &ArgMatches, source: SettingSource) -> Option<Setting> {
    let id = arg.get_id().as_str();
    let raw = matches.get_raw(id).into_iter().flatten();
    let mut texts: Vec<String> = raw
        .map(|text| text.to_string_lossy().into_owned())
        .collect();
    let value = match arg.get_action() {
        ArgAction::SetTrue => SettingValue::Flag(matches.get_flag(id)),
        _ if texts.is_empty() => SettingValue::Unset,
        ArgAction::Append => SettingValue::List(texts),
        _ => SettingValue::Text(texts.swap_remove(0)),
    };
    Some(Setting {
        key: key(arg)?,
        value,
        source,
        is_secret: arg.is_hide_env_values_set(),
    })
}

/// Lists the component's settings in a file.
fn component_settings(component: &Config, file: Option<&SettingsFile>) -> Vec<Setting> {
    let tables = serde_json::to_value(component).unwrap_or_default();
    let tables = tables.as_object().into_iter().flatten();
    let fields = tables.flat_map(|(table, fields)| {
        let fields = fields.as_object().into_iter().flatten();
        fields.map(move |(field, value)| (format!("{table}.{field}"), value))
    });
    let settings = fields.map(|(key, value)| Setting {
        value: match value {
            serde_json::Value::String(text) => SettingValue::Text(text.clone()),
            serde_json::Value::Array(texts) => {
                let texts = texts.iter().filter_map(|text| text.as_str());
                SettingValue::List(texts.map(str::to_owned).collect())
            }
            _ => SettingValue::Unset,
        },
        source: file.map_or(SettingSource::Default, |file| file_source(file, &key)),
        is_secret: false,
        key,
    });
    settings.collect()
}

impl Setting {
    /// Table of the setting in the file. Options have none.
    pub(crate) fn table(&self) -> &str {
        self.key.split_once('.').map_or("", |(table, _)| table)
    }

    /// Name of the setting in its table.
    pub(crate) fn name(&self) -> &str {
        self.key.split_once('.').map_or(&self.key, |(_, name)| name)
    }

    /// Whether two settings have the same value, whatever their sources.
    pub(crate) fn is_same(&self, other: &Setting) -> bool {
        self.value == other.value
    }

    /// The value, for people.
    pub(crate) fn shown(&self) -> String {
        match &self.value {
            SettingValue::Unset => "unset".into(),
            _ if self.is_secret => "(hidden)".into(),
            SettingValue::Flag(flag) => flag.to_string(),
            SettingValue::Text(text) => text.clone(),
            SettingValue::List(texts) => texts.join(","),
        }
    }

    /// The value in TOML. `None` if it is unset, or a secret.
    pub(crate) fn toml(&self) -> Option<String> {
        let quoted = |text: &String| toml::Value::from(text.as_str()).to_string();
        match &self.value {
            SettingValue::Unset => None,
            _ if self.is_secret => None,
            SettingValue::Flag(flag) => Some(flag.to_string()),
            SettingValue::Text(text) => Some(quoted(text)),
            SettingValue::List(texts) => {
                let texts: Vec<String> = texts.iter().map(quoted).collect();
                Some(format!("[{}]", texts.join(", ")))
            }
        }
    }
}

impl fmt::Display for SettingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingSource::Default => f.write_str("default"),
            SettingSource::File(path, line) => write!(f, "{}:{line}", path.display()),
            SettingSource::Variable(variable) => f.write_str(variable),
            SettingSource::Option(option) => f.write_str(option),
        }
    }
}
