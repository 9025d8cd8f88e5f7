//! Text of a request that its log line needs at the end, in one bounded buffer.

/// Maximum length of a logged target, in bytes. The rest is cut off.
const LOGGED_TARGET_BYTES: usize = 1024;

/// Maximum length of a logged `Host`, `Referer`, `User-Agent` or request id, in bytes. The rest is cut off.
const LOGGED_FIELD_BYTES: usize = 256;

/// Maximum length of a kept `traceparent`, in bytes. The rest is cut off. Version 00 has 55 (W3C Trace Context section
/// 3.2), and the parts that a later version adds have no meaning here.
const TRACE_PARENT_BYTES: usize = 64;

/// Maximum length of a kept `tracestate`, in bytes. A longer one is dropped. All vendors propagate as many (W3C Trace
/// Context section 3.3.1.5).
pub(super) const TRACE_STATE_BYTES: usize = 512;

/// Parts of the text, in their order.
#[derive(Debug, Clone, Copy)]
pub(super) enum TextPart {
    Target,
    Host,
    Referrer,
    UserAgent,
    RequestId,
    TraceParent,
    TraceState,
}

const PARTS: usize = TextPart::TraceState as usize + 1;

/// Maximum length of each part, in bytes.
const MAX_BYTES: [usize; PARTS] = [
    LOGGED_TARGET_BYTES,
    LOGGED_FIELD_BYTES,
    LOGGED_FIELD_BYTES,
    LOGGED_FIELD_BYTES,
    LOGGED_FIELD_BYTES,
    TRACE_PARENT_BYTES,
    TRACE_STATE_BYTES,
];

/// Copies of a request's texts. Each part is bounded, and all of them are one allocation.
#[derive(Debug, Default)]
pub(super) struct LoggedText {
    bytes: Vec<u8>,
    /// End of each part. `None` if the request has no such part.
    ends: [Option<u16>; PARTS],
}

impl LoggedText {
    /// Copies the parts, which are in the order of [`TextPart`].
    pub(super) fn of(parts: [Option<&[u8]>; PARTS]) -> Self {
        let bounded = |(index, part): (usize, &Option<&'_ [u8]>)| {
            part.map_or(0, |part| bounded_length(part, MAX_BYTES[index]))
        };
        let mut lengths = parts.iter().enumerate().map(bounded);
        let lengths: [usize; PARTS] = std::array::from_fn(|_| lengths.next().unwrap_or(0));
        let mut text = LoggedText {
            bytes: Vec::with_capacity(lengths.iter().sum()),
            ends: [None; PARTS],
        };
        for (index, part) in parts.iter().enumerate() {
            if let Some(part) = part {
                text.bytes.extend_from_slice(&part[..lengths[index]]);
                // The sum of the maximum lengths fits.
                text.ends[index] = u16::try_from(text.bytes.len()).ok();
            }
        }
        text
    }

    /// Memory of the text, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Returns a part, if the request has it.
    pub(super) fn part(&self, part: TextPart) -> Option<&[u8]> {
        let end = self.ends[part as usize]?;
        let before = self.ends[..part as usize].iter().rev().flatten().next();
        let start = before.copied().unwrap_or(0);
        self.bytes.get(usize::from(start)..usize::from(end))
    }
}

/// Returns the length of a part, `max_bytes` at most. A character of UTF-8 is not cut in two.
fn bounded_length(part: &[u8], max_bytes: usize) -> usize {
    const LONGEST_CHARACTER: usize = 4;
    if part.len() <= max_bytes {
        return part.len();
    }
    let is_start = |index: &usize| part[*index] & 0b1100_0000 != 0b1000_0000;
    let mut ends = (max_bytes + 1 - LONGEST_CHARACTER..=max_bytes).rev();
    ends.find(is_start).unwrap_or(max_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_apart_whether_they_are_empty_or_absent() {
        let text = LoggedText::of([
            Some(b"/a"),
            None,
            Some(b""),
            Some(b"curl"),
            None,
            None,
            None,
        ]);
        for (part, expected) in [
            (TextPart::Target, Some(&b"/a"[..])),
            (TextPart::Host, None),
            (TextPart::Referrer, Some(b"")),
            (TextPart::UserAgent, Some(b"curl")),
            (TextPart::RequestId, None),
        ] {
            assert_eq!(text.part(part), expected, "{part:?}");
        }
        assert_eq!(text.held_bytes(), 6);
        assert_eq!(LoggedText::of([None; PARTS]).held_bytes(), 0);
    }

    #[test]
    fn parts_are_bounded_and_cut_between_characters() {
        let long = vec![b'x'; 70_000];
        let text = LoggedText::of([Some(&long); PARTS]);
        assert_eq!(
            text.held_bytes(),
            LOGGED_TARGET_BYTES + 4 * LOGGED_FIELD_BYTES + TRACE_PARENT_BYTES + TRACE_STATE_BYTES
        );
        let last = text.part(TextPart::RequestId);
        assert_eq!(last.map(<[u8]>::len), Some(LOGGED_FIELD_BYTES));
        for (repeated, length) in [("\u{e4}", 256), ("\u{20ac}", 255), ("\u{1f980}", 256)] {
            let host = repeated.repeat(LOGGED_FIELD_BYTES);
            let mut parts = [None; PARTS];
            parts[TextPart::Host as usize] = Some(host.as_bytes());
            let text = LoggedText::of(parts);
            assert_eq!(text.part(TextPart::Host), host.as_bytes().get(..length));
        }
        // Bytes that are no text are cut anywhere.
        assert_eq!(bounded_length(&[0x80; 9], 8), 8);
    }
}
