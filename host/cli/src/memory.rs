//! Default memory limit of a server.

use millpond::ledger::process;

/// Returns the default memory limit, in bytes: a quarter of the memory of the machine or control group, 4 GiB at most.
/// With little memory it is half of that, up to 256 MiB, because the program itself takes about 50 MiB.
pub(crate) fn memory_bytes() -> usize {
    /// Memory of the machine, if the system does not report it.
    const UNTOLD: u64 = 1 << 30;
    memory_bytes_of(process::memory_limit_bytes().unwrap_or(UNTOLD))
}

fn memory_bytes_of(all_bytes: u64) -> usize {
    const MOST: u64 = 4 << 30;
    const LITTLE: u64 = 256 << 20;
    let part = (all_bytes / 4).max((all_bytes / 2).min(LITTLE));
    usize::try_from(part.min(MOST)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_starts_in_a_small_container_and_leaves_others_room_on_a_large_machine() {
        const MIB: u64 = 1 << 20;
        for (all, part) in [
            (64, 32),
            (128, 64),
            (256, 128),
            (512, 256),
            (1024, 256),
            (2048, 512),
            (16 * 1024, 4096),
            (1024 * 1024, 4096),
        ] {
            assert_eq!(memory_bytes_of(all * MIB) as u64, part * MIB, "{all} MiB");
        }
    }
}
