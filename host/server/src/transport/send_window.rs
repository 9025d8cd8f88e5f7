//! The send window: bytes between a file and its reader, in user space and in the kernel.
//!
//! A stalled reader occupies its whole window, so the window starts small. A fast reader gets a larger window while the
//! budget has room, since a small window halves the speed of a fast download. A reader that then stalls gets the
//! smallest window again.

use std::time::{Duration, Instant};

/// The size of a send window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// Bytes that are read from a file at a time, and held until the socket has taken them.
    pub(crate) chunk_bytes: usize,
    /// Bytes that the kernel may hold for sent data that is not acknowledged (`SO_SNDBUF` as it counts).
    pub(crate) kernel_bytes: usize,
}

impl Window {
    /// The window of a level. Zero is the smallest, and levels beyond the largest get the largest.
    pub(crate) fn at_level(level: usize) -> Self {
        WINDOWS[level.min(WINDOWS.len() - 1)]
    }

    /// The sum of both, in bytes.
    pub(crate) const fn bytes(self) -> usize {
        self.chunk_bytes + self.kernel_bytes
    }
}

/// The window that every response has room for.
pub(crate) const MIN_WINDOW: Window = WINDOWS[0];

const WINDOWS: [Window; 3] = [
    Window {
        chunk_bytes: 12 * 1024,
        kernel_bytes: 16 * 1024,
    },
    Window {
        chunk_bytes: 64 * 1024,
        kernel_bytes: 128 * 1024,
    },
    Window {
        chunk_bytes: 256 * 1024,
        kernel_bytes: 400 * 1024,
    },
];

/// Bytes that a reader has to take for the next larger window, in multiples of its window's kernel bytes. It has to
/// take them within [`PROBE_INTERVAL`].
const PROBE_WINDOWS: usize = 16;

/// The interval for [`PROBE_WINDOWS`]. A reader earns the second window at 256 KiB a second and the third at 2 MiB,
/// also on a line with some delay. 256 KiB exceed the receive buffer of a client whose reader has not read yet.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Pause after which a reader gets the smallest window again.
const PAUSE: Duration = Duration::from_millis(500);

/// Chooses the send window of one connection.
#[derive(Debug)]
pub(crate) struct WindowController {
    level: usize,
    taken_bytes: usize,
    probe_since: Option<Instant>,
    blocked_since: Option<Instant>,
}

/// A change of a reader's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WindowChange {
    /// The window stays.
    Stay,
    /// The reader has earned the next larger window.
    Grow(Window),
    /// The reader has paused, and gets the smallest window.
    Shrink,
}

impl WindowController {
    pub(crate) fn new() -> Self {
        WindowController {
            level: 0,
            taken_bytes: 0,
            probe_since: None,
            blocked_since: None,
        }
    }

    pub(crate) fn window(&self) -> Window {
        Window::at_level(self.level)
    }

    /// The level of the window. Zero is the smallest.
    pub(crate) fn level(&self) -> usize {
        self.level
    }

    /// Records that the socket took bytes, and returns the change of the window.
    pub(crate) fn on_sent(&mut self, bytes: usize, now: impl Fn() -> Instant) -> WindowChange {
        let paused = match self.blocked_since.take() {
            Some(since) => now().duration_since(since) >= PAUSE,
            None => false,
        };
        if paused {
            self.probe_since = None;
            self.taken_bytes = 0;
            return if self.level > 0 {
                WindowChange::Shrink
            } else {
                WindowChange::Stay
            };
        }
        let Some(next) = WINDOWS.get(self.level + 1) else {
            return WindowChange::Stay;
        };
        let since = *self.probe_since.get_or_insert_with(&now);
        self.taken_bytes += bytes;
        if self.taken_bytes < PROBE_WINDOWS * self.window().kernel_bytes {
            return WindowChange::Stay;
        }
        self.probe_since = None;
        self.taken_bytes = 0;
        if now().duration_since(since) <= PROBE_INTERVAL {
            WindowChange::Grow(*next)
        } else {
            WindowChange::Stay
        }
    }

    /// Records that the socket would block.
    pub(crate) fn on_blocked(&mut self, now: impl Fn() -> Instant) {
        self.blocked_since.get_or_insert_with(now);
    }

    /// Records that the window has grown by one level.
    pub(crate) fn on_grown(&mut self) {
        self.level = (self.level + 1).min(WINDOWS.len() - 1);
    }

    /// Records that the window is the smallest.
    pub(crate) fn on_shrunk(&mut self) {
        self.level = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_reader_earns_larger_windows_and_loses_them_by_a_pause() {
        let start = Instant::now();
        let mut controller = WindowController::new();
        let mut grown = Vec::new();
        for _ in 0..200 {
            if let WindowChange::Grow(window) = controller.on_sent(16 * 1024, || start) {
                grown.push(window);
                controller.on_grown();
            }
        }
        assert_eq!(grown, WINDOWS[1..]);
        assert_eq!(controller.window(), WINDOWS[2]);
        controller.on_blocked(|| start);
        controller.on_blocked(|| start + PAUSE);
        assert_eq!(
            controller.on_sent(1, || start + PAUSE),
            WindowChange::Shrink
        );
        controller.on_shrunk();
        assert_eq!(controller.window(), MIN_WINDOW);
    }

    #[test]
    fn a_slow_reader_never_earns_one() {
        let start = Instant::now();
        let mut controller = WindowController::new();
        for second in 0..1000 {
            let now = || start + Duration::from_secs(second);
            assert_eq!(controller.on_sent(8 * 1024, now), WindowChange::Stay);
            controller.on_blocked(now);
        }
    }
}
