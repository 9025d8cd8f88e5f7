//! Result of a run, for the page that compares the hosts.

use super::runtime::{Runtime, root};
use serde::Serialize;
use std::fs;

/// Result of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Outcome {
    pub(crate) host: String,
    /// Of each topic of the table: its title, how many exchanges it has, and how many went as it says.
    pub(crate) topics: Vec<(String, usize, usize)>,
    /// A file of 500,000 bytes.
    pub(crate) small: Load,
    /// A file of 50,000,000 bytes.
    pub(crate) large: Load,
    pub(crate) disconnects: Disconnects,
    /// Known differences from the table, with the reason of each.
    pub(crate) otherwise: Vec<&'static str>,
    pub(crate) harmed_by_leaving: Option<&'static str>,
}

/// A file taken whole.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Load {
    /// For one, on average.
    pub(crate) milliseconds: f64,
    /// The most anonymous memory that the host had meanwhile.
    pub(crate) memory_bytes: u64,
    /// Growth during the load.
    pub(crate) grown_bytes: u64,
}

/// Clients that left.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Disconnects {
    pub(crate) times: usize,
    /// Those that were given nothing within seconds; after a few of them nobody else is sent.
    pub(crate) stalled: usize,
    pub(crate) before: Alive,
    pub(crate) after: Alive,
    pub(crate) still_serves: bool,
}

/// Resources that a host holds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Alive {
    pub(crate) sockets: usize,
    pub(crate) media_files: usize,
    pub(crate) memory_bytes: u64,
}

impl Alive {
    pub(crate) fn is_no_more_than(&self, before: &Alive) -> bool {
        self.sockets <= before.sockets && self.media_files <= before.media_files
    }
}

impl Disconnects {
    /// Whether the host released all resources of clients that left.
    pub(crate) fn is_sound(&self) -> bool {
        self.still_serves && self.stalled == 0 && self.after.is_no_more_than(&self.before)
    }

    pub(crate) fn assert_as_known(&self, runtime: &Runtime) {
        let name = &runtime.name;
        match runtime.harmed_by_leaving {
            None => assert!(self.is_sound(), "{name}: {self:?}"),
            Some(why) => assert!(!self.is_sound(), "{name} is well now, though {why}"),
        }
    }
}

impl Outcome {
    pub(crate) fn new(runtime: &Runtime) -> Self {
        Outcome {
            host: runtime.name.clone(),
            otherwise: runtime.otherwise.iter().map(|(_, why)| *why).collect(),
            harmed_by_leaving: runtime.harmed_by_leaving,
            ..Outcome::default()
        }
    }

    pub(crate) fn keep(&self) {
        let folder = root().join("target/hosts");
        fs::create_dir_all(&folder).unwrap();
        let name: String = self
            .host
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let json = serde_json::to_vec_pretty(self).unwrap();
        fs::write(folder.join(format!("{name}.json")), json).unwrap();
    }
}
