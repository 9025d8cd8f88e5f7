//! `millpond add`.

use crate::add_target::{AddTarget, AddTargetOptions, AddedFile, VariantOf};
use crate::common::{access_name, described, one_line, progress_bar, readable};
use crate::media_location::MediaLocation;
use crate::sources::{InputFile, NotAdded, walk};
use anyhow::Result;
use clap::Args;
use indicatif::ProgressBar;
use millpond::store::{Access, ContentId, ImportedMedia};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Files, pipes or folders to add. Of a folder, every file that is not hidden is added. `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Folder of the store, which is created if it does not exist, or the URL of object storage: s3://BUCKET/PREFIX, gs://
    /// or az://. An interrupted upload goes on with the parts that are missing.
    #[arg(
        long,
        visible_alias = "to",
        value_name = "DIR|URL",
        env = "MILLPOND_DIR",
        value_parser = MediaLocation::parser()
    )]
    store: MediaLocation,

    /// Make the media private: it is served to signed URLs only (`millpond sign`). Media that is in the store already
    /// becomes private with its variants. Without this option private media stays private.
    #[arg(long)]
    private: bool,

    /// Media in the store that the file is a variant of: the same media in another format, or compressed. A variant of
    /// private media is private.
    #[arg(long, value_name = "ID")]
    variant_of: Option<ContentId>,

    /// Content coding of the variant.
    #[arg(long, value_name = "CODING", requires = "variant_of", value_parser = ["br", "zstd", "gzip"])]
    content_encoding: Option<String>,

    /// Read content back from object storage after it was sent, and compare its digest, before it becomes visible.
    #[arg(long)]
    read_back: bool,

    /// Number of files that are added at a time [default: the number of cores, 8 at most].
    #[arg(long, value_name = "COUNT")]
    jobs: Option<NonZeroUsize>,

    /// Print one JSON object per file.
    #[arg(long)]
    json: bool,
}

/// Default maximum number of files that are added at a time. A disk is seldom faster with more.
const JOBS: usize = 8;

/// Maximum number of files that are added at a time. Each takes a thread, and a quarter of a mebibyte.
const MAX_JOBS: usize = 64;

/// Maximum number of files between the one that is printed next and the last that was found. The lines are in the order
/// of the files, so the others wait.
const WINDOW: u64 = 1024;

/// A source, and its place in the order.
type Numbered<T> = (u64, T);

/// Result of one source.
enum AddOutcome {
    Added {
        path: PathBuf,
        added: Box<AddedFile>,
    },
    Skipped(String),
    Failed(String),
}

impl Add {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let options = AddTargetOptions {
            is_private: self.private,
            original: self.variant_of.as_ref(),
            reads_back: self.read_back,
        };
        let target = AddTarget::open(&self.store, options)?;
        let bar = progress_bar(0);
        let import = Import {
            add: &self,
            target: &target,
            bar: &bar,
        };
        let all_added = import.run();
        bar.finish_and_clear();
        let all_added = all_added?;
        if all_added {
            target.finish()?;
        }
        Ok(ExitCode::from(u8::from(!all_added)))
    }

    /// Variants of one media are added in order, because its record has them in order.
    fn jobs(&self) -> usize {
        if self.variant_of.is_some() {
            return 1;
        }
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let jobs = self.jobs.map_or(cores.min(JOBS), NonZeroUsize::get);
        jobs.min(MAX_JOBS)
    }

    fn print(&self, path: &Path, added: &AddedFile) -> io::Result<()> {
        let AddedFile {
            imported, is_known, ..
        } = added;
        let ImportedMedia { id, record, .. } = imported;
        if self.json {
            let mut line = described(id, record);
            line["access_before"] = serde_json::json!(imported.access_before);
            line["narrowed_variants"] = serde_json::json!(imported.narrowed_variants);
            line["file"] = path.display().to_string().into();
            line["added"] = (!imported.already_present).into();
            line["read"] = (!is_known).into();
            return writeln!(io::stdout(), "{line}");
        }
        let access = access_name(record.access);
        let already_present = imported.already_present.then_some(match is_known {
            true => "already in the store, not read again",
            false => "already in the store",
        });
        let resumed = (added.resumed_bytes > 0)
            .then(|| format!("{} were sent before", readable(added.resumed_bytes)));
        let of_access = match (imported.access_before, record.access) {
            (Some(Access::Public), Access::Private) => Some("was public, now private"),
            (Some(Access::Private), _) if !self.private => {
                Some("stays private; `millpond publish` makes it public")
            }
            _ => None,
        };
        let notes = already_present.into_iter().chain(resumed.as_deref());
        let notes: Vec<&str> = notes.chain(of_access).collect();
        let note = match notes.as_slice() {
            [] => String::new(),
            notes => format!("  ({})", notes.join("; ")),
        };
        let media_type = &record.media_type;
        let name = path.display();
        writeln!(
            io::stdout(),
            "{id}  /api/media/{id}  {media_type}  {access}  {name}{note}"
        )?;
        for variant in &imported.narrowed_variants {
            eprintln!("millpond: variant {variant} was public and is now private");
        }
        Ok(())
    }
}

/// One run of `add`: a thread that finds files, threads that add them, and the current thread, which prints.
struct Import<'a> {
    add: &'a Add,
    target: &'a AddTarget,
    bar: &'a ProgressBar,
}

impl Import<'_> {
    /// Returns whether everything was added.
    fn run(&self) -> Result<bool> {
        let window = PrintWindow::default();
        let (found_tx, found_rx) = sync_channel(self.add.jobs());
        let (outcomes_tx, outcomes_rx) = channel();
        // The threads that add have it alone, so that nothing is sent once they have ended.
        let found_rx = Arc::new(Mutex::new(found_rx));
        thread::scope(|scope| {
            let window = &window;
            if !self.bar.is_hidden() {
                scope.spawn(move || self.count(window));
            }
            let outcomes = outcomes_tx.clone();
            scope.spawn(move || self.find(window, &found_tx, &outcomes));
            for _ in 0..self.add.jobs() {
                let (found, outcomes) = (Arc::clone(&found_rx), outcomes_tx.clone());
                scope.spawn(move || self.work(&found, &outcomes));
            }
            drop((found_rx, outcomes_tx));
            let printed = self.print_in_order(window, outcomes_rx);
            // After an error nothing more is found.
            window.close();
            printed
        })
    }

    /// Counts the bytes to add, for the remaining time.
    fn count(&self, window: &PrintWindow) {
        let _ = walk(&self.add.files, self.add.store.folder(), |source| {
            if let Ok(InputFile {
                bytes: Some(bytes), ..
            }) = source
            {
                self.bar.inc_length(bytes);
            }
            match window.is_closed() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
    }

    fn find(
        &self,
        window: &PrintWindow,
        found: &SyncSender<Numbered<InputFile>>,
        outcomes: &Sender<Numbered<AddOutcome>>,
    ) {
        let mut numbers = 0..;
        let _ = walk(&self.add.files, self.add.store.folder(), |source| {
            let number = numbers.next().unwrap_or(u64::MAX);
            window.wait_for(number)?;
            let is_sent = match source {
                Ok(file) => found.send((number, file)).is_ok(),
                Err(NotAdded::Skipped(message)) => outcomes
                    .send((number, AddOutcome::Skipped(message)))
                    .is_ok(),
                Err(NotAdded::Unreadable(message)) => {
                    outcomes.send((number, AddOutcome::Failed(message))).is_ok()
                }
            };
            match is_sent {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
    }

    fn work(
        &self,
        found: &Mutex<Receiver<Numbered<InputFile>>>,
        outcomes: &Sender<Numbered<AddOutcome>>,
    ) {
        loop {
            let next = found.lock().recv();
            let Ok((number, file)) = next else {
                return;
            };
            let name = file.path.file_name().unwrap_or_default();
            self.bar.set_message(name.display().to_string());
            let outcome = match self.add_one(&file) {
                Ok(added) => AddOutcome::Added {
                    path: file.path,
                    added: Box::new(added),
                },
                Err(error) => AddOutcome::Failed(one_line(&error)),
            };
            if outcomes.send((number, outcome)).is_err() {
                return;
            }
        }
    }

    fn add_one(&self, file: &InputFile) -> Result<AddedFile> {
        let progress = |count| {
            if file.bytes.is_none() {
                self.bar.inc_length(count);
            }
            self.bar.inc(count);
        };
        let original = self.add.variant_of.as_ref();
        let variant_of = original.map(|original| VariantOf {
            original,
            coding: self.add.content_encoding.as_deref(),
        });
        self.target.add(file, variant_of, &progress)
    }

    /// Prints the outcomes in the order of the files. Returns whether everything was added.
    fn print_in_order(
        &self,
        window: &PrintWindow,
        outcomes: Receiver<Numbered<AddOutcome>>,
    ) -> Result<bool> {
        let mut all_added = true;
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        for (number, outcome) in outcomes {
            waiting.insert(number, outcome);
            while let Some(outcome) = waiting.remove(&next) {
                next += 1;
                window.advance(next);
                self.bar.suspend(|| match outcome {
                    AddOutcome::Added { path, added } => self.add.print(&path, &added),
                    AddOutcome::Skipped(message) => {
                        eprintln!("millpond: {message}");
                        Ok(())
                    }
                    AddOutcome::Failed(message) => {
                        all_added = false;
                        eprintln!("millpond: {message}");
                        Ok(())
                    }
                })?;
            }
        }
        Ok(all_added)
    }
}

/// Bound of the files that are found and not printed yet.
#[derive(Default)]
struct PrintWindow {
    /// Number of the next file to print, and whether nothing more is printed.
    state: Mutex<(u64, bool)>,
    advanced: Condvar,
}

impl PrintWindow {
    /// Waits until a file of that number may be added. Breaks if nothing more is printed.
    fn wait_for(&self, number: u64) -> ControlFlow<()> {
        let mut state = self.state.lock();
        while !state.1 && number >= state.0 + WINDOW {
            self.advanced.wait(&mut state);
        }
        match state.1 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn advance(&self, next: u64) {
        self.state.lock().0 = next;
        self.advanced.notify_one();
    }

    fn close(&self) {
        self.state.lock().1 = true;
        self.advanced.notify_one();
    }

    fn is_closed(&self) -> bool {
        self.state.lock().1
    }
}
