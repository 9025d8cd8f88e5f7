//! `millpond publish`.

use crate::common::described;
use anyhow::{Result, ensure};
use clap::Args;
use millpond::store::{Access, ContentId, Importer, PublishedMedia};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// Media to make public. Its variants stay private unless they are named too.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<ContentId>,

    /// Folder of the store.
    #[arg(long, value_name = "DIR", env = "MILLPOND_DIR")]
    store: PathBuf,

    /// Print one JSON object per media.
    #[arg(long)]
    json: bool,
}

impl Publish {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let store = self.store.display();
        ensure!(self.store.is_dir(), "no store in {store}");
        let importer = Importer::open(&self.store)?;
        let mut failed = false;
        for id in &self.ids {
            match importer.publish(id) {
                Ok(published) => self.print(id, &published)?,
                Err(error) => {
                    eprintln!("millpond: {:#}", anyhow::Error::from(error));
                    failed = true;
                }
            }
        }
        Ok(ExitCode::from(u8::from(failed)))
    }

    fn print(&self, id: &ContentId, published: &PublishedMedia) -> io::Result<()> {
        let record = &published.record;
        if self.json {
            let mut line = described(id, record);
            line["access_before"] = serde_json::json!(published.access_before);
            line["private_variants"] = serde_json::json!(published.private_variants);
            return writeln!(io::stdout(), "{line}");
        }
        let note = match published.access_before {
            Access::Private => "was private",
            Access::Public => "was public",
        };
        let media_type = &record.media_type;
        writeln!(
            io::stdout(),
            "{id}  /api/media/{id}  {media_type}  public  ({note})"
        )?;
        for variant in &published.private_variants {
            eprintln!(
                "millpond: variant {variant} stays private; publish it too if it should be public"
            );
        }
        Ok(())
    }
}
