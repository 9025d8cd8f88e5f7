//! The piece of a file that is on its way to the socket, which the kernel takes from the file itself (`sendfile`).
//!
//! hyper is given memory that stands for the piece and that nobody looks at, and hands it to the socket as it is. The
//! socket knows it by its address.

use bytes::Bytes;
use millpond::store::FileRange;
use std::io::IoSlice;
use std::sync::{Arc, LazyLock};

/// Most bytes of a file that are lent at a time: what is told of as sent when its client leaves may be as much too high.
pub(crate) const LENT_PIECE_BYTES: usize = 1024 * 1024;

/// Stands for whatever is lent: addresses, and no memory, since nobody touches it. A connection lends one piece at a time
/// and knows of no other's, so it may be the same for all.
static STAND_IN: LazyLock<&[u8]> =
    LazyLock::new(|| Box::leak(vec![0; LENT_PIECE_BYTES].into_boxed_slice()));

/// A range of a file that is being sent.
#[derive(Debug)]
pub(crate) struct Lent(FileRange);

/// What is to be sent next.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    /// Bytes in memory; `is_more` where those of a file follow.
    Memory {
        pieces: &'a [IoSlice<'a>],
        is_more: bool,
    },
    /// Bytes of a file.
    File(FileRange),
}

impl Lent {
    /// Lends that range. The bytes stand for it.
    pub(crate) fn new(mut range: FileRange) -> (Self, Bytes) {
        let stand_in = &STAND_IN[..range.length.min(STAND_IN.len())];
        range.length = stand_in.len();
        (Lent(range), Bytes::from_static(stand_in))
    }

    /// What comes first of these pieces.
    pub(crate) fn next<'a>(&self, pieces: &'a [IoSlice<'a>]) -> Next<'a> {
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
                file: Arc::clone(&self.0.file),
                offset: self.0.offset + skipped as u64,
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
        let skipped = piece
            .as_ptr()
            .addr()
            .checked_sub(STAND_IN.as_ptr().addr())?;
        let is_of_it = !piece.is_empty() && skipped.checked_add(piece.len())? <= self.0.length;
        is_of_it.then_some(skipped)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::panic, clippy::unwrap_used)]
    use super::*;
    use millpond::ledger::{Kind, Ledger, Owner};
    use millpond::store::OpenFile;
    use std::fs::File;

    pub(crate) fn open(file: File, length: u64) -> Arc<OpenFile> {
        let ledger = Ledger::new(&Arc::default(), Owner::Connection, usize::MAX);
        let charge = ledger.charge(Kind::Files, 1).unwrap();
        Arc::new(OpenFile::from_file(file, length, charge))
    }

    #[test]
    fn what_is_lent_is_known_by_its_address_and_nothing_else_is() {
        let (lent, bytes) = Lent::new(FileRange {
            file: open(tempfile::tempfile().unwrap(), 50),
            offset: 1000,
            length: 50,
        });
        let (before, after) = (&[0; 10][..], &[0; 40][..]);
        let first = |pieces: &[&[u8]]| {
            let pieces: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
            match lent.next(&pieces) {
                Next::Memory { pieces, is_more } => Err((pieces.len(), is_more)),
                Next::File(range) => Ok((range.offset, range.length)),
            }
        };
        assert_eq!(first(&[&bytes]), Ok((1000, 50)));
        assert_eq!(first(&[&bytes[7..], after]), Ok((1007, 43)));
        assert_eq!(first(&[before, &bytes]), Err((1, true)));
        assert_eq!(first(&[before, after]), Err((2, false)));
        assert_eq!(first(&[&bytes[..0], &bytes]), Err((1, true)));
        // What reaches beyond is none of it.
        assert_eq!(first(&[&STAND_IN[..51]]), Err((1, false)));
        assert_eq!(first(&[&STAND_IN[50..]]), Err((1, false)));
    }

    #[test]
    fn no_more_is_lent_than_there_is_something_to_stand_for() {
        let (lent, bytes) = Lent::new(FileRange {
            file: open(tempfile::tempfile().unwrap(), u64::MAX),
            offset: 0,
            length: usize::MAX,
        });
        assert_eq!(
            (lent.0.length, bytes.len()),
            (LENT_PIECE_BYTES, LENT_PIECE_BYTES)
        );
    }
}
