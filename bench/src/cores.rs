//! Cores of servers and of the load.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io;

/// Which cores servers run on, and which the load; none named is wherever the system wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cores {
    pub(crate) servers: Vec<usize>,
    pub(crate) load: Vec<usize>,
}

/// Cores by their numbers.
#[derive(Debug, Clone)]
pub(crate) struct CoreList(pub(crate) Vec<usize>);

/// Reads cores with commas, or `none`.
pub(crate) fn cores(text: &str) -> Result<CoreList, String> {
    if text == "none" {
        return Ok(CoreList(Vec::new()));
    }
    let cores: Result<Vec<usize>, _> = text.split(',').map(str::parse).collect();
    cores
        .map(CoreList)
        .map_err(|_| "not a list of numbers".to_owned())
}

/// Does something, usually the start of a child, on these cores only; children inherit them. With no cores named, it
/// is done wherever.
pub(crate) fn on_cores<T>(cores: &[usize], act: impl FnOnce() -> T) -> io::Result<T> {
    if cores.is_empty() {
        return Ok(act());
    }
    let before = sched_getaffinity(None)?;
    let mut there = CpuSet::new();
    for core in cores {
        there.set(*core);
    }
    sched_setaffinity(None, &there)?;
    let done = act();
    sched_setaffinity(None, &before)?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_done_on_a_core_is_done_there_and_nothing_else_is() {
        let before = sched_getaffinity(None).unwrap();
        let core = (0..CpuSet::MAX_CPU)
            .find(|core| before.is_set(*core))
            .unwrap();
        let during = on_cores(&[core], || sched_getaffinity(None).unwrap()).unwrap();
        assert_eq!((during.count(), during.is_set(core)), (1, true));
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
