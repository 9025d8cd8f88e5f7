//! `millpond publish` and `millpond unpublish`.

use crate::common::{access_name, described};
use crate::media_location::MediaLocation;
use crate::store_writer::StoreWriter;
use anyhow::Result;
use clap::Args;
use millpond::store::{Access, ContentId, PublishedMedia, UnpublishedMedia};
use std::collections::HashSet;
use std::io::{self, Write};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// Media to make public. Its variants stay private unless they are named too.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<ContentId>,

    /// Folder of the store, or the URL of object storage: s3://BUCKET/PREFIX, gs:// or az://.
    #[arg(
        long,
        value_name = "DIR|URL",
        env = "MILLPOND_DIR",
        value_parser = MediaLocation::parser()
    )]
    store: MediaLocation,

    /// Make the variants of the media public too, and theirs.
    #[arg(long)]
    with_variants: bool,

    /// Print one JSON object per media.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Unpublish {
    /// Media to make private, with its variants and theirs.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<ContentId>,

    /// Folder of the store, or the URL of object storage: s3://BUCKET/PREFIX, gs:// or az://.
    #[arg(
        long,
        value_name = "DIR|URL",
        env = "MILLPOND_DIR",
        value_parser = MediaLocation::parser()
    )]
    store: MediaLocation,

    /// Print one JSON object per media.
    #[arg(long)]
    json: bool,
}

impl Publish {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let store = StoreWriter::open(&self.store)?;
        let mut failed = false;
        // Variants may refer to each other.
        let mut seen: HashSet<ContentId> = HashSet::new();
        let mut ids: Vec<ContentId> = self.ids.iter().rev().copied().collect();
        while let Some(id) = ids.pop() {
            if !seen.insert(id) {
                continue;
            }
            match self.publish(&store, &id) {
                Ok(published) => {
                    if self.with_variants {
                        let variants = published.record.variants.iter();
                        ids.extend(variants.rev().map(|variant| variant.id));
                    }
                    self.print(&id, &published)?;
                }
                Err(error) => {
                    tell(error);
                    failed = true;
                }
            }
        }
        Ok(ExitCode::from(u8::from(failed)))
    }

    fn publish(&self, store: &StoreWriter, id: &ContentId) -> Result<PublishedMedia> {
        let mut published = store.publish(id)?;
        if self.with_variants {
            published.private_variants.clear();
        }
        Ok(published)
    }

    fn print(&self, id: &ContentId, published: &PublishedMedia) -> io::Result<()> {
        let record = &published.record;
        if self.json {
            let mut line = described(id, record);
            line["access_before"] = serde_json::json!(published.access_before);
            line["private_variants"] = serde_json::json!(published.private_variants);
            return writeln!(io::stdout(), "{line}");
        }
        print_line(
            id,
            &record.media_type,
            record.access,
            published.access_before,
        )?;
        for variant in &published.private_variants {
            eprintln!(
                "millpond: variant {variant} stays private; publish it too if it should be public"
            );
        }
        Ok(())
    }
}

impl Unpublish {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let store = StoreWriter::open(&self.store)?;
        let mut failed = false;
        for id in &self.ids {
            match store.unpublish(id) {
                Ok(unpublished) => self.print(id, &unpublished)?,
                Err(error) => {
                    tell(error);
                    failed = true;
                }
            }
        }
        Ok(ExitCode::from(u8::from(failed)))
    }

    fn print(&self, id: &ContentId, unpublished: &UnpublishedMedia) -> io::Result<()> {
        let record = &unpublished.record;
        if self.json {
            let mut line = described(id, record);
            line["access_before"] = serde_json::json!(unpublished.access_before);
            line["narrowed_variants"] = serde_json::json!(unpublished.narrowed_variants);
            return writeln!(io::stdout(), "{line}");
        }
        print_line(
            id,
            &record.media_type,
            record.access,
            unpublished.access_before,
        )?;
        for variant in &unpublished.narrowed_variants {
            eprintln!("millpond: variant {variant} was public and is now private");
        }
        Ok(())
    }
}

fn print_line(id: &ContentId, media_type: &str, access: Access, before: Access) -> io::Result<()> {
    let (access, before) = (access_name(access), access_name(before));
    writeln!(
        io::stdout(),
        "{id}  /api/media/{id}  {media_type}  {access}  (was {before})"
    )
}

fn tell(error: anyhow::Error) {
    eprintln!("millpond: {error:#}");
}
