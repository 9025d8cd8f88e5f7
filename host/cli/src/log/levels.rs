//! Levels of the log, by target.

use std::str::FromStr;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// Lowest level that is logged, by target: the module of the program that an event comes from.
#[derive(Debug, Clone)]
pub(crate) struct LogLevels(Targets);

impl LogLevels {
    /// Filter for events.
    pub(super) fn targets(&self) -> &Targets {
        &self.0
    }

    /// Lowest level of the lines of requests that is logged.
    pub(super) fn of_requests(&self) -> LevelFilter {
        let levels = [Level::INFO, Level::WARN, Level::ERROR];
        let is_logged = |level: &Level| self.0.would_enable(millpond::ACCESS_LOG, level);
        let lowest = levels.into_iter().find(is_logged);
        lowest.map_or(LevelFilter::OFF, LevelFilter::from_level)
    }
}

/// The error of levels that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no level: levels are off, error, warn, info, debug and trace, and a target has one as in \
     info,millpond_server=debug"
)]
pub(crate) struct InvalidLevel(String);

impl FromStr for LogLevels {
    type Err = InvalidLevel;

    /// Parses levels separated by commas. One without a target is for all targets without their own, `info` by default.
    fn from_str(text: &str) -> Result<Self, InvalidLevel> {
        let mut targets = Targets::new().with_default(LevelFilter::INFO);
        for directive in text.split(',').map(str::trim) {
            let invalid = || InvalidLevel(directive.to_owned());
            // A number would be a level too, which nobody could read.
            let level = |level: &str| {
                let is_letter = |byte: u8| byte.is_ascii_alphabetic();
                let is_word = !level.is_empty() && level.bytes().all(is_letter);
                let level = level.parse::<LevelFilter>().ok();
                let level = level.filter(|_| is_word);
                level.ok_or_else(invalid)
            };
            targets = match directive.split_once('=') {
                Some((target, word)) if !target.is_empty() => {
                    targets.with_target(target, level(word)?)
                }
                Some(_) => return Err(invalid()),
                None => targets.with_default(level(directive)?),
            };
        }
        Ok(LogLevels(targets))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn levels_are_by_target() {
        let of = |text: &str| text.parse::<LogLevels>().unwrap();
        for (text, requests) in [
            ("info", LevelFilter::INFO),
            ("WARN", LevelFilter::WARN),
            ("debug", LevelFilter::INFO),
            ("off", LevelFilter::OFF),
            ("error,millpond_server=debug", LevelFilter::ERROR),
            ("warn,millpond::access=info", LevelFilter::INFO),
            ("millpond::access=off", LevelFilter::OFF),
            ("h2=debug", LevelFilter::INFO),
        ] {
            assert_eq!(of(text).of_requests(), requests, "{text}");
        }
        let levels = of("warn, millpond_server=debug");
        for (target, level, expected) in [
            ("millpond_server::listener", Level::DEBUG, true),
            ("millpond_server", Level::TRACE, false),
            ("millpond", Level::INFO, false),
            ("millpond", Level::WARN, true),
        ] {
            let is_logged = levels.targets().would_enable(target, &level);
            assert_eq!(is_logged, expected, "{target} {level}");
        }
    }

    #[test]
    fn no_other_word_is_a_level() {
        for text in [
            "",
            "wran",
            "info,",
            "3",
            "=info",
            "h2=",
            "h2=high",
            "a=b=info",
            "info debug",
        ] {
            assert!(text.parse::<LogLevels>().is_err(), "{text:?}");
        }
    }
}
