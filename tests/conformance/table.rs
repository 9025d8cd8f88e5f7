//! The conformance table as it is written down: what stands in the TOML files beside this one.
//!
//! `common.toml` says what the rows share (the objects that are served, and the fields of each kind of
//! answer); every other file is one topic. The page `docs/conformance.md` is made of the same types.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// All of the table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) common: Common,
    pub(crate) topics: Vec<Topic>,
}

/// What the rows share.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Common {
    /// What a word in braces stands for, wherever a row or an answer has it.
    pub(crate) words: BTreeMap<String, String>,
    /// The objects that are served.
    pub(crate) fixtures: BTreeMap<String, Fixture>,
    /// Fields that several kinds of answer have.
    pub(crate) fields: BTreeMap<String, Fields>,
    /// The kinds of answer.
    pub(crate) answers: BTreeMap<String, Answer>,
    /// Secrets that rows sign with, in hexadecimal, by their ids.
    pub(crate) keys: BTreeMap<String, String>,
}

/// Field names and values. A value is left out where a word in it stands for what a fixture lacks; `-` is no such field.
pub(crate) type Fields = BTreeMap<String, String>;

/// Settings of the component, as `wit/world.wit` lists them.
pub(crate) type Settings = BTreeMap<String, String>;

/// An object: by its name where it has one, by its content otherwise.
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
    /// Whether a store serves it: hidden files lie in the folder and are not.
    #[serde(default = "yes")]
    pub(crate) served: bool,
    /// The object that it is another representation of: it is asked for at that one's path.
    pub(crate) variant_of: Option<String>,
    /// Its content coding.
    pub(crate) coding: Option<String>,
    /// When it was modified, in Unix seconds; with all others where this is left out.
    pub(crate) modified: Option<u64>,
    /// Whether it is given to those only who show a signature.
    #[serde(default)]
    pub(crate) private: bool,
}

/// What an object is made of.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bytes {
    /// That many bytes which differ from place to place.
    Noise(usize),
    /// A text.
    Text(String),
    /// A text of characters up to U+00FF, each of which is a byte.
    Latin1(String),
}

/// A kind of answer.
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

/// What a `GET` gets as content; a `HEAD` gets none, with the same fields.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Body {
    Empty,
    /// All of the object.
    Whole,
    /// Those bytes of the object that the row names.
    Part,
    /// Those ranges of the object that the row names, with a comma between them, each in a part of its own.
    Parts,
    Text(String),
}

/// One file: what belongs under one heading.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Topic {
    pub(crate) title: String,
    pub(crate) about: String,
    #[serde(rename = "group")]
    pub(crate) groups: Vec<Group>,
}

/// Rows that have most in common.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Group {
    pub(crate) title: String,
    /// Where it stands: a section of an RFC, or the public tests that the rows come from.
    pub(crate) source: String,
    /// Of which objects each row is asked, one after another.
    #[serde(default)]
    pub(crate) of: List,
    /// With which methods.
    #[serde(default)]
    pub(crate) method: List,
    /// The settings that are not left at their defaults.
    #[serde(default)]
    pub(crate) settings: Settings,
    /// Field lines that every row sends.
    #[serde(default)]
    pub(crate) send: BTreeMap<String, List>,
    /// The kind of answer of rows that name none.
    pub(crate) answer: Option<String>,
    pub(crate) cases: Vec<Case>,
}

/// A row: a request, and the answer to it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) source: Option<String>,
    #[serde(default)]
    pub(crate) of: List,
    #[serde(default)]
    pub(crate) method: List,
    /// The target, where it is not the object's own; each of several is asked for.
    #[serde(default)]
    pub(crate) target: List,
    /// Field lines; several values are several lines. `\xNN` is that byte.
    #[serde(default)]
    pub(crate) send: BTreeMap<String, List>,
    /// Field lines of which each value is tried with each of the others; `-` is to send none.
    #[serde(default)]
    pub(crate) vary: BTreeMap<String, List>,
    /// Signs, so that `{signature}` is a query that grants something.
    pub(crate) sign: Option<Sign>,
    /// Who asks, and when: what can be chosen natively alone, so such a row is run in no other way.
    pub(crate) natively: Option<Natively>,
    /// The kind of answer.
    pub(crate) answer: Option<String>,
    /// Which bytes of the object an answer in part has: `0-99`.
    pub(crate) bytes: Option<String>,
    /// Fields that this answer has beside or instead of those of its kind.
    #[serde(default)]
    pub(crate) fields: Fields,
    /// Why the answer is not that of the source.
    pub(crate) deviates: Option<String>,
    /// Why the answer that millpond gives is not this one, though it should be. Such a row is not run.
    pub(crate) known_failure: Option<String>,
}

/// What a signature is made of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sign {
    /// The id of the key.
    #[serde(default = "first_key")]
    pub(crate) key: String,
    /// What it is for; the object's own path where this is left out.
    pub(crate) path: Option<String>,
    /// When it ends, in Unix seconds.
    #[serde(default = "far_future")]
    pub(crate) expires: u64,
    /// Whose addresses it is for.
    pub(crate) prefix: Option<String>,
}

/// What a host knows of a request by itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Natively {
    /// When it came, in Unix seconds.
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
    /// The same, or that one value where there is none.
    pub(crate) fn or_default(&self, value: &str) -> List {
        if self.0.is_empty() {
            List(vec![value.to_owned()])
        } else {
            self.clone()
        }
    }

    /// These values, or those where there are none.
    pub(crate) fn or<'a>(&'a self, others: &'a List) -> &'a [String] {
        if self.0.is_empty() {
            &others.0
        } else {
            &self.0
        }
    }
}

impl Table {
    /// Reads the files of that folder, the topics in the order of their names.
    ///
    /// # Errors
    /// When a file cannot be read or understood, with its name.
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

    /// Every row with the group that it stands in.
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
