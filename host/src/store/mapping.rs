//! Pages of a file as memory, so that the kernel copies them to a socket and nobody copies them before.
//!
//! A file that shrinks takes its pages along: whoever then touches them is sent `SIGBUS`, and the kernel, when it is
//! given them to send, answers with `EFAULT`. So they are made for the kernel alone.

use bytes::Bytes;

pub(crate) use platform::Mapping;

impl Mapping {
    /// All but the first `skipped` of its bytes. They are there to be sent, and not to be looked at.
    pub(crate) fn into_bytes(self, skipped: usize) -> Bytes {
        Bytes::from_owner(self).slice(skipped..)
    }
}

#[cfg(target_os = "linux")]
mod platform {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    use std::ffi::c_void;
    use std::fs::File;
    use std::ptr::NonNull;

    /// Pages of a file, mapped for as long as this lives.
    #[derive(Debug)]
    pub(crate) struct Mapping {
        start: NonNull<c_void>,
        length: usize,
    }

    impl Mapping {
        /// Maps that part of a file, of which `offset` is where a page begins; `None` where it cannot be mapped.
        pub(crate) fn new(file: &File, offset: u64, length: usize) -> Option<Self> {
            // SAFETY: the kernel chooses a place that nothing else has, since no address is asked for.
            let mapped = unsafe {
                mmap(
                    std::ptr::null_mut(),
                    length,
                    ProtFlags::READ,
                    MapFlags::SHARED,
                    file,
                    offset,
                )
            };
            let start = NonNull::new(mapped.ok()?)?;
            Some(Mapping { start, length })
        }
    }

    impl AsRef<[u8]> for Mapping {
        fn as_ref(&self) -> &[u8] {
            // SAFETY: so many bytes are mapped from there on, readable, until `self` is dropped. Others may write to
            // the file meanwhile or cut it short; what is made of this is given to the kernel and never read here
            // (`a_file_that_shrinks_while_it_is_sent_is_an_error_and_no_signal`).
            unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length) }
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: it was mapped by `new` with this length, and whoever borrowed of it is gone.
            let unmapped = unsafe { munmap(self.start.as_ptr(), self.length) };
            debug_assert!(unmapped.is_ok(), "{unmapped:?}");
        }
    }

    // SAFETY: it is memory that nobody writes to through it.
    unsafe impl Send for Mapping {}
    // SAFETY: as above.
    unsafe impl Sync for Mapping {}
}

/// Elsewhere bodies are read.
#[cfg(not(target_os = "linux"))]
mod platform {
    use std::fs::File;

    #[derive(Debug)]
    pub(crate) enum Mapping {}

    impl Mapping {
        pub(crate) fn new(_file: &File, _offset: u64, _length: usize) -> Option<Self> {
            None
        }
    }

    impl AsRef<[u8]> for Mapping {
        fn as_ref(&self) -> &[u8] {
            match *self {}
        }
    }
}
