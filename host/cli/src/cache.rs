//! `millpond cache`: the cache of a server with media from an origin.

use crate::admin_client::{self, AdminResponse};
use crate::admin_token::token_text;
use crate::cache_admin::LISTED_OBJECTS;
use crate::common::{readable, write_until_closed};
use crate::listen::ListenAddress;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use millpond_origin::{CachedObjectInfo, OriginFigures, WarmState};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use url::form_urlencoded;

#[derive(Debug, Args)]
pub(crate) struct CacheCommand {
    #[command(subcommand)]
    action: CacheAction,

    /// Address of the server's admin listener, as in its option --admin.
    #[arg(
        long,
        global = true,
        value_name = "ADDR",
        default_value = "127.0.0.1:8079",
        env = "MILLPOND_ADMIN"
    )]
    admin: ListenAddress,

    /// File with the token of the admin listener. MILLPOND_ADMIN_TOKEN sets the token itself.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "MILLPOND_ADMIN_TOKEN_FILE"
    )]
    admin_token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum CacheAction {
    /// Show the size of the cache, and what it has fetched.
    Stat {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the objects of the cache, in order of their keys.
    Ls {
        /// Text that the keys begin with.
        #[arg(value_name = "PREFIX", default_value = "")]
        prefix: String,

        /// Print one JSON object per object.
        #[arg(long)]
        json: bool,
    },
    /// Remove objects from the cache, so that they are fetched again.
    Purge(PurgeArguments),
    /// Fetch objects into the cache before they are requested.
    Warm {
        /// File with a key in each line. `-` is standard input.
        #[arg(value_name = "FILE")]
        list: PathBuf,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct PurgeArguments {
    /// Keys of the objects: names without the mount path, or content ids.
    #[arg(value_name = "KEY")]
    keys: Vec<String>,

    /// Purge all names that begin with this text.
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,

    /// Purge all objects.
    #[arg(long)]
    all: bool,
}

/// Maximum size of a response, in bytes. A list of objects is the largest.
const RESPONSE_BYTES: usize = 16 * 1024 * 1024;

/// Maximum number of lines of a list to warm.
const WARM_LINES: usize = 1_000_000;

/// Time between two questions whether an object has been fetched.
const WARM_INTERVAL: Duration = Duration::from_millis(100);

impl CacheCommand {
    pub(crate) fn run(self) -> Result<ExitCode> {
        match &self.action {
            CacheAction::Stat { json } => self.stat(*json),
            CacheAction::Ls { prefix, json } => self.list(prefix, *json),
            CacheAction::Purge(arguments) => self.purge(arguments),
            CacheAction::Warm { list } => self.warm(list),
        }
    }

    fn stat(&self, json: bool) -> Result<ExitCode> {
        let content = self.get("/cache")?;
        if json {
            write!(io::stdout(), "{content}")?;
            return Ok(ExitCode::SUCCESS);
        }
        let figures: OriginFigures = parsed(&content)?;
        let usage = figures.usage;
        write_until_closed(|output| {
            writeln!(
                output,
                "size      {} of {}",
                readable(usage.bytes),
                readable(usage.max_bytes)
            )?;
            writeln!(
                output,
                "objects   {} of {}",
                usage.objects, usage.max_objects
            )?;
            writeln!(
                output,
                "origin    {} requests, {}",
                figures.origin_requests,
                readable(figures.origin_bytes)
            )?;
            writeln!(
                output,
                "fills     {} now, {} in all, {} failed, {} abandoned",
                figures.fills_in_progress,
                figures.fills_started,
                figures.fills_failed,
                figures.fills_abandoned
            )?;
            Ok(())
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn list(&self, prefix: &str, json: bool) -> Result<ExitCode> {
        #[derive(Deserialize)]
        struct Page {
            objects: Vec<CachedObjectInfo>,
        }
        let mut after: Option<String> = None;
        write_until_closed(|output| {
            loop {
                let mut parameters = vec![("prefix", prefix)];
                parameters.extend(after.as_deref().map(|after| ("after", after)));
                let page = self.get(&target("/cache/objects", &parameters))?;
                let Page { objects } = parsed(&page)?;
                for object in &objects {
                    if json {
                        writeln!(output, "{}", serde_json::to_string(object)?)?;
                        continue;
                    }
                    let state = match (object.ttl_seconds, object.is_fresh) {
                        (None, _) => "immutable".to_owned(),
                        (Some(ttl), true) => format!("fresh {ttl}s"),
                        (Some(_), false) => "stale".to_owned(),
                    };
                    let CachedObjectInfo {
                        key,
                        length,
                        cached_bytes,
                        ..
                    } = object;
                    writeln!(
                        output,
                        "{cached_bytes}/{length}  {state}  {}",
                        key.escape_debug()
                    )?;
                }
                match objects.last() {
                    Some(last) if objects.len() == LISTED_OBJECTS => after = Some(last.key.clone()),
                    _ => return Ok(()),
                }
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }

    fn purge(&self, arguments: &PurgeArguments) -> Result<ExitCode> {
        #[derive(Deserialize)]
        struct Purged {
            purged: usize,
        }
        let mut selections: Vec<(&str, &str)> = Vec::new();
        selections.extend(arguments.keys.iter().map(|key| ("key", key.as_str())));
        selections.extend(
            arguments
                .prefix
                .iter()
                .map(|text| ("prefix", text.as_str())),
        );
        if arguments.all {
            selections.push(("all", "true"));
        }
        let mut count = 0;
        for selection in selections {
            let content = self.post(&target("/cache/purge", &[selection]))?;
            count += parsed::<Purged>(&content)?.purged;
        }
        writeln!(io::stdout(), "purged {count}")?;
        Ok(ExitCode::SUCCESS)
    }

    fn warm(&self, list: &PathBuf) -> Result<ExitCode> {
        let input: Box<dyn Read> = match list.to_str() {
            Some("-") => Box::new(io::stdin()),
            _ => Box::new(
                File::open(list).with_context(|| format!("cannot read {}", list.display()))?,
            ),
        };
        let (mut count, mut bytes, mut failed) = (0, 0, false);
        for line in BufReader::new(input).lines().take(WARM_LINES) {
            let line = line.with_context(|| format!("cannot read {}", list.display()))?;
            let key = line.trim();
            if key.is_empty() {
                continue;
            }
            match self.warm_object(key) {
                Ok(length) => {
                    count += 1;
                    bytes += length;
                }
                Err(error) => {
                    failed = true;
                    writeln!(io::stderr(), "millpond: {}: {error:#}", key.escape_debug())?;
                }
            }
        }
        writeln!(io::stdout(), "{count} objects, {}", readable(bytes))?;
        Ok(ExitCode::from(u8::from(failed)))
    }

    /// Has the server fetch an object, and waits until it has. Returns the length of the object.
    fn warm_object(&self, key: &str) -> Result<u64> {
        let target = target("/cache/warm", &[("key", key)]);
        loop {
            let response = self.send("POST", &target)?;
            match response.status {
                200 => {
                    let state: WarmState = parsed(&response.content)?;
                    if state.missing_bytes == 0 {
                        return Ok(state.length);
                    }
                }
                // Others are being fetched.
                503 => {}
                _ => bail!(reason(&response)),
            }
            std::thread::sleep(WARM_INTERVAL);
        }
    }

    fn get(&self, target: &str) -> Result<String> {
        successful(self.send("GET", target)?)
    }

    fn post(&self, target: &str) -> Result<String> {
        successful(self.send("POST", target)?)
    }

    fn send(&self, method: &str, target: &str) -> Result<AdminResponse> {
        let token = token_text(self.admin_token_file.as_deref())?;
        let response = admin_client::send(
            &self.admin,
            method,
            target,
            token.as_deref(),
            RESPONSE_BYTES,
        );
        response.with_context(|| self.admin.to_string())
    }
}

/// Returns a target with parameters.
fn target(path: &str, parameters: &[(&str, &str)]) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish();
    format!("{path}?{query}")
}

fn successful(response: AdminResponse) -> Result<String> {
    match response.status {
        200 => Ok(response.content),
        _ => bail!(reason(&response)),
    }
}

/// Returns the reason of an error response.
fn reason(response: &AdminResponse) -> String {
    #[derive(Deserialize)]
    struct AdminErrorContent {
        error: String,
    }
    match (response.status, serde_json::from_str(&response.content)) {
        (_, Ok(AdminErrorContent { error })) => error,
        (401, _) => {
            "the admin token is needed: set MILLPOND_ADMIN_TOKEN or --admin-token-file".into()
        }
        (404, _) => "the server has no cache, because it serves a folder".into(),
        (status, _) => format!("status {status}"),
    }
}

fn parsed<T: DeserializeOwned>(content: &str) -> Result<T> {
    serde_json::from_str(content).context("the response is not one of millpond's cache")
}
