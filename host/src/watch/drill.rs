//! Leaks on purpose, so that it can be seen that the watch names them.

use crate::ledger::{Kind, Ledger};
use std::sync::{Mutex, PoisonError};

/// A way to leak, once for each answer.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leak {
    /// A charge whose token is forgotten.
    Token,
    /// A body that is kept beyond its end.
    Body,
    /// A buffer that grows beside every ledger.
    Buffer,
}

/// Bytes leaked for each answer.
const LEAKED_BYTES: usize = 16 * 1024;

impl Leak {
    /// Leaks for the request of that ledger what is not the body's to leak.
    pub(crate) fn of(self, ledger: &Ledger) {
        static BESIDE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
        match self {
            Leak::Token => std::mem::forget(ledger.charge(Kind::Buffers, LEAKED_BYTES)),
            Leak::Body => {}
            Leak::Buffer => BESIDE
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(vec![7; LEAKED_BYTES]),
        }
    }
}
