//! Detection of SVG and HTML by the root element. Comments, blank lines and declarations may come first, so a table of
//! magic numbers does not suffice.

/// Maximum bytes of a file that are searched for the root element.
pub(super) const LOOKED_AT_BYTES: u64 = 64 * 1024;

/// Returns the media type of an SVG or HTML document, by its first bytes. `None` for other files.
///
/// Only space, comments, processing instructions and a document type declaration precede a root element (XML 1.0
/// section 2.8). In HTML the declaration suffices, because the root's tags may be omitted.
pub(super) fn media_type(beginning: &[u8]) -> Option<&'static str> {
    let mut rest = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning);
    let is_xml = rest.trim_ascii_start().starts_with(b"<?xml");
    loop {
        rest = rest.trim_ascii_start();
        rest = if let Some(behind) = misc(rest) {
            behind?
        } else if let Some(declaration) = after(rest, b"<!DOCTYPE") {
            if !is_xml && after(declaration.trim_ascii_start(), b"html").is_some() {
                return Some("text/html");
            }
            behind_doctype(declaration)?
        } else {
            return of_root(rest.strip_prefix(b"<")?, is_xml);
        };
    }
}

/// Returns the type of a document whose root element has this tag.
fn of_root(tag: &[u8], is_xml: bool) -> Option<&'static str> {
    let ends_name = |byte: &u8| byte.is_ascii_whitespace() || b"/>".contains(byte);
    // A name that is cut off is unknown.
    let name = &tag[..tag.iter().position(ends_name)?];
    // The prefix of a namespace is arbitrary (Namespaces in XML, section 6.1).
    let local_name = name.rsplit(|byte| *byte == b':').next().unwrap_or(name);
    if local_name == b"svg" {
        return Some("image/svg+xml");
    }
    (!is_xml && name.eq_ignore_ascii_case(b"html")).then_some("text/html")
}

/// Returns the bytes after a word, in any case.
fn after<'a>(bytes: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = bytes.split_at_checked(word.len())?;
    start.eq_ignore_ascii_case(word).then_some(rest)
}

/// Returns the bytes after a comment or processing instruction: `Some(None)` if it does not end, `None` if there is
/// neither.
fn misc(rest: &[u8]) -> Option<Option<&[u8]>> {
    let comment = rest
        .strip_prefix(b"<!--")
        .map(|inside| behind(inside, b"-->"));
    comment.or_else(|| rest.strip_prefix(b"<?").map(|inside| behind(inside, b"?>")))
}

/// Returns the bytes after a document type declaration, which may contain others in brackets.
fn behind_doctype(declaration: &[u8]) -> Option<&[u8]> {
    let mut rest = declaration;
    let mut is_inside = false;
    loop {
        rest = match misc(rest) {
            Some(behind) => behind?,
            None => {
                let (first, behind_it) = rest.split_first()?;
                match first {
                    quote @ (b'"' | b'\'') => behind(behind_it, &[*quote])?,
                    b'>' if !is_inside => return Some(behind_it),
                    b'[' | b']' => {
                        is_inside = *first == b'[';
                        behind_it
                    }
                    _ => behind_it,
                }
            }
        };
    }
}

fn behind<'a>(bytes: &'a [u8], end: &[u8]) -> Option<&'a [u8]> {
    let at = memchr::memmem::find(bytes, end)?;
    Some(&bytes[at + end.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SVG: Option<&str> = Some("image/svg+xml");
    const HTML: Option<&str> = Some("text/html");

    #[test]
    fn documents_that_begin_with_something_else_were_stored_as_text() {
        let doctype = "<!DOCTYPE svg PUBLIC \"-//W3C//DTD SVG 1.1//EN\" 'http://x/a>b.dtd' [\n\
                       <!-- it's ]> --> <?a ]>?> <!ENTITY e \"]>\"> %e; ]>";
        for (document, expected) in [
            ("<svg/>", SVG),
            ("<svg>", SVG),
            ("\n\n <svg xmlns='x'>", SVG),
            ("\u{feff}<svg >", SVG),
            ("<!-- <html> --><svg\n>", SVG),
            ("<?xml version='1.0'?><!-- a -- ><svg --><svg>", SVG),
            ("<?xml version='1.0'?><map:svg xmlns:map='x'>", SVG),
            (&format!("{doctype}<svg>"), SVG),
            (&format!("<?xml version='1.0'?>\n{doctype}\n<svg>"), SVG),
            ("<!DOCTYPE html><svg>", HTML),
            ("<!-- a --><!doctype HTML>\n<title>", HTML),
            ("\n<html lang='en'>", HTML),
            ("<?xml version='1.0'?><html xmlns='x'>", None),
            ("<!-- <svg>", None),
            ("<!DOCTYPE svg [ <svg>", None),
            ("<svg", None),
            ("<svgs>", None),
            ("<x:svgz>", None),
            ("<p><svg>", None),
            ("text <svg>", None),
            ("<<svg>", None),
            ("GIF89a", None),
            ("", None),
        ] {
            assert_eq!(media_type(document.as_bytes()), expected, "{document}");
        }
    }

    proptest! {
        #[test]
        fn no_beginning_panics(chunks in prop::collection::vec(
            prop::sample::select(vec!["<", "!", "<!--", "-->", "<?", "?>", "<!DOCTYPE", "[", "]", ">", "'", "\"", "svg", " ", "é"]),
            0..20,
        )) {
            media_type(chunks.concat().as_bytes());
        }
    }
}
