//! Parent of a span, from the fields of a request (W3C Trace Context, <https://www.w3.org/TR/trace-context/>).

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// Length of version 00, in bytes. Later versions begin with the same parts.
const LENGTH: usize = 55;

/// Returns the parent that a client sent. `None` if `traceparent` is malformed; the request then begins a trace. A
/// malformed `tracestate` is dropped.
pub(super) fn parent(trace_parent: &[u8], trace_state: Option<&[u8]>) -> Option<SpanContext> {
    let (first, rest) = trace_parent.split_at_checked(LENGTH)?;
    let (version, first) = first.split_first_chunk::<2>()?;
    let (first, flags) = first.split_last_chunk::<2>()?;
    let ids = first.strip_prefix(b"-")?.strip_suffix(b"-")?;
    let (trace_id, span_id) = (ids.get(..32)?, ids.get(32..)?.strip_prefix(b"-")?);
    match (number(version)?, rest) {
        (0xff, _) => return None,
        (_, []) => {}
        // A later version may have further parts.
        (1.., [b'-', ..]) => {}
        _ => return None,
    }
    let trace_id = TraceId::from(number(trace_id)?);
    let span_id = SpanId::from(u64::try_from(number(span_id)?).ok()?);
    // The other flags have no meaning yet, and are not passed on.
    let flags = TraceFlags::new(u8::try_from(number(flags)?).ok()?) & TraceFlags::SAMPLED;
    let state = trace_state.and_then(|state| std::str::from_utf8(state).ok());
    let state: Option<TraceState> = state.and_then(|state| state.parse().ok());
    let parent = SpanContext::new(trace_id, span_id, flags, true, state.unwrap_or_default());
    parent.is_valid().then_some(parent)
}

/// Parses lowercase hexadecimal digits.
fn number(digits: &[u8]) -> Option<u128> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    digits.iter().try_fold(0, |number: u128, byte| {
        Some(number.checked_mul(16)? + u128::from(digit(byte)?))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_parent_has_the_ids_and_the_flag_of_its_field() {
        for (text, is_sampled) in [
            (format!("00-{TRACE}-{SPAN}-01"), true),
            (format!("00-{TRACE}-{SPAN}-00"), false),
            (format!("00-{TRACE}-{SPAN}-ff"), true),
            (format!("01-{TRACE}-{SPAN}-02"), false),
            (format!("fe-{TRACE}-{SPAN}-01-more"), true),
        ] {
            let parent = parent(text.as_bytes(), Some(b"a=1,b=2")).unwrap();
            assert_eq!(parent.trace_id().to_string(), TRACE, "{text}");
            assert_eq!(parent.span_id().to_string(), SPAN, "{text}");
            assert_eq!(parent.is_sampled(), is_sampled, "{text}");
            assert!(parent.is_remote());
            assert_eq!(parent.trace_state().header(), "a=1,b=2");
        }
    }

    #[test]
    fn a_malformed_parent_is_none() {
        let zeros = "0".repeat(32);
        let upper = TRACE.to_uppercase();
        for text in [
            String::new(),
            "00".into(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("01-{TRACE}-{SPAN}-01more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0x-{TRACE}-{SPAN}-01"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-+{}-{SPAN}-01", &TRACE[1..]),
            format!("00_{TRACE}_{SPAN}_01"),
            format!("00-{TRACE}-{SPAN}-0\u{e4}"),
            format!(" 0-{TRACE}-{SPAN}-01"),
        ] {
            assert!(parent(text.as_bytes(), None).is_none(), "{text}");
        }
    }

    #[test]
    fn a_malformed_state_is_dropped_and_the_parent_stays() {
        let text = format!("00-{TRACE}-{SPAN}-01");
        for state in [&b"\xff"[..], b"a", b"a=1,b"] {
            let parent = parent(text.as_bytes(), Some(state)).unwrap();
            assert_eq!(parent.trace_state().header(), "", "{state:?}");
        }
    }
}
