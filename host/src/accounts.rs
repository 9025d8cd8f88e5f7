//! How many of each thing that requests hold are alive, and how the ended ones ended.

use crate::record::End;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The accounts of one host. After its last request has ended, nothing is alive.
#[derive(Debug, Default)]
pub struct Accounts {
    stores: AtomicUsize,
    bodies: AtomicUsize,
    files: AtomicUsize,
    ended: [AtomicU64; End::ALL.len()],
    given_back: Notify,
}

/// What is counted while it is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A wasmtime store, and with it the instance of one request.
    Store,
    /// A response body that is not yet dropped.
    Body,
    /// An open file.
    File,
}

impl Accounts {
    /// Stores alive now, each with the instance of one request.
    #[must_use]
    pub fn stores(&self) -> usize {
        self.alive(Kind::Store).load(Ordering::Acquire)
    }

    /// Response bodies alive now.
    #[must_use]
    pub fn bodies(&self) -> usize {
        self.alive(Kind::Body).load(Ordering::Acquire)
    }

    /// Files open now.
    #[must_use]
    pub fn files(&self) -> usize {
        self.alive(Kind::File).load(Ordering::Acquire)
    }

    /// Requests that ended so.
    #[must_use]
    pub fn ended(&self, end: End) -> u64 {
        self.ended[end as usize].load(Ordering::Acquire)
    }

    /// Waits until nothing is alive.
    pub async fn idle(&self) {
        loop {
            let given_back = self.given_back.notified();
            if self.stores() + self.bodies() + self.files() == 0 {
                return;
            }
            given_back.await;
        }
    }

    /// Counts one more until the token is dropped.
    pub(crate) fn count(self: &Arc<Self>, kind: Kind) -> Token {
        self.alive(kind).fetch_add(1, Ordering::AcqRel);
        Token {
            accounts: Arc::clone(self),
            kind,
        }
    }

    /// Counts a request that ended.
    pub(crate) fn count_end(&self, end: End) {
        self.ended[end as usize].fetch_add(1, Ordering::AcqRel);
    }

    fn alive(&self, kind: Kind) -> &AtomicUsize {
        match kind {
            Kind::Store => &self.stores,
            Kind::Body => &self.bodies,
            Kind::File => &self.files,
        }
    }
}

/// One counted thing.
#[derive(Debug)]
pub(crate) struct Token {
    accounts: Arc<Accounts>,
    kind: Kind,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.accounts
            .alive(self.kind)
            .fetch_sub(1, Ordering::AcqRel);
        self.accounts.given_back.notify_waiters();
    }
}
