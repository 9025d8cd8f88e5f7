//! `millpond rm`.

use crate::common::readable;
use crate::media_location::MediaLocation;
use crate::store_writer::StoreWriter;
use anyhow::Result;
use clap::Args;
use millpond::store::{ContentId, RemovedMedia};
use std::collections::HashSet;
use std::io::{self, Write};
use std::process::ExitCode;

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Media to remove. Its variants stay, unless they are named too.
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

impl Remove {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let store = StoreWriter::open(&self.store)?;
        let ids: HashSet<ContentId> = self.ids.iter().copied().collect();
        let mut references = Vec::new();
        // A variant that is chosen has to be there, so references go first.
        store.remove_references(&ids, |original, variant| {
            references.push((original, variant));
            eprintln!("millpond: {original} had the variant {variant}, and has it no more");
        })?;
        let (mut failed, mut seen) = (false, HashSet::new());
        for id in self.ids.iter().filter(|id| seen.insert(**id)) {
            match store.remove(id) {
                Ok(removed) => self.print(id, &removed, &references)?,
                Err(error) => {
                    eprintln!("millpond: {error:#}");
                    failed = true;
                }
            }
        }
        Ok(ExitCode::from(u8::from(failed)))
    }

    fn print(
        &self,
        id: &ContentId,
        removed: &RemovedMedia,
        references: &[(ContentId, ContentId)],
    ) -> io::Result<()> {
        let left = removed.variants.iter();
        let left: Vec<&ContentId> = left.filter(|variant| !self.ids.contains(variant)).collect();
        if self.json {
            let originals = references.iter().filter(|(_, variant)| variant == id);
            let originals: Vec<&ContentId> = originals.map(|(original, _)| original).collect();
            let line = serde_json::json!({
                "id": id,
                "size": removed.size,
                "variant_of": originals,
                "variants_left": left,
            });
            return writeln!(io::stdout(), "{line}");
        }
        writeln!(io::stdout(), "{id}  removed  {}", readable(removed.size))?;
        for variant in left {
            eprintln!("millpond: its variant {variant} stays in the store");
        }
        Ok(())
    }
}
