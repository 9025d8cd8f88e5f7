//! Preferences of a client: members of fields such as `Accept` with their weights (RFC 9110 section 12.4.2).

/// Returns whether the lines of `Accept` prefer HTML to JSON. They must name HTML, as browsers do; `*/*` gets JSON.
#[must_use]
pub fn prefers_html<'a>(accept: impl Iterator<Item = &'a [u8]>) -> bool {
    let accept = Preferences::of(accept);
    let json = accept.named("application/json").unwrap_or(0);
    accept.named("text/html").is_some_and(|html| html > json)
}

/// Maximum weight. Weights are in thousandths (RFC 9110 section 12.4.2).
pub const MOST: u16 = 1000;

/// Maximum number of members that are parsed. No browser sends more.
const MOST_MEMBERS: usize = 64;

/// Members of a field such as `Accept`, with their weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preferences<'a> {
    members: Vec<(&'a str, u16)>,
}

impl<'a> Preferences<'a> {
    /// Parses the lines of a field. Lines that are not UTF-8 are ignored, and a malformed weight counts as absent.
    #[must_use]
    pub fn of(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let members = lines
            .filter_map(|line| str::from_utf8(line).ok())
            .flat_map(|line| line.split(','))
            .filter_map(|member| {
                let mut parts = member.split(';').map(str::trim);
                let name = parts.next().filter(|name| !name.is_empty())?;
                let weight = parts.find_map(|part| {
                    let (key, value) = part.split_once('=')?;
                    key.trim()
                        .eq_ignore_ascii_case("q")
                        .then(|| weight(value.trim()))
                });
                Some((name, weight.unwrap_or(MOST)))
            })
            .take(MOST_MEMBERS)
            .collect();
        Preferences { members }
    }

    /// Returns whether the field has no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Returns the weight of a coding, or of a type without its parameters.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<u16> {
        let name = name.split(';').next().unwrap_or(name).trim();
        let mut members = self.members.iter();
        members.find_map(|(member, weight)| member.eq_ignore_ascii_case(name).then_some(*weight))
    }

    /// Returns the weight of `image/*` for `image/png`, or else that of `*/*`.
    #[must_use]
    pub fn any_of_kind(&self, media_type: &str) -> Option<u16> {
        let (kind, _) = media_type.split_once('/')?;
        self.named(&format!("{kind}/*"))
            .or_else(|| self.named("*/*"))
    }
}

/// Parses a weight: `0` or `1` with at most three decimals. A malformed weight counts as absent.
fn weight(text: &str) -> u16 {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_plain = decimals.len() <= 3 && decimals.bytes().all(|digit| digit.is_ascii_digit());
    match whole {
        "0" if is_plain => {
            let digits = decimals.bytes().chain([b'0'; 3]).take(3);
            digits.fold(0, |weight, digit| 10 * weight + u16::from(digit - b'0'))
        }
        _ => MOST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_prefer_html_and_programs_do_not() {
        for (accept, expected) in [
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                true,
            ),
            ("TEXT/HTML", true),
            ("text/html;q=0.5, application/json;q=0.4", true),
            ("text/html, application/json", false),
            ("text/html;q=0", false),
            ("*/*", false),
            ("application/json", false),
            ("", false),
        ] {
            let lines = [accept.as_bytes()];
            assert_eq!(prefers_html(lines.into_iter()), expected, "{accept}");
        }
    }

    #[test]
    fn weights() {
        for (text, expected) in [
            ("0", 0),
            ("0.", 0),
            ("0.5", 500),
            ("0.05", 50),
            ("0.123", 123),
            ("1", 1000),
            ("1.000", 1000),
            ("0.1234", 1000),
            ("-1", 1000),
            ("", 1000),
            ("0.x", 1000),
        ] {
            assert_eq!(weight(text), expected, "{text}");
        }
    }
}
