//! What the kernel keeps for a connection: set, and asked for. Only Linux tells; elsewhere the defaults stay.

pub(crate) use platform::{held_bytes, is_of_lost_pages, send, set_receive_bytes, set_send_window};

use std::io;
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;

/// Reads what has come, behind what is in the buffer already: no bytes at the end of the stream.
///
/// Fewer than there is room for are all that there were: no further call is made to be told so, and the next bytes are
/// told of by the system.
///
/// # Errors
/// As the system's; [`io::ErrorKind::WouldBlock`] when nothing has come.
pub(crate) fn receive<'a>(stream: &TcpStream, buffer: &'a mut ReadBuf<'_>) -> io::Result<&'a [u8]> {
    let start = buffer.filled().len();
    let mut received = None;
    let read = stream.try_io(Interest::READABLE, || {
        // SAFETY: nothing that was initialized is made uninitialized by it: the system only writes.
        let unfilled = unsafe { buffer.unfilled_mut() };
        let room = unfilled.len();
        let count = socket2::SockRef::from(stream).recv(unfilled)?;
        received = Some(count);
        if (1..room).contains(&count) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    });
    match (received, read) {
        (Some(count), _) => {
            // SAFETY: the system has written so many bytes there.
            unsafe { buffer.assume_init(count) };
            buffer.advance(count);
            Ok(&buffer.filled()[start..])
        }
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(io::ErrorKind::WouldBlock.into()),
    }
}

#[cfg(target_os = "linux")]
mod platform {
    use socket2::SockRef;
    use std::io;
    use std::mem::size_of_val;
    use std::os::fd::{AsFd, AsRawFd};

    /// Bounds what the kernel keeps of what was sent and not yet acknowledged (`SO_SNDBUF`), and of that what it
    /// has not sent yet (`TCP_NOTSENT_LOWAT`, half of it).
    pub(crate) fn set_send_window(socket: &impl AsFd, kernel_bytes: usize) -> io::Result<()> {
        let socket = SockRef::from(socket);
        // The kernel doubles what it is given, for its own bookkeeping.
        socket.set_send_buffer_size(kernel_bytes / 2)?;
        socket.set_tcp_notsent_lowat(u32::try_from(kernel_bytes / 2).unwrap_or(u32::MAX))
    }

    /// Sends what fits. The window is looked at for each call (`MSG_EOR`): else the kernel would fill up its last
    /// packet first, which on a fast network is 64 KiB long.
    pub(crate) fn send(socket: &impl AsFd, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let flags = libc::MSG_EOR | libc::MSG_NOSIGNAL;
        SockRef::from(socket).send_vectored_with_flags(pieces, flags)
    }

    /// Whether the kernel could not send bytes because there are none where they are said to be (`EFAULT`): pages of a
    /// file that has shrunk.
    pub(crate) fn is_of_lost_pages(error: &io::Error) -> bool {
        error.raw_os_error() == Some(libc::EFAULT)
    }

    /// Bounds what the kernel keeps of what was received and not yet read (`SO_RCVBUF`). Connections inherit it of
    /// their listener.
    pub(crate) fn set_receive_bytes(socket: &impl AsFd, kernel_bytes: usize) -> io::Result<()> {
        SockRef::from(socket).set_recv_buffer_size(kernel_bytes / 2)
    }

    /// What the kernel holds for a socket now, in bytes: what was received and what is to be sent, with its own
    /// bookkeeping (`SO_MEMINFO`).
    pub(crate) fn held_bytes(socket: &impl AsFd) -> io::Result<usize> {
        /// Places in what `SO_MEMINFO` gives, of `linux/sock_diag.h`.
        const RMEM_ALLOC: usize = 0;
        const WMEM_QUEUED: usize = 5;
        let mut figures = [0_u32; 9];
        let mut length = libc::socklen_t::try_from(size_of_val(&figures)).unwrap_or(0);
        // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel writes no more than
        // `length` bytes, which is what `figures` has.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                figures.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(figures[RMEM_ALLOC] as usize + figures[WMEM_QUEUED] as usize)
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used)]
        use super::*;
        use std::net::{TcpListener, TcpStream};

        #[test]
        fn a_reader_that_takes_nothing_parks_no_more_than_the_window() {
            const WINDOW_BYTES: usize = 32 * 1024;
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (socket, _) = listener.accept().unwrap();
            set_send_window(&socket, WINDOW_BYTES).unwrap();
            socket.set_nonblocking(true).unwrap();
            while send(&socket, &[io::IoSlice::new(&[0; 1024])]).is_ok() {}
            let held = held_bytes(&socket).unwrap();
            // One packet more is taken than fits.
            assert!((1..2 * WINDOW_BYTES).contains(&held), "{held}");
            drop(reader);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use std::io;

    pub(crate) fn set_send_window<S>(_socket: &S, _kernel_bytes: usize) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn send(
        socket: &tokio::net::TcpStream,
        pieces: &[io::IoSlice<'_>],
    ) -> io::Result<usize> {
        socket2::SockRef::from(socket).send_vectored(pieces)
    }

    pub(crate) fn is_of_lost_pages(_error: &io::Error) -> bool {
        false
    }

    pub(crate) fn set_receive_bytes<S>(_socket: &S, _kernel_bytes: usize) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn held_bytes<S>(_socket: &S) -> io::Result<usize> {
        Ok(0)
    }
}
