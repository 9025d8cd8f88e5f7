//! Invariants of all requests, tested with random ones.

use super::exchange::{Request, Response};
use super::fixtures::{Fixtures, Item};
use super::ways::{self, Component};
use crate::host::noise;
use millpond::Outcome;
use millpond_format::settings::Settings;
use millpond_format::signature;
use millpond_guest::{Imports, Key, ListQuery, Listing, SettingsError, StoreError};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;

proptest! {
    #[test]
    fn any_ranges_of_any_length_select_what_the_model_says(
        ranges in prop::collection::vec(range_spec(), 0..=5),
        length in 0..2000_usize,
    ) {
        let texts: Vec<_> = ranges.iter().map(RangeSpec::text).collect();
        let request = get("/media/x", vec![
            ("range".into(), format!("bytes={}", texts.join(",")).into_bytes()),
        ]);
        let bytes = noise(length);
        let answer = ways::natively(&request, &One(&bytes));
        match model(&ranges, length) {
            Selected::Whole => {
                prop_assert_eq!(answer.status, 200);
                prop_assert_eq!(answer.body, bytes);
            }
            Selected::Part(range) => {
                prop_assert_eq!(answer.status, 206);
                prop_assert_eq!(answer.body, &bytes[range]);
            }
            Selected::Parts(ranges) => {
                prop_assert_eq!(answer.status, 206);
                let mut rest = &answer.body[..];
                for range in ranges {
                    let head = format!(
                        "Content-Range: bytes {}-{}/{length}\r\n\r\n",
                        range.start,
                        range.end - 1
                    );
                    let start = find(rest, head.as_bytes());
                    prop_assert!(start.is_some(), "no {}", head);
                    rest = &rest[start.unwrap() + head.len()..];
                    prop_assert_eq!(&rest[..range.len()], &bytes[range.clone()]);
                    rest = &rest[range.len()..];
                }
                prop_assert_eq!(rest, b"\r\n--millpond-0000000000000000--\r\n");
            }
            Selected::Nothing => prop_assert_eq!(answer.status, 416),
        }
    }

    #[test]
    fn any_target_and_any_fields_have_an_answer_of_the_guest(
        target in "[*/]?(api/)?(media[/?])?\\PC{0,40}",
        fields in prop::collection::vec(field_line(), 0..8),
        method in "GET|HEAD|OPTIONS|\\PC{0,8}",
    ) {
        let request = Request::new(&method, &target, fields);
        let answer = ways::natively(&request, &One(&noise(100)));
        prop_assert!((200..500).contains(&answer.status), "{}: {}", request, answer.status);
    }
}

/// A component that traps, runs out of its limits or answers what cannot be sent is answered for with a 500.
#[test]
fn no_fields_make_the_component_fail() {
    let (_, fixtures) = super::table();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let component = {
        let _entered = runtime.enter();
        Component::new(
            &fixtures,
            &BTreeMap::new(),
            millpond::Limits::default().response_cache_bytes,
        )
    };
    let targets = targets(&fixtures);
    let target = prop::sample::select(targets);
    let fields = prop::collection::vec(field_line(), 0..20);
    let mut runner = proptest::test_runner::TestRunner::default();
    let result = runner.run(&(target, fields), |(target, fields)| {
        let request = get(&target, fields);
        let answer: Response = runtime.block_on(component.ask(&request));
        prop_assert!(answer.status < 500, "{}: {}", request, answer.status);
        Ok(())
    });
    result.unwrap();
    assert_eq!(component.registry().ended_requests(Outcome::Failed), 0);
    assert_eq!(component.registry().ended_requests(Outcome::Limited), 0);
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

fn get(target: &str, fields: Vec<(String, Vec<u8>)>) -> Request {
    Request::new("GET", target, fields)
}

/// A target of every route.
fn targets(fixtures: &Fixtures) -> Vec<String> {
    let path = |name: &str| fixtures.get(name).words["path"].clone().unwrap();
    let stored = path("content");
    let info = format!("{stored}/info");
    let nothing = "/media/none".to_owned();
    vec![stored, info, path("named"), path("empty"), nothing]
}

/// Bytes that a `Range` field selects.
enum Selected {
    Whole,
    Part(Range<usize>),
    Parts(Vec<Range<usize>>),
    Nothing,
}

/// RFC 9110 section 14, as plainly as it can be put.
fn model(specs: &[RangeSpec], length: usize) -> Selected {
    match specs {
        [] => Selected::Nothing,
        [spec] => one(spec, length),
        several => model_of_several(several, length),
    }
}

/// A set with an invalid range is invalid. Of the others, bytes within the object are sent once. They are the whole
/// object if the ranges are longer than it, and one part if ranges nearly touch. Else each range is a part, in the order
/// of the request.
fn model_of_several(specs: &[RangeSpec], length: usize) -> Selected {
    let backward =
        |spec: &RangeSpec| matches!(spec, RangeSpec::FromTo(first, last) if first > last);
    if specs.iter().any(backward) {
        return Selected::Nothing;
    }
    let mut asked = Vec::new();
    for spec in specs {
        match one(spec, length) {
            Selected::Part(range) => asked.push(range),
            Selected::Whole => return Selected::Whole,
            Selected::Parts(_) | Selected::Nothing => {}
        }
    }
    let within = specs
        .iter()
        .filter(|spec| matches!(one(spec, length), Selected::Part(_)));
    let is_one_spec = specs.len() == 1 || within.count() == 1;
    // Bytes that are to be sent, and those between that are cheaper to send than to leave out.
    let mut wanted = vec![false; length];
    for range in &asked {
        wanted[range.clone()].fill(true);
    }
    let mut runs: Vec<Range<usize>> = Vec::new();
    for byte in (0..length).filter(|byte| wanted[*byte]) {
        match runs.last_mut() {
            Some(run) if byte <= run.end + 80 => run.end = byte + 1,
            _ => runs.push(byte..byte + 1),
        }
    }
    match (
        runs.len(),
        asked.iter().map(Range::len).sum::<usize>() > length,
    ) {
        (0, _) => Selected::Nothing,
        (_, true) if !is_one_spec => Selected::Whole,
        (1, _) => Selected::Part(runs.remove(0)),
        (count, _) if count == asked.len() => Selected::Parts(asked),
        _ => Selected::Parts(runs),
    }
}

fn one(spec: &RangeSpec, length: usize) -> Selected {
    match *spec {
        RangeSpec::FromTo(first, last) if first > last => Selected::Nothing,
        // No `Content-Range` says of what is empty where it lies.
        _ if length == 0 => Selected::Whole,
        RangeSpec::FromTo(first, last) if first < length => {
            Selected::Part(first..length.min(last + 1))
        }
        RangeSpec::From(first) if first < length => Selected::Part(first..length),
        RangeSpec::Last(0) | RangeSpec::FromTo(..) | RangeSpec::From(_) => Selected::Nothing,
        RangeSpec::Last(count) => Selected::Part(length.saturating_sub(count)..length),
    }
}

/// One range as it is written (RFC 9110 section 14.1.1).
#[derive(Debug, Clone)]
enum RangeSpec {
    FromTo(usize, usize),
    From(usize),
    Last(usize),
}

impl RangeSpec {
    fn text(&self) -> String {
        match self {
            RangeSpec::FromTo(first, last) => format!("{first}-{last}"),
            RangeSpec::From(first) => format!("{first}-"),
            RangeSpec::Last(count) => format!("-{count}"),
        }
    }
}

fn range_spec() -> impl Strategy<Value = RangeSpec> {
    let position = || prop_oneof![0..10_usize, 0..2500_usize];
    prop_oneof![
        (position(), position()).prop_map(|(first, last)| RangeSpec::FromTo(first, last)),
        position().prop_map(RangeSpec::From),
        position().prop_map(RangeSpec::Last),
    ]
}

/// A field line that HTTP allows. Names are those that the guest reads, and others. Values are of any bytes, and of tokens
/// that its parsers know.
fn field_line() -> impl Strategy<Value = (String, Vec<u8>)> {
    let known = [
        "range",
        "if-range",
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
        "accept",
        "accept-encoding",
        "authorization",
        "cookie",
        "origin",
        "access-control-request-method",
        "access-control-request-headers",
        "want-content-digest",
        "want-repr-digest",
        "te",
        "expect",
        "forwarded",
    ];
    let pieces = [
        "bytes=",
        "0-9",
        "-",
        ",",
        " ",
        "\t",
        "\"",
        "W/",
        "*",
        "\"a\"",
        "999999999999999999999999",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "null",
        "sha-256=1",
        ";q=0.5",
        ":",
        "=",
    ];
    let name = prop_oneof![
        4 => prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => "x-[a-z]{1,8}",
    ];
    let any = prop::collection::vec(
        any::<u8>().prop_filter("no field value has it", |byte| {
            *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f)
        }),
        0..100,
    );
    let known_pieces = prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..12)
        .prop_map(|pieces| pieces.concat().into_bytes());
    (name, prop_oneof![1 => any, 2 => known_pieces])
}

/// A store that has one object, whatever is asked for.
struct One<'a>(&'a [u8]);

impl Imports for One<'_> {
    type Object = Item;

    fn open(&self, _key: &Key) -> Result<Item, StoreError> {
        Ok(Item::new(self.0.into(), "text/plain", None))
    }

    fn list(&self, _folder: &str, _query: &ListQuery) -> Result<Listing, StoreError> {
        Err(StoreError::NotFound)
    }

    fn settings(&self) -> Result<Settings, SettingsError> {
        Ok(Settings::default())
    }

    fn signing_keys(&self) -> Result<Vec<signature::SigningKey>, SettingsError> {
        Ok(Vec::new())
    }
}
