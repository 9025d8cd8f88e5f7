//! Place of the media that the server serves: a folder, or an origin.

use clap::builder::{OsStringValueParser, TypedValueParser, ValueParser};
#[cfg(feature = "origin")]
use millpond_origin::OriginUrl;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Place of the media.
#[derive(Debug, Clone)]
pub(crate) enum MediaLocation {
    /// A folder of this machine.
    Folder(PathBuf),
    /// Object storage, or an HTTP origin.
    #[cfg(feature = "origin")]
    Origin(OriginUrl),
}

impl MediaLocation {
    /// Returns the parser of an argument.
    pub(crate) fn parser() -> ValueParser {
        ValueParser::new(OsStringValueParser::new().try_map(MediaLocation::parse))
    }

    /// Folder, if it is one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match self {
            MediaLocation::Folder(folder) => Some(folder),
            #[cfg(feature = "origin")]
            MediaLocation::Origin(_) => None,
        }
    }

    /// Parses a path or a URL. A folder whose name looks like a URL needs `./` before it.
    #[cfg(feature = "origin")]
    fn parse(text: OsString) -> Result<Self, millpond_origin::OriginUrlError> {
        match text.to_str().filter(|text| OriginUrl::looks_like(text)) {
            Some(text) => text.parse().map(MediaLocation::Origin),
            None => Ok(MediaLocation::Folder(text.into())),
        }
    }

    #[cfg(not(feature = "origin"))]
    fn parse(text: OsString) -> Result<Self, NoOrigins> {
        match text.to_str().is_some_and(|text| text.contains("://")) {
            true => Err(NoOrigins),
            false => Ok(MediaLocation::Folder(text.into())),
        }
    }
}

/// The error of a URL, for a program without the feature `origin`.
#[cfg(not(feature = "origin"))]
#[derive(Debug, thiserror::Error)]
#[error("this build serves folders only: it lacks the feature origin")]
struct NoOrigins;

impl fmt::Display for MediaLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MediaLocation::Folder(folder) => folder.display().fmt(f),
            #[cfg(feature = "origin")]
            MediaLocation::Origin(url) => url.fmt(f),
        }
    }
}
