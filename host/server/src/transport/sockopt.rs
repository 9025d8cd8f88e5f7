//! What the kernel keeps for a connection: set, and asked for. Only Linux tells; elsewhere the defaults stay.

use std::io;

pub(crate) use platform::{
    held_bytes, send, send_file, set_receive_bytes, set_send_window, unacknowledged_bytes,
};

/// The result of setting what TCP alone has: that a socket of another family does not know it is no error.
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
    use socket2::SockRef;
    use std::io;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    /// Bounds what the kernel keeps of what was sent and not yet acknowledged (`SO_SNDBUF`), and of that what it
    /// has not sent yet (`TCP_NOTSENT_LOWAT`, half of it).
    pub(crate) fn set_send_window(socket: &impl AsFd, kernel_bytes: usize) -> io::Result<()> {
        let socket = SockRef::from(socket);
        // The kernel doubles what it is given, for its own bookkeeping.
        socket.set_send_buffer_size(kernel_bytes / 2)?;
        let unsent = u32::try_from(kernel_bytes / 2).unwrap_or(u32::MAX);
        super::of_tcp(socket.set_tcp_notsent_lowat(unsent))
    }

    /// Sends what fits. The window is looked at for each call (`MSG_EOR`): else the kernel would fill up its last
    /// packet first, which on a fast network is 64 KiB long. Where there is more to come at once, it waits for that
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

    /// Sends what fits of a file, which the kernel takes out of its pages without a copy. What is not in memory is
    /// waited for, so the caller looks first.
    ///
    /// # Errors
    /// As the system's; [`io::ErrorKind::UnexpectedEof`] when the file has shrunk since it was opened.
    pub(crate) fn send_file(socket: &impl AsFd, range: &FileRange) -> io::Result<usize> {
        let FileRange {
            file,
            offset,
            length,
        } = range;
        match sendfile(socket, file.file(), Some(&mut offset.clone()), *length) {
            Ok(0) => Err(has_shrunk()),
            Ok(count) => Ok(count),
            // A file system that cannot do it.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => send_copy(socket, range),
            Err(error) => Err(error.into()),
        }
    }

    /// The same, by reading.
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
        const WMEM_ALLOC: usize = 2;
        const WMEM_QUEUED: usize = 5;
        let figures = crate::sys::socket_memory(socket)?;
        // TCP has a queue; a UNIX domain socket's bytes lie with its reader and count as allocated.
        let to_send = figures[WMEM_QUEUED].max(figures[WMEM_ALLOC]);
        Ok(figures[RMEM_ALLOC] as usize + to_send as usize)
    }

    /// What was sent and the client's system has not acknowledged yet, in bytes (`SIOCOUTQ`).
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
            // One packet more is taken than fits.
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

    /// No file is sent so here.
    pub(crate) fn send_file<S>(_socket: &S, _range: &FileRange) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
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
