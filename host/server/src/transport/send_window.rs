//! How much may lie between a file and its reader, in user space and in the kernel, by how the reader drains it.
//!
//! A reader that takes nothing parks whatever the window holds, so the window begins small. One that takes much in
//! a short time is given a larger one while the budget has room, since a small window costs a fast download half
//! of its speed; and one that then stops is put back to the smallest.

use std::time::{Duration, Instant};

/// A window's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// Bytes read of a file at a time, and held until the socket has taken them.
    pub(crate) chunk_bytes: usize,
    /// Bytes that the kernel may hold of what was sent and not yet acknowledged (`SO_SNDBUF` as it counts).
    pub(crate) kernel_bytes: usize,
}

impl Window {
    /// The window of that level, beginning with the smallest; the largest beyond.
    pub(crate) fn at_level(level: usize) -> Self {
        WINDOWS[level.min(WINDOWS.len() - 1)]
    }

    /// Both together, in bytes.
    pub(crate) const fn bytes(self) -> usize {
        self.chunk_bytes + self.kernel_bytes
    }
}

/// The window that every answer has room for.
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

/// What a reader has to take for the next larger window: this many times its window's kernel bytes, within
/// [`PROBE_INTERVAL`].
const PROBE_WINDOWS: usize = 16;

/// See [`PROBE_WINDOWS`]. With both, 256 KiB a second earn the second window and 2 MiB a second the third,
/// also over a line with some delay. 256 KiB are more than a client's system takes in before its
/// reader has read anything.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// A reader that takes nothing for so long is put back to the smallest window.
const PAUSE: Duration = Duration::from_millis(500);

/// Follows one connection's reader.
#[derive(Debug)]
pub(crate) struct WindowController {
    level: usize,
    taken_bytes: usize,
    probe_since: Option<Instant>,
    blocked_since: Option<Instant>,
}

/// What to do about a reader's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WindowChange {
    /// Leave it.
    Stay,
    /// It has earned the next larger one.
    Grow(Window),
    /// It has paused: the smallest one.
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

    /// The window's place among all, beginning with the smallest.
    pub(crate) fn level(&self) -> usize {
        self.level
    }

    /// The socket took so many bytes.
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

    /// The socket took nothing, and says when it will.
    pub(crate) fn on_blocked(&mut self, now: impl Fn() -> Instant) {
        self.blocked_since.get_or_insert_with(now);
    }

    /// The window is the next larger one from now on.
    pub(crate) fn on_grown(&mut self) {
        self.level = (self.level + 1).min(WINDOWS.len() - 1);
    }

    /// The window is the smallest one from now on.
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
