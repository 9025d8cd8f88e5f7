//! A guest that misbehaves on request, so that each limit of the host can be seen to hold.
//!
//! `/hostile/<deed>` does the deed of that name. Any other target is a named file, served whole: the same component thus
//! serves the well-behaved requests beside it.

#[cfg(target_family = "wasm")]
mod component {
    #[allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::undocumented_unsafe_blocks
    )]
    mod bindings {
        wit_bindgen::generate!({
            path: "../../../wit",
            world: "media-guest",
            generate_all,
            with: {
                "wasi:io/error@0.2.12": ::wasi::io::error,
                "wasi:io/poll@0.2.12": ::wasi::io::poll,
                "wasi:io/streams@0.2.12": ::wasi::io::streams,
            },
        });
        use super::Component;
        export!(Component);
    }

    use bindings::exports::millpond::media::media_serve::{
        Guest, Part, Request, Response, StreamPart,
    };
    use bindings::millpond::media::media_store::{self, Key, Object};
    use bindings::millpond::media::settings;

    struct Component;

    impl Guest for Component {
        fn handle(request: Request) -> Response {
            match request.path_with_query.strip_prefix("/hostile/") {
                Some(deed) => misbehave(deed),
                None => serve(&request.path_with_query[1..]),
            }
        }
    }

    fn serve(name: &str) -> Response {
        let Some(object) = open(name) else {
            return response(404, Vec::new());
        };
        let length = object.info().length;
        response(200, vec![stream(&object, length)])
    }

    fn misbehave(deed: &str) -> Response {
        match deed {
            "memory-hog" => loop {
                // Seen by somebody, or else the compiler leaves it out.
                core::mem::forget(core::hint::black_box(vec![1_u8; 64 * 1024]));
            },
            "spinner" => loop {
                core::hint::black_box(());
            },
            "trap" => core::arch::wasm32::unreachable(),
            "stack" => {
                let status = 200 + exhaust_stack(0) % 2;
                response(status as u16, Vec::new())
            }
            // A string that the host would have to copy out of the instance.
            "endless-string" => {
                let mut response = response(200, Vec::new());
                let value = vec![b'a'; 512 * 1024];
                for _ in 0..100 {
                    // The same bytes many times: short in the guest, and endless for the host that lifts them.
                    let (pointer, length) = (value.as_ptr().cast_mut(), value.len());
                    // SAFETY: the instance ends before any of these is dropped.
                    let alias = unsafe { Vec::from_raw_parts(pointer, length, length) };
                    response.headers.push(("x-endless".to_owned(), alias));
                }
                core::mem::forget(value);
                response
            }
            "endless-key" => {
                let key = "a".repeat(256 * 1024);
                for _ in 0..10_000 {
                    let _ = media_store::open(&Key::Named(key.clone()));
                }
                response(200, Vec::new())
            }
            // Each lift is small; they add up.
            "small-lifts" => {
                for _ in 0..100_000 {
                    let _ = media_store::open(&Key::Content("0123456789abcdef".to_owned()));
                }
                response(200, Vec::new())
            }
            "many-fields" => {
                let mut response = response(200, Vec::new());
                response.headers = (0..10_000)
                    .map(|n| (format!("x-{n}"), b"a".to_vec()))
                    .collect();
                response
            }
            // A list that takes more than the guest may have, empty as its fields are.
            "hundred-thousand-fields" => {
                let mut response = response(200, Vec::new());
                response.headers = vec![(String::new(), Vec::new()); 100_000];
                response
            }
            "endless-parts" => {
                let parts = (0..100_000).map(|_| Part::Bytes(b"a".to_vec()));
                response(200, parts.collect())
            }
            // The host's own answers need room in the guest, which it has left none of.
            "growth-in-a-call" => {
                while core::arch::wasm32::memory_grow::<0>(1) != usize::MAX {}
                loop {
                    // The guest never frees the result of the call.
                    core::mem::forget(settings::get());
                }
            }
            "handle-hoarder" => {
                let mut hoard = Vec::new();
                loop {
                    match open("small.txt") {
                        Some(object) => hoard.push(object),
                        None => return response(404, Vec::new()),
                    }
                }
            }
            "stream-hoarder" => match open("small.txt") {
                Some(object) => {
                    let mut hoard = Vec::new();
                    loop {
                        match object.read(0, 1) {
                            Ok(stream) => hoard.push(stream),
                            Err(_) => return response(404, Vec::new()),
                        }
                    }
                }
                None => response(404, Vec::new()),
            },
            "many-parts" => match open("small.txt") {
                Some(object) => response(200, (0..200).map(|_| stream(&object, 1)).collect()),
                None => response(404, Vec::new()),
            },
            // The part promises more than its stream has.
            "lying-part" => match open("small.txt") {
                Some(object) => {
                    let mut part = stream(&object, 1);
                    if let Part::Stream(part) = &mut part {
                        part.length = 1_000_000;
                    }
                    response(200, vec![part])
                }
                None => response(404, Vec::new()),
            },
            // The head promises more than the parts have.
            "lying-length" => with(b"1000000", "content-length"),
            "length-is-no-number" => with(b"many", "content-length"),
            "connection-field" => with(b"chunked", "transfer-encoding"),
            "broken-field-value" => with(b"a\r\nx-injected: 1", "x-field"),
            "broken-field-name" => with(b"a", "x field"),
            "status-99" => response(99, Vec::new()),
            "status-101" => response(101, Vec::new()),
            "status-1000" => response(1000, Vec::new()),
            "reads-media" => match open("small.txt").map(|object| object.read(0, 5)) {
                Some(Ok(stream)) => {
                    let bytes = stream.blocking_read(5).unwrap_or_default();
                    response(200, vec![Part::Bytes(bytes)])
                }
                _ => response(404, Vec::new()),
            },
            // Bytes that were read before the handle is given away are not sent again.
            "reads-then-sends" => match open("small.txt").map(|object| object.read(0, 5)) {
                Some(Ok(source)) => {
                    let _ = source.blocking_read(2);
                    let part = StreamPart { source, length: 3 };
                    response(200, vec![Part::Stream(part)])
                }
                _ => response(404, Vec::new()),
            },
            _ => response(404, Vec::new()),
        }
    }

    fn open(name: &str) -> Option<Object> {
        media_store::open(&Key::Named(name.to_owned())).ok()
    }

    fn stream(object: &Object, length: u64) -> Part {
        match object.read(0, length) {
            Ok(source) => Part::Stream(StreamPart { source, length }),
            Err(_) => Part::Bytes(Vec::new()),
        }
    }

    fn response(status: u16, body: Vec<Part>) -> Response {
        Response {
            status_code: status,
            headers: Vec::new(),
            body,
            cacheability: None,
        }
    }

    fn with(value: &[u8], name: &str) -> Response {
        let mut response = response(200, vec![Part::Bytes(b"small".to_vec())]);
        response.headers.push((name.to_owned(), value.to_vec()));
        response
    }

    /// Recursion that no optimiser makes a loop of and that keeps nothing in linear memory.
    #[inline(never)]
    fn exhaust_stack(depth: u32) -> u32 {
        if depth == u32::MAX {
            return 0;
        }
        exhaust_stack(depth + 1).wrapping_mul(3) ^ depth
    }
}
