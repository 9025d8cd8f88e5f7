//! The unsafe code of this crate: system calls without a safe wrapper.

use std::io;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

#[cfg(target_os = "linux")]
pub(crate) use linux::{output_queue_bytes, socket_memory};

/// Receives available bytes behind those that the buffer has already, and returns their number.
///
/// # Errors
/// As `recv(2)`.
pub(crate) fn receive(stream: &TcpStream, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
    // SAFETY: the system only writes, so no initialized byte becomes uninitialized.
    let unfilled = unsafe { buffer.unfilled_mut() };
    let count = socket2::SockRef::from(stream).recv(unfilled)?;
    // SAFETY: the system has written `count` bytes there.
    unsafe { buffer.assume_init(count) };
    buffer.advance(count);
    Ok(count)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::mem::size_of_val;
    use std::os::fd::{AsFd, AsRawFd};

    /// Returns the values of `SO_MEMINFO`, indexed as in `linux/sock_diag.h`.
    ///
    /// # Errors
    /// As `getsockopt(2)`.
    pub(crate) fn socket_memory(socket: &impl AsFd) -> io::Result<[u32; 9]> {
        let mut figures = [0_u32; 9];
        let mut length = libc::socklen_t::try_from(size_of_val(&figures)).unwrap_or(0);
        // SAFETY: the descriptor is open while it is borrowed. The kernel writes at most `length` bytes, the size of
        // `figures`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                figures.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        match result {
            0 => Ok(figures),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Returns the number of bytes that were sent and are not acknowledged (`SIOCOUTQ`, tcp(7)).
    ///
    /// # Errors
    /// As `ioctl(2)`.
    pub(crate) fn output_queue_bytes(socket: &impl AsFd) -> io::Result<u64> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open while it is borrowed. The kernel writes one `int`, the type of `bytes`.
        let result = unsafe {
            // `TIOCOUTQ` is the same number as `SIOCOUTQ`.
            libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes)
        };
        match result {
            0 => Ok(u64::try_from(bytes).unwrap_or(0)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn what_has_come_is_behind_what_was_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        client.write_all(b"bc").await.unwrap();
        stream.readable().await.unwrap();
        let mut room = [0; 4];
        let mut buffer = ReadBuf::new(&mut room);
        buffer.put_slice(b"a");
        assert_eq!(receive(&stream, &mut buffer).unwrap(), 2);
        assert_eq!(buffer.filled(), b"abc");
    }
}
