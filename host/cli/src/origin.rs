//! Options of `millpond serve` for media at an origin.

use crate::common::{parse_size, readable};
use crate::doctor::finding::Finding;
use crate::sandbox::{PathAccess, SandboxRules};
use anyhow::{Context, Result, ensure};
use bytesize::ByteSize;
use clap::Args;
use millpond_origin::{
    CACHE_MIN_BYTES, CacheLimits, FetchError, FreshnessDefaults, Origin, OriginLimits,
    OriginOptions, OriginStore, OriginUrl, credential_files,
};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct CacheOptions {
    /// Folder for the cache of media from an origin. Each origin has a folder in it [default:
    /// $XDG_CACHE_HOME/millpond/origins or ~/.cache/millpond/origins].
    #[arg(long, value_name = "DIR", env = "MILLPOND_CACHE_DIR")]
    cache_dir: Option<PathBuf>,

    /// Maximum size of that cache on disk.
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "10GiB",
        env = "MILLPOND_CACHE_SIZE",
        value_parser = parse_size
    )]
    cache_size: ByteSize,

    /// Maximum number of objects in that cache, which take a kilobyte of memory each [default: a thirty-second of the
    /// memory limit].
    #[arg(long, value_name = "COUNT", env = "MILLPOND_CACHE_FILES")]
    cache_files: Option<usize>,

    /// Time for which an object is fresh if its origin states none.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "1m",
        env = "MILLPOND_CACHE_MAX_AGE",
        value_parser = humantime::parse_duration
    )]
    cache_max_age: Duration,

    /// Time for which an object that the origin lacks counts as missing.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        env = "MILLPOND_CACHE_NEGATIVE_TTL",
        value_parser = humantime::parse_duration
    )]
    cache_negative_ttl: Duration,

    /// Time for which a stale object is served if the origin fails. 0s serves none.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "1d",
        env = "MILLPOND_CACHE_STALE_IF_ERROR",
        value_parser = humantime::parse_duration
    )]
    cache_stale_if_error: Duration,

    /// Maximum number of fetches from the origin at the same time. Each takes a megabyte of memory [default: a sixteenth of
    /// the memory limit, 64 at most].
    #[arg(long, value_name = "COUNT", env = "MILLPOND_ORIGIN_CONNECTIONS")]
    origin_connections: Option<usize>,

    /// Follow redirects of the origin to private addresses.
    #[arg(long, env = "MILLPOND_ORIGIN_PRIVATE_REDIRECTS")]
    origin_private_redirects: bool,
}

/// Maximum number of fetches at a time by default. More do not fetch faster.
const FILLS: usize = 64;

/// Minimum number of fetches at a time. With fewer, one slow response holds up the others.
const MIN_FILLS: usize = 4;

/// Memory of an object in the cache, in bytes.
const OBJECT_BYTES: usize = 1024;

impl CacheOptions {
    /// Opens the store of an origin. Reads the records of its cache, and blocks on the disk.
    pub(crate) fn open(&self, url: &OriginUrl, memory_bytes: usize) -> Result<OriginStore> {
        let limits = self.limits(memory_bytes)?;
        let mut options = OriginOptions::default();
        options.connections = limits.fills;
        options.allow_private_redirects = self.origin_private_redirects;
        let origin = Origin::connect(url, options)?;
        let folder = self.folder(url)?;
        let context = || format!("cannot use the cache folder {}", folder.display());
        let mut defaults = FreshnessDefaults::default();
        defaults.max_age = self.cache_max_age;
        defaults.negative_ttl = self.cache_negative_ttl;
        defaults.stale_if_error = self.cache_stale_if_error;
        OriginStore::open(origin, &folder, limits, defaults).with_context(context)
    }

    /// Checks that an origin answers, for `millpond doctor`. An object that the origin lacks shows it as well.
    pub(crate) async fn check(&self, url: &OriginUrl) -> Finding {
        const CHECK: &str = "origin";
        const REMEDY: &str =
            "check the URL, the network, and the credentials in the environment (docs/origins.md)";
        let mut options = OriginOptions::default();
        options.allow_private_redirects = self.origin_private_redirects;
        let origin = match Origin::connect(url, options) {
            Ok(origin) => origin,
            Err(error) => return Finding::fail(CHECK, error.to_string(), REMEDY),
        };
        match origin.head(".well-known/millpond-doctor", None).await {
            Ok(_) | Err(FetchError::NotFound) => Finding::ok(CHECK, format!("{url} answers")),
            Err(error) => Finding::fail(CHECK, format!("{url}: {error}"), REMEDY),
        }
    }

    /// Returns the folder of an origin's cache.
    fn folder(&self, url: &OriginUrl) -> Result<PathBuf> {
        let folder = match &self.cache_dir {
            Some(folder) => folder.clone(),
            None => millpond::code_cache_folder()
                .context("there is no folder for the cache: name one with --cache-dir")?
                .join("origins"),
        };
        Ok(folder.join(url.cache_name()))
    }

    fn limits(&self, memory_bytes: usize) -> Result<OriginLimits> {
        let max_bytes = self.cache_size.as_u64();
        ensure!(
            max_bytes >= CACHE_MIN_BYTES,
            "--cache-size is {}, and at least {} is needed",
            readable(max_bytes),
            readable(CACHE_MIN_BYTES)
        );
        let files = self.cache_files;
        let fills = memory_bytes / 16 / (1024 * 1024);
        let fills = self
            .origin_connections
            .unwrap_or(fills.clamp(MIN_FILLS, FILLS));
        Ok(OriginLimits {
            cache: CacheLimits {
                max_bytes,
                max_files: files.unwrap_or(memory_bytes / 32 / OBJECT_BYTES).max(1),
            },
            fills: fills.max(1),
        })
    }

    /// Allows what the store of an origin needs. Makes the folder of its cache, since a sandbox allows only what there is.
    pub(crate) fn allow(&self, url: &OriginUrl, rules: &mut SandboxRules) -> Result<()> {
        let folder = self.folder(url)?;
        let context = || format!("cannot use the cache folder {}", folder.display());
        std::fs::create_dir_all(&folder).with_context(context)?;
        rules.allow(folder, PathAccess::Tree);
        for port in url.ports() {
            rules.allow_server(port);
        }
        for file in credential_files() {
            rules.allow(file, PathAccess::Read);
        }
        // A redirect may lead to another scheme's port.
        rules.allow_server(443);
        Ok(())
    }

    /// Line of the announcement.
    pub(crate) fn announcement(&self, url: &OriginUrl) -> String {
        let size = readable(self.cache_size.as_u64());
        match self.folder(url) {
            Ok(folder) => format!("  cache      {}, {size} at most", folder.display()),
            Err(_) => format!("  cache      {size} at most"),
        }
    }
}
