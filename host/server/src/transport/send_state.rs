//! Memory of a connection that follows its traffic: the send window, the kernel's buffers, and large records of TLS.
//!
//! The connection's socket owns it, so nothing of it is locked.

use crate::transport::connection::Connection;
use crate::transport::send_window::{MIN_WINDOW, Window, WindowChange, WindowController};
use crate::transport::sockopt;
use millpond::ledger::{Charge, Kind, LedgerHandle, Reservation};
use millpond::memory_plan::RECEIVE_BYTES;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::Context;
use std::time::{Duration, Instant};
use tokio::time::{Sleep, sleep};

/// Memory that TLS takes for a connection, in bytes: its send buffer, its keys and state, and a buffer for a record of
/// 4 KiB. A test measures that it is less.
pub(crate) const TLS_BYTES: usize = 40 * 1024;

/// Maximum bytes that come encrypted and give no plaintext: one record of 16 KiB, with something over. A handshake is
/// smaller; a larger one is made to fill buffers.
pub(crate) const TLS_UNREAD_BYTES: usize = 24 * 1024;

/// Memory that a large record takes until its plaintext has been read, in bytes: as it came, and deciphered.
pub(crate) const TLS_RECORD_BYTES: usize = TLS_UNREAD_BYTES + 24 * 1024;

/// Time for which a large window is kept for the next response on its connection: a page's requests come closer together.
const WINDOW_REST: Duration = Duration::from_secs(1);

/// The send window of one connection, with the memory for it.
#[derive(Debug)]
pub(crate) struct SendState {
    controller: WindowController,
    /// Kernel memory of both ways, on the connection's ledger or on that of the response being sent.
    kernel: Charge,
    /// The ledger of the response being sent.
    response: Option<LedgerHandle>,
    /// Memory that a larger window takes beyond the smallest, which is part of every response's own reservation.
    reservation: Option<Reservation>,
    /// Runs while a larger window is not in use.
    rest: Option<Pin<Box<Sleep>>>,
    /// Bytes that came encrypted, where the connection is.
    ciphertext: Option<Ciphertext>,
}

/// Bytes that have come encrypted and given no plaintext yet.
#[derive(Debug, Default)]
struct Ciphertext {
    bytes: usize,
    /// Room for a record that is larger than the buffer that a connection keeps.
    large_record: Option<(Reservation, Charge)>,
}

impl SendState {
    /// The state of a new connection, whose window is the smallest.
    ///
    /// # Errors
    /// Never, as things are: a connection's ledger has no limit.
    pub(crate) fn new(connection: &Connection) -> io::Result<Self> {
        let kernel = connection.ledger.charge(Kind::Socket, RECEIVE_BYTES);
        Ok(SendState {
            controller: WindowController::new(),
            kernel: kernel.map_err(io::Error::other)?,
            response: None,
            reservation: None,
            rest: None,
            ciphertext: None,
        })
    }

    /// The connection is encrypted from now on.
    pub(crate) fn expect_ciphertext(&mut self) {
        self.ciphertext = Some(Ciphertext::default());
    }

    /// A response begins, and has the kernel's part on its ledger until it ends.
    pub(crate) fn begin_response(&mut self, ledger: LedgerHandle, connection: &Connection) {
        self.charge_to(&ledger, connection);
        self.response = Some(ledger);
        // The window is in use, and rests anew after the response.
        self.rest = None;
    }

    /// The response has ended, even if a part of it is still held. The kernel's part is the connection's again.
    pub(crate) fn end_response(&mut self, connection: &Connection) {
        if let Some(ledger) = self.response.take() {
            self.charge_to(&connection.ledger.handle(), connection);
            ledger.end();
        }
    }

    /// Charges the kernel's part to that ledger. Where it has no room for the window that the last response left, the window
    /// shrinks. Bytes of that window that the kernel still holds stay reserved until they have gone.
    pub(crate) fn charge_to(&mut self, ledger: &LedgerHandle, connection: &Connection) {
        let bytes = RECEIVE_BYTES + self.window().kernel_bytes;
        match ledger.charge(Kind::Socket, bytes) {
            Ok(charge) => self.kernel = charge,
            Err(_) => self.shrink(connection),
        }
    }

    /// The send window.
    pub(crate) fn window(&self) -> Window {
        self.controller.window()
    }

    /// The socket took so many bytes.
    pub(crate) fn on_sent(&mut self, bytes: usize, connection: &Connection) {
        match self.controller.on_sent(bytes, Instant::now) {
            WindowChange::Stay => {
                let is_smallest = self.window() == MIN_WINDOW;
                // Of the bytes that a larger window left, the kernel has sent all but those that fit the smallest.
                if self.reservation.is_some()
                    && is_smallest
                    && connection.kernel_bytes() <= MIN_WINDOW.kernel_bytes
                {
                    self.reservation = None;
                    self.publish(connection);
                }
            }
            WindowChange::Grow(window) => self.grow(window, connection),
            WindowChange::Shrink => self.shrink(connection),
        }
    }

    /// The socket took nothing, and says when it will.
    pub(crate) fn on_blocked(&mut self) {
        self.controller.on_blocked(Instant::now);
    }

    /// Grows the window, if the budget and the response's own limit have room for it.
    fn grow(&mut self, window: Window, connection: &Connection) {
        let beyond = window.bytes() - MIN_WINDOW.bytes();
        let have = self.reservation.as_ref().map_or(0, Reservation::bytes);
        let more = beyond.saturating_sub(have);
        let Some(more) = connection.budget.try_reserve_opportunistic(more) else {
            return;
        };
        let kernel_bytes = RECEIVE_BYTES + window.kernel_bytes;
        if self.kernel.resize(kernel_bytes).is_err() {
            return;
        }
        match &mut self.reservation {
            Some(reservation) => reservation.merge(more),
            None => self.reservation = Some(more),
        }
        // A socket that is gone says so at the next write.
        if sockopt::set_send_window(&connection.stream, window.kernel_bytes).is_ok() {
            self.controller.on_grown();
        }
        self.publish(connection);
    }

    /// Puts the window back to the smallest. Memory that was reserved for the larger one stays so until the kernel has sent
    /// what it holds: [`SendState::poll_rest`].
    fn shrink(&mut self, connection: &Connection) {
        let _ = sockopt::set_send_window(&connection.stream, MIN_WINDOW.kernel_bytes);
        self.controller.on_shrunk();
        // Less is never too much.
        let _ = self.kernel.resize(RECEIVE_BYTES + MIN_WINDOW.kernel_bytes);
        self.publish(connection);
    }

    fn publish(&self, connection: &Connection) {
        connection.set_window(self.controller.level(), self.reservation.is_some());
    }

    /// Gives a larger window back once no response has used it for [`WINDOW_REST`]. It is polled while the connection waits
    /// for bytes; `is_in_use` says that a response is in progress all the same. The reader may earn the window again.
    pub(crate) fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
        is_in_use: bool,
        connection: &Connection,
    ) {
        if self.reservation.is_none() || is_in_use {
            self.rest = None;
            return;
        }
        loop {
            let rest = self
                .rest
                .get_or_insert_with(|| Box::pin(sleep(WINDOW_REST)));
            if rest.as_mut().poll(cx).is_pending() {
                return;
            }
            self.rest = None;
            if connection.kernel_bytes() < MIN_WINDOW.kernel_bytes {
                self.reservation = None;
                self.shrink(connection);
                return;
            }
        }
    }

    /// Takes bytes that came into account.
    ///
    /// # Errors
    /// When they are encrypted and give no plaintext, or there is no room for a large record.
    pub(crate) fn on_received(&mut self, bytes: usize, connection: &Connection) -> io::Result<()> {
        /// A record that fits into what a connection keeps anyway.
        const SMALL_RECORD_BYTES: usize = 4 * 1024;
        let Some(ciphertext) = &mut self.ciphertext else {
            return Ok(());
        };
        ciphertext.bytes += bytes;
        if ciphertext.bytes > TLS_UNREAD_BYTES {
            return Err(io::Error::other("encrypted bytes give no plaintext"));
        }
        if ciphertext.bytes > SMALL_RECORD_BYTES && ciphertext.large_record.is_none() {
            let room = connection.try_reserve(TLS_RECORD_BYTES);
            ciphertext.large_record = Some(room.ok_or_else(|| {
                let message = "there is no room for a large TLS record";
                io::Error::new(io::ErrorKind::OutOfMemory, message)
            })?);
        }
        Ok(())
    }

    /// Encrypted bytes have given plaintext.
    pub(crate) fn on_plaintext(&mut self) {
        if let Some(ciphertext) = &mut self.ciphertext {
            *ciphertext = Ciphertext::default();
        }
    }
}

impl Drop for SendState {
    fn drop(&mut self) {
        if let Some(ledger) = &self.response {
            ledger.end();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::incoming::Listeners;
    use crate::limits::LiveLimits;
    use millpond::ledger::{Budget, LedgerRegistry};
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::task::Poll;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::advance;

    async fn is_reserved(state: &mut SendState, connection: &Connection) -> bool {
        poll_fn(|cx| {
            state.poll_rest(cx, false, connection);
            Poll::Ready(state.reservation.is_some())
        })
        .await
    }

    /// Once, the time before a response counted too, and a window was given back as soon as the response had ended.
    #[tokio::test(start_paused = true)]
    async fn a_window_rests_anew_after_each_response() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let incoming = Listeners::from(listener).accept().await.unwrap();
        let registry: Arc<LedgerRegistry> = Arc::default();
        let budget = Arc::new(Budget::new(8 << 20));
        let connection = Connection::open(
            incoming,
            &LiveLimits::default(),
            &registry,
            &budget,
            &Arc::default(),
        )
        .unwrap();
        let mut state = SendState::new(&connection).unwrap();
        state.grow(Window::at_level(1), &connection);
        assert!(is_reserved(&mut state, &connection).await);
        advance(WINDOW_REST / 2).await;
        assert!(is_reserved(&mut state, &connection).await);
        state.begin_response(connection.ledger.handle(), &connection);
        advance(WINDOW_REST).await;
        state.end_response(&connection);
        assert!(is_reserved(&mut state, &connection).await);
        advance(WINDOW_REST / 2).await;
        assert!(is_reserved(&mut state, &connection).await);
        advance(WINDOW_REST).await;
        assert!(!is_reserved(&mut state, &connection).await);
    }
}
