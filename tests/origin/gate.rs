//! A gate that a test opens, byte by byte.

use tokio::sync::watch;

/// Holds back the bytes of responses until the test lets them pass. Clones are the same gate.
#[derive(Clone)]
pub(crate) struct Gate {
    /// Number of bytes that may pass in each response.
    allowed: watch::Sender<u64>,
}

impl Gate {
    /// A gate that lets nothing pass.
    pub(crate) fn new() -> Self {
        Gate {
            allowed: watch::Sender::new(0),
        }
    }

    /// Lets so many bytes of each response pass, counted from its first.
    pub(crate) fn allow(&self, bytes: u64) {
        self.allowed.send_replace(bytes);
    }

    /// Lets everything pass.
    pub(crate) fn open(&self) {
        self.allow(u64::MAX);
    }

    /// Waits until more than so many bytes may pass, and returns the number that may.
    pub(crate) async fn wait_beyond(&self, passed: u64) -> u64 {
        let mut allowed = self.allowed.subscribe();
        // The sender is `self`, so the channel is open.
        *allowed.wait_for(|allowed| *allowed > passed).await.unwrap()
    }
}
