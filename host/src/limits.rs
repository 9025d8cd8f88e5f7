//! What one request, one connection and the process may take.
//!
//! Every cap of the host has its name here, with the reason for its value; what a limit is called here it is
//! called in answers, logs and tests too.

use crate::ledger::{Exceeded, Kind};
use crate::watch::process;
use http::HeaderMap;
use std::fmt;
use std::time::Duration;

/// All that one request may hold, in bytes, unless told otherwise: the embedded component takes 64 KiB, its
/// stack four times as much, and the rest is for the buffers of a fast download.
pub const REQUEST_MEMORY_BYTES: usize = 1024 * 1024;

/// All that the process may hold, in bytes, unless told otherwise: a quarter of what its control groups or the machine
/// have, and no more than 4 GiB; half of it where that is little, up to 256 MiB, since the program itself takes some 50.
#[must_use]
pub fn memory_bytes() -> usize {
    /// Where the system does not tell.
    const UNTOLD: u64 = 1 << 30;
    memory_bytes_of(process::memory_limit_bytes().unwrap_or(UNTOLD))
}

fn memory_bytes_of(all_bytes: u64) -> usize {
    const MOST: u64 = 4 << 30;
    const LITTLE: u64 = 256 << 20;
    let part = (all_bytes / 4).max((all_bytes / 2).min(LITTLE));
    usize::try_from(part.min(MOST)).unwrap_or(usize::MAX)
}

/// CPU time of one request's instance: ten thousand times what the embedded component takes.
pub const CPU: Duration = Duration::from_millis(200);

/// Time from a request's admission to its response head, waiting included: a disk that does not answer for
/// longer is out of order.
pub const WALL: Duration = Duration::from_secs(10);

/// Entries of a request's resource table, each of which may hold an open file. One request serves one
/// representation; variants and playlists take a few.
pub const HANDLES: usize = 64;

/// Bytes that a request's instance makes the host copy out of it, over all its calls: a few kilobytes of
/// head and as much again of JSON.
pub const LIFTED_BYTES: usize = 128 * 1024;

/// Core instances, linear memories and tables of one request's component: the embedded one has a handful, composed ones
/// some more, and one with CPython in it 42 core instances.
pub const CORE_INSTANCES: usize = 64;

/// Size of a table element in the host: a pointer.
pub(crate) const TABLE_ELEMENT_BYTES: usize = size_of::<usize>();

/// Instances that may exist at one time where memory allows; further requests wait. An instance lives for
/// microseconds, so this bounds what a burst takes and is seldom met.
pub const CONCURRENT_INSTANCES: usize = 128;

/// Longest wait for room.
pub const ADMISSION_WAIT: Duration = Duration::from_secs(1);

/// Most requests that wait for room; one more is told to come again at once.
pub const QUEUE: usize = 1024;

/// Answers that may be given again take so much together, in bytes, unless told otherwise: some two thousand.
pub const REUSE_BYTES: usize = 4 * 1024 * 1024;

/// Stack that a guest may use, in bytes.
pub(crate) const GUEST_STACK_BYTES: usize = 128 * 1024;

/// The whole fiber stack: the host's own functions, called from the guest, have as much again.
pub(crate) const STACK_BYTES: usize = 2 * GUEST_STACK_BYTES;

/// What is kept of a freed memory and a freed stack, in bytes, to be cleared by writing zeros rather than by the
/// kernel: what the embedded component has at its start, and as much again.
pub(crate) const KEEP_MEMORY_BYTES: usize = 128 * 1024;
/// See [`KEEP_MEMORY_BYTES`].
pub(crate) const KEEP_STACK_BYTES: usize = 32 * 1024;

/// What the pool keeps resident for each instance, in bytes.
pub(crate) const POOL_SLOT_BYTES: usize = KEEP_MEMORY_BYTES + KEEP_STACK_BYTES;

/// What a wasmtime store takes on the host's side before there is an instance in it, in bytes; what the instance takes
/// depends on the component (`instance/footprint.rs`). Tests measure that both together are less.
pub(crate) const STORE_BYTES: usize = 12 * 1024;

/// The allocator gives as much as was asked for and a part of that, at most: its sizes are that far apart.
pub(crate) const ALLOCATOR_SHARE: usize = 4;

/// What an entry of the resource table takes on the host's side, in bytes, open files and buffers aside.
pub(crate) const HANDLE_BYTES: usize = 256;

/// What an open file takes in the kernel and here, in bytes.
pub(crate) const FILE_BYTES: usize = 1024;

/// What a request takes on the heap beside what has a kind of its own, in bytes: its ledger, its record, its
/// body, and its head's fields, each with this much beside name and value.
pub(crate) const REQUEST_OVERHEAD_BYTES: usize = 2048;
/// See [`REQUEST_OVERHEAD_BYTES`].
pub(crate) const FIELD_OVERHEAD_BYTES: usize = 96;

/// What a request's head and all that is remembered of the request take, in bytes: with so many field lines, whose names
/// and values are so many bytes together.
pub(crate) fn held_by_head(target: &str, lines: usize, fields_bytes: usize) -> usize {
    REQUEST_OVERHEAD_BYTES + target.len() + fields_bytes + lines * FIELD_OVERHEAD_BYTES
}

/// What fields take in memory, in bytes.
pub(crate) fn held_by_fields(fields: &HeaderMap) -> usize {
    fields_bytes(fields) + fields.len() * FIELD_OVERHEAD_BYTES
}

/// The sum of names and values, in bytes.
pub(crate) fn fields_bytes(fields: &HeaderMap) -> usize {
    let lines = fields.iter();
    lines
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum()
}

/// Most connections at one time, whatever the memory: what a process's open files usually allow.
pub const CONNECTIONS: usize = 10_000;

/// A connection's own state, in bytes: its task with hyper's parser and the buffers that it keeps for reading
/// a head and writing one, 8 KiB each to begin with. A test measures that it is less.
pub(crate) const CONNECTION_STATE_BYTES: usize = 24 * 1024;

/// What the kernel may keep for a connection of what the client sends, in bytes; requests are small.
pub(crate) const RECEIVE_BYTES: usize = 16 * 1024;

/// What is set aside for a connection before it is accepted, in bytes.
pub(crate) const CONNECTION_BYTES: usize = CONNECTION_STATE_BYTES + RECEIVE_BYTES;

/// Largest file with a certificate or a key, in bytes: a long chain has some ten thousand.
pub(crate) const CERTIFICATE_FILE_BYTES: u64 = 256 * 1024;

/// What TLS keeps of what is to be sent, in bytes: a frame of HTTP/2 with its head, which is a little more than one
/// record, in two.
pub(crate) const TLS_SEND_BYTES: usize = 20 * 1024;

/// What TLS takes for a connection, in bytes: [`TLS_SEND_BYTES`], its keys and its state, and a buffer in which a record
/// of 4 KiB fits. A test measures that it is less.
pub(crate) const TLS_BYTES: usize = 40 * 1024;

/// Most that comes encrypted and gives no plaintext, in bytes: one record of 16 KiB, with something over. A handshake is
/// smaller; what is larger is made to fill buffers.
pub(crate) const TLS_UNREAD_BYTES: usize = 24 * 1024;

/// What a large record takes until its plaintext was read, in bytes: as it came, and deciphered.
pub(crate) const TLS_RECORD_BYTES: usize = TLS_UNREAD_BYTES + 24 * 1024;

/// Requests that one connection of HTTP/2 may have in progress. A page has more images than that, and they share one way
/// to the client all the same.
pub(crate) const STREAMS: u32 = 32;

/// What HTTP/2 takes for a connection, in bytes: buffers for a frame each way, two tables of 4 KiB for fields, room for
/// as many streams as there may be, with the heads of answers that wait to be sent. A test measures that it is less.
pub(crate) const HTTP2_BYTES: usize = 96 * 1024;

/// What a stream of HTTP/2 takes beside what every request has reserved, in bytes: its future, its state, and a head of
/// [`STREAM_HEAD_BYTES`]. A test measures that it is less.
pub(crate) const STREAM_BYTES: usize = 16 * 1024;

/// A head that has room in [`STREAM_BYTES`], in bytes, with [`FIELD_OVERHEAD_BYTES`] for each field; for a larger one
/// more is reserved.
pub(crate) const STREAM_HEAD_BYTES: usize = 4 * 1024;

/// Bytes of a stream's answer that are read at a time when the connection's reader is fast.
pub(crate) const STREAM_PIECE_BYTES: usize = 64 * 1024;

/// What may wait to be sent on a stream when the next piece is asked for, in bytes: the pieces are the real bound.
pub(crate) const STREAM_SEND_BYTES: usize = 16 * 1024;

/// Content that a client may send on all streams together before it is told that some was read: the least that there can
/// be (RFC 9113 section 6.9.2). It is thrown away as it comes.
pub(crate) const WINDOW_BYTES: u32 = 65_535;

/// The same on one stream.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 16 * 1024;

/// What is set aside for a request before it is admitted, for as long as its answer lasts, in bytes: the smallest
/// window between file and socket, in user space and in the kernel, and what the guest made of the answer.
pub(crate) const ANSWER_BYTES: usize =
    crate::connection::window::SMALLEST.bytes() + 2 * REQUEST_OVERHEAD_BYTES + RESPONSE_BYTES;

/// A response's head and the parts that the guest made, in bytes; what is beyond is reserved when it comes.
pub(crate) const RESPONSE_BYTES: usize = 4 * 1024;

/// Most bytes that a component for `wasi:http` writes to its body at a time: half as much makes a large file take half as
/// long again.
pub(crate) const HTTP_PIECE_BYTES: usize = 64 * 1024;

/// What lies between component and connection while a component for `wasi:http` moves a body, in bytes: two pieces that were
/// written and one on its way. What it reads of files is charged as it is read, a piece at most for each stream.
pub(crate) const HTTP_BUFFERS_BYTES: usize = 3 * HTTP_PIECE_BYTES;

/// Longest request target, in bytes (RFC 9110 section 4.1 asks for 8000 at least): 414 beyond.
pub const TARGET_BYTES: usize = 8 * 1024;

/// Sum of a request's field names and values, in bytes: 431 beyond.
pub const FIELDS_BYTES: usize = 16 * 1024;

/// Most field lines of a request: 431 beyond.
pub const FIELD_LINES: usize = 100;

/// Where a request's head ends at the latest, in bytes; it lies well above [`TARGET_BYTES`], so that the usual
/// too long target gets a 414.
pub const HEAD_BYTES: usize = 32 * 1024;

/// Content that a request may announce, in bytes: none is ever used, and it is read only after the answer, so that
/// the client gets to see that. 413 beyond.
pub const CONTENT_BYTES: usize = 64 * 1024;

/// How long a closed connection is read on, for what the client was still sending: some round trips.
pub const LINGER: Duration = Duration::from_secs(1);

/// How long a large window is kept for the next answer on its connection: a page's requests come closer together.
pub(crate) const WINDOW_REST: Duration = Duration::from_secs(1);

/// Clients whose requests are counted over time, where that is asked for: as many as one hash table of half a
/// megabyte holds, and more than ask at one time of what one process serves. Further ones share one count.
pub const CLIENTS: usize = 14 * 1024;

/// What is remembered of clients takes at most, in bytes: that table, and one of the requests in flight, with an entry
/// for each of [`CONNECTIONS`] at most. They are part of what the process's bound sets aside for the allocator, and
/// there are none unless asked for. A test computes that they are less.
pub const CLIENT_TABLES_BYTES: usize = 1280 * 1024;

/// How much of a paced answer goes at once, by the time that its pace gives it: short, so that the way is never busy
/// with one answer for long, and long beside the timer's millisecond.
pub(crate) const PACE_PIECE: Duration = Duration::from_millis(100);

/// Lines of the command's log that wait for whoever reads them, in bytes: those of some 5,000 requests. Further ones are
/// dropped and counted, since no request waits for its line to be read.
pub const LOG_BYTES: usize = 1024 * 1024;

/// Largest component that is compiled, in bytes: ones with a language runtime have some 20 MB.
pub const COMPONENT_BYTES: u64 = 64 * 1024 * 1024;

/// The limits that differ from host to host.
///
/// ```
/// use millpond::Limits;
/// use std::time::Duration;
///
/// let mut limits = Limits::default();
/// limits.memory_bytes = 256 << 20;
/// limits.request_memory_bytes = 2 << 20;
/// limits.wall = Duration::from_secs(2);
/// assert!(limits.cpu < limits.wall);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// All that the process may hold, and the kernel on its behalf, in bytes.
    pub memory_bytes: usize,
    /// All that one request may hold, in bytes.
    pub request_memory_bytes: usize,
    /// CPU time of one request's instance.
    pub cpu: Duration,
    /// Time from a request's admission to its response head.
    pub wall: Duration,
    /// Entries of one request's resource table.
    pub handles: usize,
    /// Bytes that one request's instance makes the host copy out of it.
    pub lifted_bytes: usize,
    /// Instances that exist at one time.
    pub concurrent_instances: usize,
    /// Maximum size of the response cache, in bytes, as far as the memory limit has room for it. 0 turns the cache off.
    pub response_cache_bytes: usize,
    #[doc(hidden)]
    pub leak: Option<crate::watch::drill::Leak>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes: memory_bytes(),
            request_memory_bytes: REQUEST_MEMORY_BYTES,
            cpu: CPU,
            wall: WALL,
            handles: HANDLES,
            lifted_bytes: LIFTED_BYTES,
            concurrent_instances: CONCURRENT_INSTANCES,
            response_cache_bytes: REUSE_BYTES,
            leak: None,
        }
    }
}

/// A limit that a request met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Limit {
    /// What it would hold in all, by the kind that would pass the limit; or a limit of that kind itself.
    #[error("{0}")]
    Memory(Kind),
    /// Core instances, memories or tables, by count.
    #[error("instances")]
    Instances,
    /// CPU time.
    #[error("CPU time")]
    Cpu,
    /// Time until the response head.
    #[error("time")]
    Wall,
}

impl From<Exceeded> for Limit {
    fn from(exceeded: Exceeded) -> Self {
        Limit::Memory(exceeded.kind)
    }
}

impl Limit {
    /// Whether the same request may go well a moment later. Time is short on a busy machine; what the others
    /// count is the same each time.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Limit::Cpu | Limit::Wall)
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "memory {}, CPU {}, {} to the head, {} handles, {} lifted",
            bytesize::ByteSize(self.request_memory_bytes as u64)
                .display()
                .iec(),
            humantime::format_duration(self.cpu),
            humantime::format_duration(self.wall),
            self.handles,
            bytesize::ByteSize(self.lifted_bytes as u64).display().iec(),
        )
    }
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
