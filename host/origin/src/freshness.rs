//! Freshness of cached objects (RFC 9111 section 4.2), with the extensions of RFC 5861.

use crate::fetch::FreshnessFields;
use std::time::Duration;

/// Freshness of an object, as its origin states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Freshness {
    /// Time for which the object is fresh, from its arrival on.
    pub(crate) lifetime: Duration,
    /// Age at its arrival.
    pub(crate) age: Duration,
    /// Time after its lifetime for which it is served while it is revalidated (RFC 5861 section 3).
    pub(crate) while_revalidate: Duration,
    /// Time after its lifetime for which it is served if the origin fails (RFC 5861 section 4).
    pub(crate) if_error: Duration,
    /// Whether a cache may store it (RFC 9111 section 3).
    pub(crate) is_storable: bool,
}

/// Freshness of objects whose origin states none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FreshnessDefaults {
    /// Freshness lifetime of an object without `Cache-Control`.
    pub max_age: Duration,
    /// Time for which a missing object counts as missing.
    pub negative_ttl: Duration,
    /// Time for which a stale object is served if the origin fails.
    pub stale_if_error: Duration,
}

/// Default freshness lifetime of an object whose origin states none. A change is seen within it.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Default time for which a missing object counts as missing. It spares the origin, and a new object is seen soon.
const NEGATIVE_TTL: Duration = Duration::from_secs(10);

/// Default time for which a stale object is served if the origin fails. An origin is mended within a day.
const STALE_IF_ERROR: Duration = Duration::from_secs(24 * 60 * 60);

/// Maximum of every time that an origin states. RFC 9111 section 1.2.2 lets a cache limit them.
const LONGEST: Duration = Duration::from_secs(1 << 31);

impl Default for FreshnessDefaults {
    fn default() -> Self {
        FreshnessDefaults {
            max_age: MAX_AGE,
            negative_ttl: NEGATIVE_TTL,
            stale_if_error: STALE_IF_ERROR,
        }
    }
}

impl Freshness {
    /// Returns the freshness of a response. A directive that is malformed makes the response stale at once (RFC 9111
    /// section 4.2.1).
    pub(crate) fn of(fields: &FreshnessFields, defaults: &FreshnessDefaults) -> Self {
        let mut freshness = Freshness {
            lifetime: defaults.max_age,
            age: fields.age.min(LONGEST),
            while_revalidate: Duration::ZERO,
            if_error: defaults.stale_if_error,
            is_storable: true,
        };
        let (mut shared, mut stated_if_error) = (None, None);
        let mut is_revalidated = false;
        for directive in directives(fields.cache_control.as_deref().unwrap_or_default()) {
            let (name, value) = match directive.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
                None => (directive, None),
            };
            let seconds = || value.and_then(seconds).unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "max-age" => freshness.lifetime = seconds(),
                "s-maxage" => shared = Some(seconds()),
                "stale-while-revalidate" => freshness.while_revalidate = seconds(),
                "stale-if-error" => stated_if_error = Some(seconds()),
                // The fields that a value names have to be revalidated, and so the response with them.
                "no-cache" => freshness.lifetime = Duration::ZERO,
                "must-revalidate" | "proxy-revalidate" => is_revalidated = true,
                "no-store" | "private" => freshness.is_storable = false,
                _ => {}
            }
        }
        if let Some(shared) = shared {
            freshness.lifetime = shared;
            // It means `proxy-revalidate` too (RFC 9111 section 5.2.2.10), except for what the origin allows by itself.
            freshness.if_error = Duration::ZERO;
        }
        if let Some(if_error) = stated_if_error {
            freshness.if_error = if_error;
        }
        if is_revalidated {
            freshness.while_revalidate = Duration::ZERO;
            freshness.if_error = Duration::ZERO;
        }
        if !freshness.is_storable {
            freshness.lifetime = Duration::ZERO;
        }
        freshness
    }

    /// Freshness of media by content, which never changes.
    pub(crate) fn immutable() -> Self {
        Freshness {
            lifetime: Duration::MAX,
            age: Duration::ZERO,
            while_revalidate: Duration::ZERO,
            if_error: Duration::ZERO,
            is_storable: true,
        }
    }

    /// Whether the object never goes stale.
    pub(crate) fn is_immutable(&self) -> bool {
        self.lifetime == Duration::MAX
    }

    /// Returns the state of an object that arrived this long ago.
    pub(crate) fn state(&self, since: Duration) -> FreshnessState {
        let age = since.saturating_add(self.age);
        if age < self.lifetime {
            return FreshnessState::Fresh;
        }
        let stale_for = age.saturating_sub(self.lifetime);
        FreshnessState::Stale {
            while_revalidate: stale_for < self.while_revalidate,
            if_error: stale_for < self.if_error,
        }
    }
}

/// Whether an object may be served without its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FreshnessState {
    /// It may.
    Fresh,
    /// It may not, with two exceptions.
    Stale {
        /// It may while it is revalidated.
        while_revalidate: bool,
        /// It may if the origin fails.
        if_error: bool,
    },
}

/// Returns the directives of `Cache-Control`. A comma in a quoted string separates none.
fn directives(text: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let parts = text.split(move |c: char| {
        is_quoted ^= c == '"';
        c == ',' && !is_quoted
    });
    parts.map(str::trim).filter(|part| !part.is_empty())
}

/// Parses `delta-seconds` (RFC 9111 section 1.2.2).
fn seconds(text: &str) -> Option<Duration> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = text.parse::<u64>().map_or(LONGEST, Duration::from_secs);
    Some(seconds.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cache_control: Option<&str>, age_seconds: u64) -> Freshness {
        let fields = FreshnessFields {
            cache_control: cache_control.map(str::to_owned),
            age: Duration::from_secs(age_seconds),
        };
        Freshness::of(&fields, &FreshnessDefaults::default())
    }

    #[test]
    fn lifetimes() {
        for (cache_control, seconds, is_storable) in [
            (None, 60, true),
            (Some(""), 60, true),
            (Some("public"), 60, true),
            (Some("max-age=5"), 5, true),
            (Some("Max-Age = \"5\""), 5, true),
            (Some("max-age=5, s-maxage=7"), 7, true),
            (Some("s-maxage=7, max-age=5"), 7, true),
            (Some("max-age=x"), 0, true),
            (Some("max-age=-1"), 0, true),
            (Some("max-age"), 0, true),
            (Some("max-age=99999999999999999999999"), 1 << 31, true),
            (Some("no-cache"), 0, true),
            (Some("no-cache=\"set-cookie, max-age=9\""), 0, true),
            (Some("x=\"a, no-store\", max-age=4"), 4, true),
            (Some("max-age=5, no-store"), 0, false),
            (Some("private, max-age=5"), 0, false),
        ] {
            let freshness = of(cache_control, 0);
            assert_eq!(freshness.lifetime.as_secs(), seconds, "{cache_control:?}");
            assert_eq!(freshness.is_storable, is_storable, "{cache_control:?}");
        }
    }

    #[test]
    fn the_age_at_the_arrival_counts() {
        let freshness = of(Some("max-age=10"), 8);
        assert_eq!(
            freshness.state(Duration::from_secs(1)),
            FreshnessState::Fresh
        );
        assert_ne!(
            freshness.state(Duration::from_secs(2)),
            FreshnessState::Fresh
        );
    }

    #[test]
    fn stale_objects_are_served_within_the_times_of_their_origin() {
        let both = "max-age=10, stale-while-revalidate=20, stale-if-error=30";
        let stale = |while_revalidate, if_error| FreshnessState::Stale {
            while_revalidate,
            if_error,
        };
        for (cache_control, after, expected) in [
            (both, 9, FreshnessState::Fresh),
            (both, 29, stale(true, true)),
            (both, 30, stale(false, true)),
            (both, 40, stale(false, false)),
            ("max-age=10", 11, stale(false, true)),
            ("max-age=10", 10 + 24 * 60 * 60, stale(false, false)),
            ("max-age=10, must-revalidate", 11, stale(false, false)),
            ("s-maxage=10, stale-if-error=9", 11, stale(false, true)),
            ("s-maxage=10", 11, stale(false, false)),
        ] {
            let state = of(Some(cache_control), 0).state(Duration::from_secs(after));
            assert_eq!(state, expected, "{cache_control} after {after}");
        }
        assert_eq!(
            Freshness::immutable().state(Duration::from_secs(u64::MAX)),
            FreshnessState::Fresh
        );
    }
}
