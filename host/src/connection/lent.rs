//! The piece of a file that is on its way to the socket, which the kernel takes from the file itself (`sendfile`).
//!
//! hyper is given the piece as memory, a mapping that nobody touches, and hands it to the socket as it is. The socket
//! knows it by its address.

use crate::store::OpenFile;
use std::io::IoSlice;
use std::sync::Arc;

/// Part of a file that stands in memory from an address on, for as long as it is lent.
#[derive(Debug)]
pub(crate) struct Lent {
    address: usize,
    length: usize,
    file: Arc<OpenFile>,
    offset: u64,
}

/// Bytes of a file that are the next to be sent.
#[derive(Debug)]
pub(crate) struct FileRange {
    pub(super) file: Arc<OpenFile>,
    pub(super) offset: u64,
    pub(super) length: usize,
}

/// What is to be sent next.
#[derive(Debug)]
pub(super) enum Next<'a> {
    /// Bytes in memory; `is_more` where those of a file follow.
    Memory {
        pieces: &'a [IoSlice<'a>],
        is_more: bool,
    },
    /// Bytes of a file.
    File(FileRange),
}

impl Lent {
    /// `bytes` stand for those of the file from `offset` on.
    pub(crate) fn new(bytes: &[u8], file: Arc<OpenFile>, offset: u64) -> Self {
        Lent {
            address: bytes.as_ptr().addr(),
            length: bytes.len(),
            file,
            offset,
        }
    }

    /// What comes first of these pieces.
    pub(super) fn next<'a>(&self, pieces: &'a [IoSlice<'a>]) -> Next<'a> {
        for (place, piece) in pieces.iter().enumerate() {
            let Some(skipped) = self.skipped(piece) else {
                continue;
            };
            if place > 0 {
                return Next::Memory {
                    pieces: &pieces[..place],
                    is_more: true,
                };
            }
            return Next::File(FileRange {
                file: Arc::clone(&self.file),
                offset: self.offset + skipped as u64,
                length: piece.len(),
            });
        }
        Next::Memory {
            pieces,
            is_more: false,
        }
    }

    /// How far into what is lent a piece begins, if it is of it.
    fn skipped(&self, piece: &[u8]) -> Option<usize> {
        let skipped = piece.as_ptr().addr().checked_sub(self.address)?;
        let is_of_it = !piece.is_empty() && skipped.checked_add(piece.len())? <= self.length;
        is_of_it.then_some(skipped)
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::panic, clippy::unwrap_used)]
    use super::*;
    use crate::ledger::{Kind, Ledger, Owner};
    use crate::store::MediaFile;
    use std::fs::File;

    pub(in crate::connection) fn open(file: File, length: u64) -> Arc<OpenFile> {
        let ledger = Ledger::new(&Arc::default(), Owner::Connection, usize::MAX);
        let charge = ledger.charge(Kind::Files, 1).unwrap();
        Arc::new(OpenFile::new(
            Arc::new(MediaFile::new(file, length)),
            charge,
        ))
    }

    #[test]
    fn what_is_lent_is_known_by_its_address_and_nothing_else_is() {
        let memory = [0; 100];
        let (before, rest) = memory.split_at(10);
        let (bytes, after) = rest.split_at(50);
        let lent = Lent::new(bytes, open(tempfile::tempfile().unwrap(), 50), 1000);
        let first = |pieces: &[&[u8]]| {
            let pieces: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            match lent.next(&pieces) {
                Next::Memory { pieces, is_more } => Err((pieces.len(), is_more)),
                Next::File(range) => Ok((range.offset, range.length)),
            }
        };
        assert_eq!(first(&[bytes]), Ok((1000, 50)));
        assert_eq!(first(&[&bytes[7..], after]), Ok((1007, 43)));
        assert_eq!(first(&[before, bytes]), Err((1, true)));
        assert_eq!(first(&[before, after]), Err((2, false)));
        assert_eq!(first(&[&bytes[..0], bytes]), Err((1, true)));
        // What reaches beyond is another's memory.
        assert_eq!(first(&[&memory[10..61]]), Err((1, false)));
        assert_eq!(first(&[&memory[9..60]]), Err((1, false)));
    }
}
