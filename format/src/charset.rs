//! Detection of UTF-8 text by its beginning.

/// Maximum number of bytes that are inspected. Text in another encoding differs from UTF-8 at its first character beyond
/// ASCII.
pub const INSPECTED_BYTES: u64 = 64 * 1024;

/// Number of bytes that are read at a time.
const CHUNK_BYTES: usize = 4096;

/// Returns the media type of a file of `length` bytes, with `charset=utf-8` if it is UTF-8 text (RFC 2046 section 4.1.2,
/// RFC 3629).
///
/// `read` fills a buffer from an offset on and returns the number of bytes. It is called for types of text only, and never
/// for an offset beyond [`INSPECTED_BYTES`].
///
/// Text that may have another encoding keeps its type, since a wrong charset is worse than none. That is text whose
/// inspected bytes are all ASCII while more follow, and ASCII with U+0000 or ESC, as in UTF-16 and ISO-2022-JP.
///
/// # Errors
/// The first error of `read`.
pub fn with_charset<E>(
    media_type: &str,
    length: u64,
    read: impl FnMut(u64, &mut [u8]) -> Result<usize, E>,
) -> Result<String, E> {
    let is_text = media_type.starts_with("text/") && !media_type.contains(';');
    Ok(if is_text && is_utf8(length, read)? {
        format!("{media_type}; charset=utf-8")
    } else {
        media_type.to_owned()
    })
}

fn is_utf8<E>(
    length: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<usize, E>,
) -> Result<bool, E> {
    let end = length.min(INSPECTED_BYTES);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    let mut is_ascii = true;
    while offset < end {
        let left = usize::try_from(end - offset).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let count = read(offset, &mut buffer[..left])?.min(left);
        let chunk = &buffer[..count];
        let valid = match str::from_utf8(chunk) {
            Ok(_) => chunk,
            // The last character is incomplete. The next chunk begins with it.
            Err(cut) if cut.error_len().is_none() && offset + (count as u64) < length => {
                &chunk[..cut.valid_up_to()]
            }
            Err(_) => return Ok(false),
        };
        if valid.iter().any(|byte| matches!(byte, 0 | 0x1b)) {
            return Ok(false);
        }
        is_ascii &= valid.is_ascii();
        if offset + count as u64 >= end {
            break;
        }
        if valid.is_empty() {
            // The file has become shorter.
            return Ok(false);
        }
        offset += valid.len() as u64;
    }
    Ok(length <= INSPECTED_BYTES || !is_ascii)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    /// The type of a text, and the number of bytes that were read.
    fn type_of(media_type: &str, text: &[u8]) -> (String, usize) {
        let mut looked_at = 0;
        let read = |offset: u64, buffer: &mut [u8]| -> Result<usize, Infallible> {
            let rest = &text[usize::try_from(offset).unwrap()..];
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            looked_at += count;
            Ok(count)
        };
        let media_type = with_charset(media_type, text.len() as u64, read).unwrap();
        (media_type, looked_at)
    }

    #[test]
    fn text_in_utf8_did_not_say_so_and_other_text_still_does_not() {
        let long = |character: &str| "a".repeat(100_000) + character;
        let cut = "a".repeat(CHUNK_BYTES - 1) + "é";
        for (text, is_utf8) in [
            (&b""[..], true),
            (b"plain", true),
            ("naïve".as_bytes(), true),
            ("\u{feff}naïve".as_bytes(), true),
            (cut.as_bytes(), true),
            (&cut.as_bytes()[..cut.len() - 1], false),
            // Latin-1, UTF-16 with and without its mark, Shift JIS, ISO-2022-JP.
            (b"na\xefve", false),
            (b"\xff\xfea\0", false),
            (b"a\0b\0", false),
            (b"\x83\x65\x83\x58", false),
            (b"\x1b$B%F\x1b(B", false),
            (long("").as_bytes(), false),
            (long("é").as_bytes(), false),
            (("é".to_owned() + &long("")).as_bytes(), true),
            (&[long("").as_bytes(), b"\xef"].concat(), false),
            (&["é".as_bytes(), &[b'a'; 5000], b"\xef"].concat(), false),
        ] {
            let (media_type, looked_at) = type_of("text/plain", text);
            let expected = match is_utf8 {
                true => "text/plain; charset=utf-8",
                false => "text/plain",
            };
            assert_eq!(media_type, expected, "{:.20}", text.escape_ascii());
            assert!(looked_at as u64 <= INSPECTED_BYTES + 64);
        }
    }

    #[test]
    fn what_is_no_text_is_not_looked_at() {
        for media_type in [
            "application/json",
            "image/svg+xml",
            "video/mp4",
            "text/plain; charset=x",
        ] {
            assert_eq!(type_of(media_type, b"plain"), (media_type.to_owned(), 0));
        }
    }

    proptest! {
        #[test]
        fn text_in_utf8_is_told_wherever_it_is_cut(ascii in 0..70_000_usize, rest in "\\PC{0,20}") {
            let text = "a".repeat(ascii) + &rest;
            let (media_type, _) = type_of("text/plain", text.as_bytes());
            if text.len() as u64 <= INSPECTED_BYTES {
                prop_assert_eq!(media_type, "text/plain; charset=utf-8");
            }
        }

        #[test]
        fn no_bytes_are_taken_for_utf8_that_are_none(bytes: Vec<u8>) {
            let (media_type, _) = type_of("text/plain", &bytes);
            let is_utf8 = std::str::from_utf8(&bytes).is_ok() && !bytes.contains(&0) && !bytes.contains(&0x1b);
            prop_assert_eq!(media_type.ends_with("utf-8"), is_utf8);
        }
    }
}
