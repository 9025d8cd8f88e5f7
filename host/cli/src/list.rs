//! `millpond ls`.

use crate::common::{access_name, described, write_until_closed};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use millpond::store::{Inventory, StoredMedia};
use std::cmp::Reverse;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

#[derive(Debug, Args)]
pub(crate) struct ListMedia {
    /// Folder of the store.
    #[arg(value_name = "DIR", default_value = ".", env = "MILLPOND_DIR")]
    dir: PathBuf,

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
        let context = || format!("cannot list the store {}", self.dir.display());
        let inventory = Inventory::open(&self.dir).with_context(context)?;
        let mut failed = false;
        let served = inventory.filter_map(|media| {
            let tell = |entry: millpond::store::VerifiedEntry| {
                failed = true;
                let path = entry.path.display();
                if let Some(corruption) = &entry.corruption {
                    let _ = writeln!(io::stderr(), "millpond: not served: {path}: {corruption}");
                }
            };
            media.map_err(tell).ok()
        });
        write_until_closed(|output| {
            if self.sort == Order::Id {
                for media in served {
                    self.print(&media, output)?;
                }
                return Ok(());
            }
            let mut media: Vec<StoredMedia> = served.collect();
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
