//! Which bytes of the selected representation a request asks for (RFC 9110 section 14).

use crate::message::Request;
use http::header;
use http_range_header::parse_range_header;

/// What a `Range` field selects of a representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// All of it: there is no `Range`, or one that a server may ignore (RFC 9110 section 14.2): a unit
    /// that is not `bytes`, or several ranges at once.
    Whole,
    /// One range, which lies within the representation and is not empty.
    Range {
        /// Where it begins, counted from 0.
        offset: u64,
        /// How many bytes it has.
        length: u64,
    },
    /// Nothing: the set is malformed or lies outside, to be answered with 416.
    Unsatisfiable,
}

/// Selects from a representation of `length` bytes. To be called for `GET` only: RFC 9110 section 14.2
/// defines `Range` for no other method.
#[must_use]
pub fn select(request: &Request<'_>, length: u64) -> Selection {
    let mut values = request.values(&header::RANGE);
    let Some(value) = values.next() else {
        return Selection::Whole;
    };
    if !has_bytes_unit(value) {
        return Selection::Whole;
    }
    // A second line would make a list of a field that is none; and a value that is no text is no set.
    let (Ok(set), None) = (str::from_utf8(value), values.next()) else {
        return Selection::Unsatisfiable;
    };
    let Ok(ranges) = parse_range_header(set) else {
        return Selection::Unsatisfiable;
    };
    if ranges.len() > 1 {
        return Selection::Whole;
    }
    match ranges.validate(length).as_deref() {
        Ok([range]) => Selection::Range {
            offset: *range.start(),
            length: range.end() - range.start() + 1,
        },
        // An empty representation holds its own last n bytes: they are none (section 14.1.2).
        Ok(_) => Selection::Whole,
        Err(_) => Selection::Unsatisfiable,
    }
}

/// Whether the range unit is `bytes`, in any case (RFC 9110 section 14.1).
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
        let request = Request {
            method: "GET",
            target: "/",
            fields: &fields,
        };
        select(&request, length)
    }

    fn range(offset: u64, length: u64) -> Selection {
        Selection::Range { offset, length }
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
            ("bytes=0-1,5-6", Whole),
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
    fn ranges_of_an_empty_representation() {
        for (value, expected) in [
            ("bytes=0-", Selection::Unsatisfiable),
            ("bytes=0-0", Selection::Unsatisfiable),
            ("bytes=-0", Selection::Unsatisfiable),
            ("bytes=-5", Selection::Whole),
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
        fn what_is_selected_lies_within(first: u64, last: u64, length: u64) {
            for value in [
                format!("bytes={first}-{last}"),
                format!("bytes={first}-"),
                format!("bytes=-{last}"),
            ] {
                if let Selection::Range { offset, length: selected } =
                    select_values(&[value.as_bytes()], length)
                {
                    prop_assert!(selected > 0);
                    prop_assert!(offset.checked_add(selected).is_some_and(|end| end <= length));
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
