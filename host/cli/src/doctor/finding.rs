//! Findings of `millpond doctor`.

use serde::Serialize;
use std::fmt;

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) check: &'static str,
    pub(crate) level: FindingLevel,
    pub(crate) message: String,
    /// Remedy, unless all is well.
    pub(crate) remedy: Option<String>,
}

/// FindingLevel of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FindingLevel {
    Ok,
    /// The server starts, and will disappoint.
    Warn,
    /// The server does not start, or cannot serve.
    Fail,
}

impl Finding {
    pub(crate) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Finding {
            check,
            level: FindingLevel::Ok,
            message: message.into(),
            remedy: None,
        }
    }

    pub(crate) fn warn(
        check: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Finding {
            check,
            level: FindingLevel::Warn,
            message: message.into(),
            remedy: Some(remedy.into()),
        }
    }

    pub(crate) fn fail(
        check: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Finding {
            level: FindingLevel::Fail,
            ..Finding::warn(check, message, remedy)
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            FindingLevel::Ok => "ok",
            FindingLevel::Warn => "warn",
            FindingLevel::Fail => "fail",
        };
        write!(f, "{level:4}  {:12}  {}", self.check, self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n{:20}→ {remedy}", ""),
            None => Ok(()),
        }
    }
}
