//! Text in HTML.

use std::fmt::{self, Display};

/// Text with the characters escaped that mean something in HTML.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            f.write_str(&rest[..at])?;
            f.write_str(match rest.as_bytes()[at] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                _ => "&#39;",
            })?;
            rest = &rest[at + 1..];
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_text() {
        let escaped = Escaped("a<b>&\"c'\u{e9}").to_string();
        assert_eq!(escaped, "a&lt;b&gt;&amp;&quot;c&#39;\u{e9}");
        assert_eq!(Escaped("").to_string(), "");
    }
}
