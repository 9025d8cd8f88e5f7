//! From rows to exchanges: each is one request, spelt out, and the one answer that is right.

use super::fixtures::{Fixture, Fixtures};
use super::table::{Answer, Body, Case, Common, Group, List, Settings, Table};
use millpond_format::signature::{Grant, SigningKey};
use std::collections::BTreeMap;
use std::fmt;

/// One request and the right answer.
pub(crate) struct Exchange {
    /// The row's name, and which of its variants this is.
    pub(crate) name: String,
    /// The settings that are not left at their defaults.
    pub(crate) settings: Settings,
    /// Whether it can be put to the guest's code alone.
    pub(crate) natively_only: bool,
    /// Whether the digest of what is asked for is told once it is known, and so may be missing.
    pub(crate) digest_comes_later: bool,
    pub(crate) request: Request,
    pub(crate) expected: Response,
}

/// A request, as it is sent.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    /// When it comes, in Unix seconds, and from where: for the guest's code natively.
    pub(crate) received: u64,
    pub(crate) client: Option<String>,
}

/// When requests come that do not say: long after 1970, and long before signatures end.
const RECEIVED: u64 = 1_800_000_000;

impl Request {
    pub(crate) fn new(method: &str, target: &str, fields: Vec<(String, Vec<u8>)>) -> Self {
        Request {
            method: method.into(),
            target: target.into(),
            fields,
            received: RECEIVED,
            client: None,
        }
    }
}

/// An answer, as far as it is the guest's: `date` and what belongs to the connection are the host's and left out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// Fields that a server adds to each response.
const OF_SERVERS: [&str; 4] = ["connection", "date", "keep-alive", "x-request-id"];

impl Response {
    pub(crate) fn new<'a>(
        status: u16,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        body: Vec<u8>,
    ) -> Self {
        let mut fields: Vec<_> = fields
            .into_iter()
            .filter(|(name, _)| !OF_SERVERS.contains(name))
            .map(|(name, value)| (name.to_owned(), value.escape_ascii().to_string()))
            .collect();
        let body = with_a_known_boundary(&mut fields, body);
        // The order of lines with different names has no meaning (RFC 9110 section 5.3).
        fields.sort();
        Response {
            status,
            fields,
            body,
        }
    }
}

/// A boundary is another one each time, of always the same length; here it is that of the nonce 0.
fn with_a_known_boundary(fields: &mut [(String, String)], body: Vec<u8>) -> Vec<u8> {
    let known = "millpond-0000000000000000";
    let mut fields = fields.iter_mut();
    let Some((_, media_type)) = fields.find(|(name, _)| name == "content-type") else {
        return body;
    };
    let Some(boundary) = media_type.strip_prefix("multipart/byteranges; boundary=") else {
        return body;
    };
    let boundary = boundary.to_owned();
    assert_eq!(boundary.len(), known.len());
    *media_type = media_type.replace(&boundary, known);
    let mut body = body;
    for start in 0..body.len().saturating_sub(known.len() - 1) {
        if body[start..].starts_with(boundary.as_bytes()) {
            body[start..start + known.len()].copy_from_slice(known.as_bytes());
        }
    }
    body
}

impl Response {
    /// The same without the field.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.fields.retain(|(field, _)| field != name);
        self
    }
}

/// Differences of two responses, as lines.
pub(crate) fn difference(expected: &Response, got: &Response) -> String {
    let mut lines = Vec::new();
    if expected.status != got.status {
        lines.push(format!("status {}, not {}", got.status, expected.status));
    }
    for (name, value) in &expected.fields {
        if !got.fields.contains(&(name.clone(), value.clone())) {
            lines.push(format!("no `{name}: {value}`"));
        }
    }
    for (name, value) in &got.fields {
        if !expected.fields.contains(&(name.clone(), value.clone())) {
            lines.push(format!("a `{name}: {value}`"));
        }
    }
    if expected.body != got.body {
        let shown = |body: &[u8]| body[..body.len().min(60)].escape_ascii().to_string();
        lines.push(format!(
            "{} bytes `{}`, not {} bytes `{}`",
            got.body.len(),
            shown(&got.body),
            expected.body.len(),
            shown(&expected.body)
        ));
    }
    lines.join("; ")
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.target)?;
        for (name, value) in &self.fields {
            write!(f, " | {name}: {}", value.escape_ascii())?;
        }
        Ok(())
    }
}

/// The exchanges of all rows but known failures.
pub(crate) fn passing(table: &Table, fixtures: &Fixtures) -> Vec<Exchange> {
    of_rows(table, fixtures, |case| case.known_failure.is_none())
}

/// The exchanges of rows that are known failures.
pub(crate) fn known_failures(table: &Table, fixtures: &Fixtures) -> Vec<Exchange> {
    of_rows(table, fixtures, |case| case.known_failure.is_some())
}

fn of_rows(table: &Table, fixtures: &Fixtures, which: impl Fn(&Case) -> bool) -> Vec<Exchange> {
    let rows = table.rows().filter(|(_, case)| which(case));
    rows.flat_map(|(group, case)| of_row(&table.common, fixtures, group, case))
        .collect()
}

fn of_row(common: &Common, fixtures: &Fixtures, group: &Group, case: &Case) -> Vec<Exchange> {
    let own_target = List(vec!["{path}".into()]);
    let kind = case.answer.as_ref().or(group.answer.as_ref());
    let kind = kind.unwrap_or_else(|| panic!("{}: no answer", case.name));
    let answer = common.answers.get(kind);
    let answer = answer.unwrap_or_else(|| panic!("{}: no answer is {kind:?}", case.name));
    let source = case.source.as_ref().unwrap_or(&group.source);
    let received = case.natively.as_ref().and_then(|known| known.received);
    let client = case
        .natively
        .as_ref()
        .and_then(|known| known.client.clone());
    let mut exchanges = Vec::new();
    for of in case.of.or(&group.of.or_default("named")) {
        let words = Words {
            common,
            fixture: fixtures.get(of),
            case,
        };
        for method in case.method.or(&group.method.or_default("GET")) {
            for target in case.target.or(&own_target) {
                for varied in combinations(&case.vary) {
                    let fields = words.request_fields(group, &varied);
                    let request = Request {
                        received: received.unwrap_or(RECEIVED),
                        client: client.clone(),
                        ..Request::new(method, &words.put_in(target), fields)
                    };
                    exchanges.push(Exchange {
                        name: format!("{} / {} ({of}; {source})", group.title, case.name),
                        settings: group.settings.clone(),
                        natively_only: case.natively.is_some(),
                        digest_comes_later: words.fixture.words["id"].is_none(),
                        expected: words.response(answer, method),
                        request,
                    });
                }
            }
        }
    }
    exchanges
}

/// Each value of each field with each of the others; `-` stands for no line.
fn combinations(vary: &BTreeMap<String, List>) -> Vec<Vec<(&str, &str)>> {
    let mut combinations = vec![Vec::new()];
    for (name, values) in vary {
        combinations = combinations
            .iter()
            .flat_map(|before| {
                values.0.iter().map(|value| {
                    let mut with = before.clone();
                    if value != "-" {
                        with.push((name.as_str(), value.as_str()));
                    }
                    with
                })
            })
            .collect();
    }
    combinations
}

/// Values of the words in braces, for one row and one fixture.
struct Words<'a> {
    common: &'a Common,
    fixture: &'a Fixture,
    case: &'a Case,
}

impl Words<'_> {
    fn request_fields(&self, group: &Group, varied: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
        let lines = |sent: &BTreeMap<String, List>| -> Vec<(String, String)> {
            let each = sent.iter().flat_map(|(name, values)| {
                values.0.iter().map(|value| (name.clone(), value.clone()))
            });
            each.collect()
        };
        let mut fields = lines(&group.send);
        fields.extend(lines(&self.case.send));
        fields.extend(
            varied
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        // Whitespace around a value is no part of it (RFC 9110 section 5.5). A parser removes it before the guest gets
        // the value; natively there is no parser.
        let bytes = |(name, value): (String, String)| {
            let value = unescape(&self.put_in(&value));
            (name, value.trim_ascii().to_vec())
        };
        fields.into_iter().map(bytes).collect()
    }

    fn response(&self, answer: &Answer, method: &str) -> Response {
        let whole = &self.fixture.bytes;
        let body = match &answer.body {
            Body::Empty => Vec::new(),
            Body::Whole => whole.to_vec(),
            Body::Part => self.part(self.case.bytes.as_deref()).to_vec(),
            Body::Parts => self.parts(),
            Body::Text(text) => self.put_in(text).into_bytes(),
        };
        let mut fields = BTreeMap::new();
        for group in &answer.groups {
            fields.extend(&self.common.fields[group]);
        }
        fields.extend(&answer.fields);
        fields.extend(&self.case.fields);
        let fields: Vec<_> = fields
            .into_iter()
            .filter(|(_, value)| *value != "-")
            .filter_map(|(name, value)| {
                let value = self.fill(value, Some(body.len()))?;
                Some((name, value))
            })
            .collect();
        let fields = fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()));
        let body_sent = if method == "HEAD" {
            Vec::new()
        } else {
            body.clone()
        };
        Response::new(answer.status, fields, body_sent)
    }

    /// Bytes that the row names, as in `0-9`.
    fn part(&self, named: Option<&str>) -> &[u8] {
        let named = named.and_then(|bytes| bytes.split_once('-'));
        let range = named.and_then(|(first, last)| {
            let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            self.fixture.bytes.get(first..=last)
        });
        range.unwrap_or_else(|| panic!("{}: no such bytes", self.case.name))
    }

    /// All ranges that the row names, as RFC 9110 section 14.6 shows them.
    fn parts(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let (media_type, length) = (self.put_in("{type}"), self.fixture.bytes.len());
        for named in self.case.bytes.as_deref().unwrap_or_default().split(',') {
            let line_end = if body.is_empty() { "" } else { "\r\n" };
            let head = format!(
                "{line_end}--millpond-0000000000000000\r\nContent-Type: {media_type}\r\n\
                 Content-Range: bytes {named}/{length}\r\n\r\n"
            );
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(self.part(Some(named)));
        }
        body.extend_from_slice(b"\r\n--millpond-0000000000000000--\r\n");
        body
    }

    /// The query that the row signs.
    fn signature(&self) -> String {
        let sign = self.case.sign.as_ref();
        let sign = sign.unwrap_or_else(|| panic!("{}: nothing is signed", self.case.name));
        let path = self.put_in(sign.path.as_deref().unwrap_or("{path}"));
        let key = SigningKey::parse(&format!("{}:{}", sign.key, self.common.keys[&sign.key]));
        key.unwrap().sign(&Grant {
            path: &path,
            expires: sign.expires,
            client_prefix: sign.prefix.as_deref(),
        })
    }

    /// The text with its words put in, each of which has to stand for something.
    fn put_in(&self, text: &str) -> String {
        self.fill(text, None)
            .unwrap_or_else(|| panic!("{}: {text:?} has no value", self.case.name))
    }

    /// The text with its words put in; none where the fixture has nothing for one.
    fn fill(&self, text: &str, count: Option<usize>) -> Option<String> {
        let is_word = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        };
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            filled += before;
            match after.split_once('}') {
                Some((word, after)) if is_word(word) => {
                    filled += &self.word(word, count)?;
                    rest = after;
                }
                _ => {
                    filled.push('{');
                    rest = after;
                }
            }
        }
        Some(filled + rest)
    }

    fn word(&self, word: &str, count: Option<usize>) -> Option<String> {
        if word == "count" {
            return count.map(|count| count.to_string());
        }
        if word == "bytes" {
            return self.case.bytes.clone();
        }
        if word == "signature" {
            return Some(self.signature());
        }
        if let Some(value) = self.fixture.words.get(word) {
            return value.clone();
        }
        let value = self.common.words.get(word);
        let value =
            value.unwrap_or_else(|| panic!("{}: {{{word}}} stands for nothing", self.case.name));
        Some(value.clone())
    }
}

/// The bytes of a field value, in which `\xNN` is a byte.
fn unescape(value: &str) -> Vec<u8> {
    let mut pieces = value.split("\\x");
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at(2);
        bytes.push(u8::from_str_radix(digits, 16).unwrap());
        bytes.extend_from_slice(rest.as_bytes());
    }
    bytes
}
