//! The conformance table, as in the TOML files beside this one.
//!
//! `common.toml` has the parts that rows share: the objects, and the fields of each kind of response. Every other file is one
//! topic. The page `docs/conformance.md` is made of the same types.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) common: Common,
    pub(crate) topics: Vec<Topic>,
}

/// Parts that the rows share.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Common {
    /// Values of the words in braces.
    pub(crate) words: BTreeMap<String, String>,
    /// The objects that are served.
    pub(crate) fixtures: BTreeMap<String, Fixture>,
    /// Groups of fields that several kinds of response have.
    pub(crate) fields: BTreeMap<String, Fields>,
    /// The kinds of response.
    pub(crate) answers: BTreeMap<String, Answer>,
    /// Secrets that rows sign with, in hexadecimal, by their ids.
    pub(crate) keys: BTreeMap<String, String>,
}

/// Field names and values. A field is absent if a word in its value has none for the fixture, or if the value is `-`.
pub(crate) type Fields = BTreeMap<String, String>;

/// Settings of the component, as `wit/world.wit` lists them.
pub(crate) type Settings = BTreeMap<String, String>;

/// An object, named or stored by its content.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Fixture {
    pub(crate) name: Option<String>,
    #[serde(flatten)]
    pub(crate) bytes: Bytes,
    /// Its media type: of a named file by the name, of stored media by the content.
    pub(crate) r#type: String,
    /// Its `Cache-Control`.
    pub(crate) cache: String,
    /// Whether a store serves it. Hidden files are in the folder and are not served.
    #[serde(default = "yes")]
    pub(crate) served: bool,
    /// The object that it is another representation of. Its requests have the path of that object.
    pub(crate) variant_of: Option<String>,
    /// Its content coding.
    pub(crate) coding: Option<String>,
    /// Modification time, in Unix seconds. By default it is that of all others.
    pub(crate) modified: Option<u64>,
    /// Whether it needs a signed URL.
    #[serde(default)]
    pub(crate) private: bool,
}

/// Bytes of an object.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bytes {
    /// Number of pseudorandom bytes.
    Noise(usize),
    /// A text.
    Text(String),
    /// A text of characters up to U+00FF, each of which is one byte.
    Latin1(String),
}

/// A kind of response.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names of groups of fields.
    pub(crate) groups: Vec<String>,
    #[serde(default)]
    pub(crate) fields: Fields,
    pub(crate) body: Body,
}

/// Content of the response to `GET`. The response to `HEAD` has none, and the same fields.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Body {
    Empty,
    /// All of the object.
    Whole,
    /// The bytes of the object that the row selects.
    Part,
    /// The ranges of the object that the row selects, separated by commas, each in a part of its own.
    Parts,
    Text(String),
}

/// One file: the groups under one heading.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Topic {
    pub(crate) title: String,
    pub(crate) about: String,
    #[serde(rename = "group")]
    pub(crate) groups: Vec<Group>,
}

/// Rows with common defaults.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Group {
    pub(crate) title: String,
    /// Source: a section of an RFC, or the public tests that the rows are from.
    pub(crate) source: String,
    /// Objects of each row, in turn.
    #[serde(default)]
    pub(crate) of: List,
    /// Methods of each row, in turn.
    #[serde(default)]
    pub(crate) method: List,
    /// Settings that differ from the defaults.
    #[serde(default)]
    pub(crate) settings: Settings,
    /// Field lines that every row sends.
    #[serde(default)]
    pub(crate) send: BTreeMap<String, List>,
    /// The kind of response of rows that name none.
    pub(crate) answer: Option<String>,
    pub(crate) cases: Vec<Case>,
}

/// A row: a request, and the response to it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) source: Option<String>,
    #[serde(default)]
    pub(crate) of: List,
    #[serde(default)]
    pub(crate) method: List,
    /// Targets, in turn. By default it is the path of the object.
    #[serde(default)]
    pub(crate) target: List,
    /// Field lines; several values are several lines. `\xNN` is that byte.
    #[serde(default)]
    pub(crate) send: BTreeMap<String, List>,
    /// Field lines, of which each value is combined with each of the others. `-` sends no such field.
    #[serde(default)]
    pub(crate) vary: BTreeMap<String, List>,
    /// Parameters of `{signature}`, a query that grants access.
    pub(crate) sign: Option<Sign>,
    /// Client and time of the request. Only a native test can set them, so the row runs natively only.
    pub(crate) natively: Option<Natively>,
    /// The kind of response.
    pub(crate) answer: Option<String>,
    /// Bytes of the object in a partial response: `0-99`.
    pub(crate) bytes: Option<String>,
    /// Fields beside or instead of those of the kind of response.
    #[serde(default)]
    pub(crate) fields: Fields,
    /// Reason why the response is not that of the source.
    pub(crate) deviates: Option<String>,
    /// Reason why millpond does not return this response although it should. Such a row does not run.
    pub(crate) known_failure: Option<String>,
}

/// Parameters of a signature.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sign {
    /// The id of the key.
    #[serde(default = "first_key")]
    pub(crate) key: String,
    /// Path that it grants. By default it is the path of the object.
    pub(crate) path: Option<String>,
    /// Expiry, in Unix seconds.
    #[serde(default = "far_future")]
    pub(crate) expires: u64,
    /// Prefix of the client addresses that it grants access to.
    pub(crate) prefix: Option<String>,
}

/// Parts of a request that the host provides.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Natively {
    /// Time of the request, in Unix seconds.
    pub(crate) received: Option<u64>,
    /// The client's address.
    pub(crate) client: Option<String>,
}

/// One value or several.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(from = "OneOrMany")]
pub(crate) struct List(pub(crate) Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for List {
    fn from(value: OneOrMany) -> Self {
        match value {
            OneOrMany::One(one) => List(vec![one]),
            OneOrMany::Many(many) => List(many),
        }
    }
}

impl List {
    /// Returns the list, or this value if it is empty.
    pub(crate) fn or_default(&self, value: &str) -> List {
        if self.0.is_empty() {
            List(vec![value.to_owned()])
        } else {
            self.clone()
        }
    }

    /// Returns these values, or the others if there are none.
    pub(crate) fn or<'a>(&'a self, others: &'a List) -> &'a [String] {
        if self.0.is_empty() {
            &others.0
        } else {
            &self.0
        }
    }
}

impl Table {
    /// Reads the files of a folder, the topics in the order of their names.
    ///
    /// # Errors
    /// A file cannot be read or parsed.
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(|error| error.to_string())? {
            let path = entry.map_err(|error| error.to_string())?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "toml")
                && !path.ends_with(COMMON)
            {
                names.push(path);
            }
        }
        names.sort();
        Ok(Table {
            common: read(&folder.join(COMMON))?,
            topics: names
                .iter()
                .map(|path| read(path))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Every row, with its group.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&Group, &Case)> {
        self.topics
            .iter()
            .flat_map(|topic| &topic.groups)
            .flat_map(|group| group.cases.iter().map(move |case| (group, case)))
    }
}

const COMMON: &str = "common.toml";

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, String> {
    let in_file = |error: String| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| in_file(error.to_string()))?;
    toml::from_str(&text).map_err(|error| in_file(error.to_string()))
}

fn yes() -> bool {
    true
}

fn first_key() -> String {
    "k1".into()
}

/// In the year 2286.
pub(crate) const FAR_FUTURE: u64 = 9_999_999_999;

fn far_future() -> u64 {
    FAR_FUTURE
}
