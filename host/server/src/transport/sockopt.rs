//! Socket options and buffer sizes of the kernel. Only Linux reports sizes; other systems keep their defaults.

use std::io;

pub(crate) use platform::{
    held_bytes, send, send_file, set_receive_bytes, set_send_window, turn_away,
    unacknowledged_bytes,
};

/// Ignores the error of setting an option of TCP on a socket of another family.
pub(crate) fn of_tcp(set: io::Result<()>) -> io::Result<()> {
    #[cfg(unix)]
    if let Err(error) = &set {
        let unknown = rustix::io::Errno::OPNOTSUPP;
        if error.raw_os_error() == Some(unknown.raw_os_error()) {
            return Ok(());
        }
    }
    set
}

#[cfg(target_os = "linux")]
mod platform {
    use millpond::store::{FileRange, has_shrunk};
    use rustix::fs::sendfile;
    use rustix::io::Errno;
    use socket2::{SockFilter, SockRef};
    use std::io;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    /// Bounds the send buffer of the kernel: sent bytes that are not acknowledged (`SO_SNDBUF`). Half of them may be
    /// unsent (`TCP_NOTSENT_LOWAT`).
    pub(crate) fn set_send_window(socket: &impl AsFd, kernel_bytes: usize) -> io::Result<()> {
        let socket = SockRef::from(socket);
        // The kernel doubles the value, for its own bookkeeping.
        socket.set_send_buffer_size(kernel_bytes / 2)?;
        let unsent = u32::try_from(kernel_bytes / 2).unwrap_or(u32::MAX);
        super::of_tcp(socket.set_tcp_notsent_lowat(unsent))
    }

    /// Has a listening socket with `SO_REUSEPORT` drop new connection requests. Their clients repeat them, and the kernel
    /// then finds another socket of the port. Returns false for a socket without the option.
    pub(crate) fn turn_away(listener: &impl AsFd) -> io::Result<bool> {
        /// Offset of the flags in the header of TCP (RFC 9293 section 3.1).
        const FLAGS: u32 = 13;
        const SYN: u32 = 0x02;
        const ACK: u32 = 0x10;
        let listener = SockRef::from(listener);
        if !listener.reuse_port()? {
            return Ok(false);
        }
        // Classic BPF, which sees a packet from its header of TCP on (socket(7), `SO_ATTACH_FILTER`).
        let [load, and, equal, return_] = [
            libc::BPF_LD | libc::BPF_B | libc::BPF_ABS,
            libc::BPF_ALU | libc::BPF_AND | libc::BPF_K,
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            libc::BPF_RET | libc::BPF_K,
        ]
        .map(|code| code as u16);
        listener.attach_filter(&[
            SockFilter::new(load, 0, 0, FLAGS),
            SockFilter::new(and, 0, 0, SYN | ACK),
            // The packet begins a connection, and is dropped.
            SockFilter::new(equal, 0, 1, SYN),
            SockFilter::new(return_, 0, 0, 0),
            SockFilter::new(return_, 0, 0, u32::MAX),
        ])?;
        Ok(true)
    }

    /// Sends as many bytes as fit. With `MSG_EOR`, the kernel checks the window at each call. Otherwise it first fills
    /// its last packet, which has 64 KiB on a fast network. With `is_more`, the kernel waits for the next bytes
    /// (`MSG_MORE`).
    pub(crate) fn send(
        socket: &impl AsFd,
        pieces: &[io::IoSlice<'_>],
        is_more: bool,
    ) -> io::Result<usize> {
        let ends = if is_more {
            libc::MSG_MORE
        } else {
            libc::MSG_EOR
        };
        SockRef::from(socket).send_vectored_with_flags(pieces, ends | libc::MSG_NOSIGNAL)
    }

    /// Sends as many bytes of a file as fit, from the page cache without a copy (`sendfile(2)`). The call blocks on
    /// pages that are not in memory, so the caller checks first.
    ///
    /// # Errors
    /// As `sendfile(2)`; [`io::ErrorKind::UnexpectedEof`] when the file has shrunk since it was opened.
    pub(crate) fn send_file(socket: &impl AsFd, range: &FileRange) -> io::Result<usize> {
        let FileRange {
            file,
            offset,
            length,
        } = range;
        match sendfile(socket, file.file(), Some(&mut offset.clone()), *length) {
            Ok(0) => Err(has_shrunk()),
            Ok(count) => Ok(count),
            // A file system without `sendfile(2)`.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => send_copy(socket, range),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends bytes of a file by reading them into a buffer.
    fn send_copy(socket: &impl AsFd, range: &FileRange) -> io::Result<usize> {
        let mut buffer = [0; 8 * 1024];
        let wanted = buffer.len().min(range.length);
        match range
            .file
            .file()
            .read_at(&mut buffer[..wanted], range.offset)?
        {
            0 => Err(has_shrunk()),
            count => send(socket, &[io::IoSlice::new(&buffer[..count])], false),
        }
    }

    /// Bounds the receive buffer of the kernel (`SO_RCVBUF`). Connections inherit it from their listener.
    pub(crate) fn set_receive_bytes(socket: &impl AsFd, kernel_bytes: usize) -> io::Result<()> {
        SockRef::from(socket).set_recv_buffer_size(kernel_bytes / 2)
    }

    /// Returns the kernel memory of a socket, in bytes: receive and send buffers with their bookkeeping (`SO_MEMINFO`).
    pub(crate) fn held_bytes(socket: &impl AsFd) -> io::Result<usize> {
        /// Indexes of the values of `SO_MEMINFO` (`linux/sock_diag.h`).
        const RMEM_ALLOC: usize = 0;
        const WMEM_ALLOC: usize = 2;
        const WMEM_QUEUED: usize = 5;
        let figures = crate::sys::socket_memory(socket)?;
        // TCP counts its queue. Bytes of a UNIX domain socket are queued at its reader, and count as allocated.
        let to_send = figures[WMEM_QUEUED].max(figures[WMEM_ALLOC]);
        Ok(figures[RMEM_ALLOC] as usize + to_send as usize)
    }

    /// Returns the bytes that were sent and that the client's system has not acknowledged (`SIOCOUTQ`).
    pub(crate) fn unacknowledged_bytes(socket: &impl AsFd) -> io::Result<u64> {
        crate::sys::output_queue_bytes(socket)
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used)]
        use super::*;
        use millpond::ledger::{Kind, Ledger, Owner};
        use millpond::store::OpenFile;
        use std::fs::File;
        use std::io::{Read, Write};
        use std::net::{TcpListener, TcpStream};
        use std::sync::Arc;

        fn open(file: File, length: u64) -> Arc<OpenFile> {
            let ledger = Ledger::new(&Arc::default(), Owner::Connection, usize::MAX);
            let charge = ledger.charge(Kind::Files, 1).unwrap();
            Arc::new(OpenFile::from_file(file, length, charge))
        }

        #[test]
        fn a_reader_that_takes_nothing_parks_no_more_than_the_window() {
            const WINDOW_BYTES: usize = 32 * 1024;
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (socket, _) = listener.accept().unwrap();
            set_send_window(&socket, WINDOW_BYTES).unwrap();
            socket.set_nonblocking(true).unwrap();
            while send(&socket, &[io::IoSlice::new(&[0; 1024])], false).is_ok() {}
            let held = held_bytes(&socket).unwrap();
            // The kernel takes one packet beyond the limit.
            assert!((1..2 * WINDOW_BYTES).contains(&held), "{held}");
            let unacknowledged = unacknowledged_bytes(&socket).unwrap();
            assert!(
                (1..=held as u64).contains(&unacknowledged),
                "{unacknowledged}"
            );
            drop(reader);
        }

        type Send = fn(&TcpStream, &FileRange) -> io::Result<usize>;
        const WAYS: [Send; 2] = [
            |to, range| send_file(to, range),
            |to, range| send_copy(to, range),
        ];

        #[test]
        fn a_file_is_sent_from_its_place_and_one_that_shrinks_is_an_error() {
            for send in WAYS {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let mut reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (socket, _) = listener.accept().unwrap();
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(b"0123456789").unwrap();
                let mut range = FileRange {
                    file: open(file.try_clone().unwrap(), 10),
                    offset: 3,
                    length: 5,
                };
                assert_eq!(send(&socket, &range).unwrap(), 5);
                let mut received = [0; 5];
                reader.read_exact(&mut received).unwrap();
                assert_eq!(&received, b"34567");
                file.set_len(6).unwrap();
                assert_eq!(send(&socket, &range).unwrap(), 3);
                range.offset = 6;
                let error = send(&socket, &range).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use millpond::store::FileRange;
    use std::io;

    pub(crate) fn set_send_window<S>(_socket: &S, _kernel_bytes: usize) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn send(
        socket: &tokio::net::TcpStream,
        pieces: &[io::IoSlice<'_>],
        _is_more: bool,
    ) -> io::Result<usize> {
        socket2::SockRef::from(socket).send_vectored(pieces)
    }

    /// Unsupported: the caller reads the file instead.
    pub(crate) fn send_file<S>(_socket: &S, _range: &FileRange) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn turn_away<S>(_listener: &S) -> io::Result<bool> {
        Ok(false)
    }

    pub(crate) fn set_receive_bytes<S>(_socket: &S, _kernel_bytes: usize) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn held_bytes<S>(_socket: &S) -> io::Result<usize> {
        Ok(0)
    }

    pub(crate) fn unacknowledged_bytes<S>(_socket: &S) -> io::Result<u64> {
        Ok(0)
    }
}
