//! `millpond ls`.

use crate::common::{access_name, described, write_until_closed};
use crate::media_location::MediaLocation;
#[cfg(feature = "origin")]
use crate::origin_session::OriginSession;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use millpond::store::{Inventory, StoredMedia, VerifiedEntry};
use std::cmp::Reverse;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

#[derive(Debug, Args)]
pub(crate) struct ListMedia {
    /// Folder of the store, or the URL of object storage: s3://BUCKET/PREFIX, gs:// or az://.
    #[arg(
        value_name = "DIR|URL",
        default_value = ".",
        env = "MILLPOND_DIR",
        value_parser = MediaLocation::parser()
    )]
    dir: MediaLocation,

    /// Order of the media. Every order but `id` holds all records in memory, about 300 bytes for each media.
    #[arg(long, value_name = "FIELD", default_value = "id")]
    sort: Order,

    /// Print one JSON object per media.
    #[arg(long)]
    json: bool,
}

/// Order of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    /// By id.
    Id,
    /// Newest first.
    Created,
    /// Largest first.
    Size,
    /// By media type.
    Type,
}

impl ListMedia {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let context = || format!("cannot list the store {}", self.dir);
        let mut failed = false;
        let mut tell = |entry: VerifiedEntry| {
            failed = true;
            let path = entry.path.display();
            if let Some(corruption) = &entry.corruption {
                let _ = writeln!(io::stderr(), "millpond: not served: {path}: {corruption}");
            }
        };
        write_until_closed(|output| {
            let mut media: Vec<StoredMedia> = Vec::new();
            let listed = self.each_media(&mut |listed| match listed {
                Ok(listed) if self.sort == Order::Id => self.print(&listed, output),
                Ok(listed) => {
                    media.push(listed);
                    Ok(())
                }
                Err(entry) => {
                    tell(entry);
                    Ok(())
                }
            });
            listed.with_context(context)?;
            match self.sort {
                Order::Id => {}
                Order::Created => media.sort_by_key(|media| Reverse(media.record.created)),
                Order::Size => media.sort_by_key(|media| Reverse(media.record.size)),
                Order::Type => {
                    media.sort_by(|a, b| a.record.media_type.cmp(&b.record.media_type));
                }
            }
            for media in &media {
                self.print(media, output)?;
            }
            Ok(())
        })?;
        Ok(ExitCode::from(u8::from(failed)))
    }

    /// Passes each media, or an entry that is not served, to `found`, until that fails.
    fn each_media(
        &self,
        found: &mut dyn FnMut(Result<StoredMedia, VerifiedEntry>) -> Result<()>,
    ) -> Result<()> {
        match &self.dir {
            MediaLocation::Folder(folder) => Inventory::open(folder)?.try_for_each(found),
            #[cfg(feature = "origin")]
            MediaLocation::Origin(url) => {
                let session = OriginSession::open(url)?;
                session.wait(session.importer().list(found))
            }
        }
    }

    fn print(&self, media: &StoredMedia, output: &mut dyn Write) -> Result<()> {
        let StoredMedia { id, record, .. } = media;
        let created = humantime::format_rfc3339_seconds(whole_seconds(record.created));
        if self.json {
            let mut line = described(id, record);
            line["created"] = created.to_string().into();
            line["variants"] = serde_json::json!(record.variants);
            writeln!(output, "{line}")?;
            return Ok(());
        }
        let variants = match record.variants.len() {
            0 => String::new(),
            1 => "  1 variant".into(),
            count => format!("  {count} variants"),
        };
        writeln!(
            output,
            "{id}  {}  {}  {created}  {}{variants}",
            record.media_type,
            record.size,
            access_name(record.access),
        )?;
        Ok(())
    }
}

/// Returns a time that can be written. A record may have any.
fn whole_seconds(time: SystemTime) -> SystemTime {
    time.max(SystemTime::UNIX_EPOCH)
}
