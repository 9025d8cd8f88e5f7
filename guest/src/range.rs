//! Range requests: the bytes that a request selects (RFC 9110 section 14).

use crate::message::Request;
use http::header;
use http_range_header::{SyntacticallyCorrectRange, parse_range_header};

/// Selection of a `Range` field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// The whole representation. There is no `Range`, its unit is not `bytes`, or it has too many ranges (RFC 9110 section
    /// 14.2).
    Whole,
    /// One range.
    One(Range),
    /// Several ranges, none of which touches another, in the order of the request.
    Several(Vec<Range>),
    /// No bytes: the set is malformed, or beyond the end. The response is 416.
    Unsatisfiable,
}

/// A non-empty range within a representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range {
    /// Offset of the first byte.
    pub(crate) offset: u64,
    /// Number of bytes.
    pub(crate) length: u64,
}

/// Maximum number of ranges in one response. Players request one, download tools a few.
const MAX_RANGES: usize = 16;

/// Maximum distance of ranges that are merged into one. The head of a part is longer.
const GAP_BYTES: u64 = 80;

/// Selects from a representation of `length` bytes, for `GET` only: RFC 9110 section 14.2 defines `Range` for no other
/// method.
#[must_use]
pub(crate) fn select(request: &Request<'_>, length: u64) -> Selection {
    let mut values = request.values(&header::RANGE);
    let Some(value) = values.next() else {
        return Selection::Whole;
    };
    if !has_bytes_unit(value) {
        return Selection::Whole;
    }
    // The field is no list, so a second line is malformed, as is a value that is not text.
    let (Ok(set), None) = (str::from_utf8(value), values.next()) else {
        return Selection::Unsatisfiable;
    };
    // The parser rejects more than a hundred ranges.
    let Ok(parsed) = parse_range_header(set) else {
        return Selection::Unsatisfiable;
    };
    // A range of an empty representation would be unsatisfiable. Players and caches that fetch slices would take the 416 for
    // an error. A server may ignore the field (section 14.2).
    if length == 0 {
        return Selection::Whole;
    }
    let ranges: Vec<Range> = parsed
        .into_ranges()
        .into_iter()
        .filter_map(|range| resolve(&range, length))
        .collect();
    let is_several = ranges.len() > 1;
    let sum = ranges
        .iter()
        .fold(0_u64, |sum, range| sum.saturating_add(range.length));
    let ranges = coalesce(ranges);
    match ranges[..] {
        [] => Selection::Unsatisfiable,
        // Ranges that overlap to more than the whole are served as the whole.
        _ if is_several && sum > length => Selection::Whole,
        [range] => Selection::One(range),
        _ if ranges.len() > MAX_RANGES => Selection::Whole,
        _ => Selection::Several(ranges),
    }
}

/// Returns the part of a range within a representation of `length` bytes, if any (section 14.1.2).
fn resolve(range: &SyntacticallyCorrectRange, length: u64) -> Option<Range> {
    let last = length.checked_sub(1)?;
    let (first, last) = match *range {
        SyntacticallyCorrectRange::FromStart(first) => (first, last),
        SyntacticallyCorrectRange::FromLast(0) => return None,
        SyntacticallyCorrectRange::FromLast(suffix) => (length.saturating_sub(suffix), last),
        SyntacticallyCorrectRange::Indexed(first, end) => (first, end.min(last)),
    };
    (first <= last).then(|| Range {
        offset: first,
        length: last - first + 1,
    })
}

/// Merges ranges that overlap or nearly touch (section 15.3.7.2). If there are none, the order stays that of the request.
fn coalesce(ranges: Vec<Range>) -> Vec<Range> {
    let mut sorted = ranges.clone();
    sorted.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(sorted.len());
    for range in sorted {
        if let Some(last) = merged.last_mut()
            && range.offset
                <= last
                    .offset
                    .saturating_add(last.length)
                    .saturating_add(GAP_BYTES)
        {
            let end = (last.offset + last.length).max(range.offset + range.length);
            last.length = end - last.offset;
            continue;
        }
        merged.push(range);
    }
    if merged.len() == ranges.len() {
        ranges
    } else {
        merged
    }
}

/// Returns whether the range unit is `bytes`, in any case (RFC 9110 section 14.1).
fn has_bytes_unit(value: &[u8]) -> bool {
    value
        .split_at_checked(6)
        .is_some_and(|(unit, _)| unit.eq_ignore_ascii_case(b"bytes="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn select_values(values: &[&[u8]], length: u64) -> Selection {
        let fields: Vec<_> = values
            .iter()
            .map(|value| ("range".to_owned(), value.to_vec()))
            .collect();
        let request = Request::from_head("GET", "/", &fields);
        select(&request, length)
    }

    fn range(offset: u64, length: u64) -> Selection {
        Selection::One(Range { offset, length })
    }

    fn several(ranges: &[(u64, u64)]) -> Selection {
        let ranges = ranges.iter();
        Selection::Several(
            ranges
                .map(|&(offset, length)| Range { offset, length })
                .collect(),
        )
    }

    #[test]
    fn ranges_of_a_thousand_bytes() {
        use Selection::{Unsatisfiable, Whole};
        let ten_thousand = format!("bytes={}", vec!["0-1"; 10_000].join(","));
        for (value, expected) in [
            ("bytes=0-99", range(0, 100)),
            ("bytes=500-", range(500, 500)),
            ("bytes=999-", range(999, 1)),
            ("bytes=-100", range(900, 100)),
            ("bytes=-2000", range(0, 1000)),
            ("bytes=0-1999", range(0, 1000)),
            ("bytes=0-99999999999999999999999", range(0, 1000)),
            ("bytes=0-0", range(0, 1)),
            ("BYTES=0-5", range(0, 6)),
            ("bytes= 0-5", range(0, 6)),
            ("bytes=0-5,", range(0, 6)),
            ("bytes=1000-", Unsatisfiable),
            ("bytes=99999999999999999999-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=50-10", Unsatisfiable),
            ("bytes=abc", Unsatisfiable),
            ("bytes=-", Unsatisfiable),
            ("bytes=", Unsatisfiable),
            ("bytes=,", Unsatisfiable),
            ("bytes=0-5x", Unsatisfiable),
            ("bytes=1e2-200", Unsatisfiable),
            ("bytes=+0-5", Unsatisfiable),
            ("bytes=0x0-5", Unsatisfiable),
            ("bytes=--5", Unsatisfiable),
            ("bytes=0 - 5", Unsatisfiable),
            ("bytes=\u{661}-5", Unsatisfiable),
            (ten_thousand.as_str(), Unsatisfiable),
            ("bytes=0-1,500-501", several(&[(0, 2), (500, 2)])),
            ("bytes=500-501, 0-1", several(&[(500, 2), (0, 2)])),
            ("bytes=0-1,5-6", range(0, 7)),
            ("bytes=0-9,5-20", range(0, 21)),
            ("bytes=500-501,0-1,1-2", several(&[(0, 3), (500, 2)])),
            ("bytes=0-1,5000-,-1", several(&[(0, 2), (999, 1)])),
            ("bytes=0-1,5000-", range(0, 2)),
            ("bytes=5000-,6000-", Unsatisfiable),
            ("bytes=0-,0-", Whole),
            ("bytes=0-599,400-999", Whole),
            ("bytes=0-1,50-51", range(0, 52)),
            ("items=0-5", Whole),
            ("bytes", Whole),
            ("", Whole),
        ] {
            assert_eq!(
                select_values(&[value.as_bytes()], 1000),
                expected,
                "{value}"
            );
        }
    }

    #[test]
    fn more_ranges_than_are_answered_apart_are_the_whole() {
        for (count, is_several) in [(16, true), (17, false), (90, false)] {
            let ranges: Vec<_> = (0..count).map(|n| format!("{0}-{0}", n * 1000)).collect();
            let value = format!("bytes={}", ranges.join(","));
            let selection = select_values(&[value.as_bytes()], 1_000_000);
            assert_eq!(
                matches!(selection, Selection::Several(_)),
                is_several,
                "{count}"
            );
        }
    }

    #[test]
    fn ranges_of_an_empty_representation() {
        for (value, expected) in [
            ("bytes=0-", Selection::Whole),
            ("bytes=0-0", Selection::Whole),
            ("bytes=-0", Selection::Whole),
            ("bytes=-5", Selection::Whole),
            ("bytes=5-", Selection::Whole),
            ("bytes=0-1,5-", Selection::Whole),
            ("bytes=1-0", Selection::Unsatisfiable),
            ("bytes=x", Selection::Unsatisfiable),
        ] {
            assert_eq!(select_values(&[value.as_bytes()], 0), expected, "{value}");
        }
    }

    #[test]
    fn lines_that_are_no_single_text() {
        assert_eq!(select_values(&[], 9), Selection::Whole);
        let twice: [&[u8]; 2] = [b"bytes=0-1", b"bytes=2-3"];
        assert_eq!(select_values(&twice, 9), Selection::Unsatisfiable);
        assert_eq!(
            select_values(&[b"bytes=\xff-3"], 9),
            Selection::Unsatisfiable
        );
        assert_eq!(select_values(&[b"\xff"], 9), Selection::Whole);
    }

    proptest! {
        #[test]
        fn what_is_selected_lies_within(first: u64, last: u64, other: u64, length: u64) {
            for value in [
                format!("bytes={first}-{last}"),
                format!("bytes={first}-"),
                format!("bytes=-{last}"),
                format!("bytes={first}-{last},{other}-,-{other}"),
            ] {
                let ranges = match select_values(&[value.as_bytes()], length) {
                    Selection::One(range) => vec![range],
                    Selection::Several(ranges) => ranges,
                    Selection::Whole | Selection::Unsatisfiable => Vec::new(),
                };
                for range in ranges {
                    prop_assert!(range.length > 0);
                    let end = range.offset.checked_add(range.length);
                    prop_assert!(end.is_some_and(|end| end <= length));
                }
            }
        }

        /// Merging ranges loses no byte.
        #[test]
        fn every_byte_that_is_asked_for_is_selected(
            asked in proptest::collection::vec((0..300_u64, 0..40_u64), 1..8),
            length in 1..300_u64,
        ) {
            let set: Vec<_> = asked.iter().map(|(first, more)| format!("{first}-{}", first + more)).collect();
            let value = format!("bytes={}", set.join(","));
            let selection = select_values(&[value.as_bytes()], length);
            let selects = |byte: u64| match &selection {
                Selection::Whole => true,
                Selection::Unsatisfiable => false,
                Selection::One(range) => (range.offset..range.offset + range.length).contains(&byte),
                Selection::Several(ranges) => ranges
                    .iter()
                    .any(|range| (range.offset..range.offset + range.length).contains(&byte)),
            };
            for (first, more) in asked {
                for byte in first..=first + more {
                    prop_assert!(byte >= length || selects(byte), "{} of {}", byte, value);
                }
            }
        }

        #[test]
        fn no_value_panics(value: Vec<u8>, length: u64) {
            select_values(&[&value], length);
            select_values(&[&[b"bytes=".as_slice(), &value].concat()], length);
        }
    }
}
