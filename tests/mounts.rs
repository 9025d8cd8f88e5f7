//! Media on file systems that no longer answer: each is one of FUSE that the test itself serves, and that hangs on command.

use crate::client::{Response, request};
use crate::host::{Host, Setup, noise, with};
use crate::server::{Server, exchange};
use fuser::{
    BackgroundSession, FileAttr, FileType, Filesystem, MountOption, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, Request,
};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime};

/// Calls that the file system can be told to hang in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Lookup,
    GetAttr,
    Open,
    Read,
    Flush,
}

/// A mounted file system with the files `large.bin` and `small.bin`. It is released and unmounted when it is dropped.
struct Mounted {
    gate: Arc<Gate>,
    path: PathBuf,
    session: Option<BackgroundSession>,
}

/// Keeps the answers to calls that hang.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    came: Condvar,
}

#[derive(Default)]
struct State {
    hangs: Option<Call>,
    kept: Vec<Box<dyn FnOnce() + Send>>,
}

impl Gate {
    /// Answers now, or when the gate is opened.
    fn pass(&self, call: Call, answer: impl FnOnce() + Send + 'static) {
        let mut state = self.state.lock().unwrap();
        if state.hangs != Some(call) {
            drop(state);
            return answer();
        }
        state.kept.push(Box::new(answer));
        self.came.notify_all();
    }

    fn hang(&self, call: Call) {
        self.state.lock().unwrap().hangs = Some(call);
    }

    /// Whether something hangs now.
    fn hangs(&self) -> bool {
        !self.state.lock().unwrap().kept.is_empty()
    }

    fn wait_until_something_hangs(&self) {
        let state = self.state.lock().unwrap();
        let waited = self.came.wait_while(state, |state| state.kept.is_empty());
        drop(waited.unwrap());
    }

    fn open(&self) {
        let mut state = self.state.lock().unwrap();
        state.hangs = None;
        let kept = std::mem::take(&mut state.kept);
        drop(state);
        kept.into_iter().for_each(|answer| answer());
    }
}

impl Mounted {
    /// Mounts one; `None`, with a word, where this machine does not let us.
    fn at(path: &Path) -> Option<Self> {
        let gate = Arc::default();
        let files = Files {
            gate: Arc::clone(&gate),
            large: noise(LARGE_BYTES),
        };
        let options = [MountOption::RO, MountOption::FSName("millpond-test".into())];
        match fuser::spawn_mount2(files, path, &options) {
            Ok(session) => Some(Mounted {
                gate,
                path: path.to_owned(),
                session: Some(session),
            }),
            Err(error) => {
                eprintln!("skipped: no file system can be mounted through FUSE: {error}");
                None
            }
        }
    }

    /// From now on this call hangs. A server with blocked threads would hang the test too, so the call returns after a
    /// minute nevertheless, which the test detects.
    fn hang(&self, call: Call) {
        self.gate.hang(call);
        let gate = Arc::downgrade(&self.gate);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(60));
            if let Some(gate) = gate.upgrade() {
                gate.open();
            }
        });
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.gate.open();
        // Also while files are open.
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
        drop(self.session.take());
    }
}

const LARGE_BYTES: usize = 600_000;
const SMALL: &[u8] = b"twelve bytes";

struct Files {
    gate: Arc<Gate>,
    large: Vec<u8>,
}

impl Files {
    fn attributes(&self, inode: u64) -> Option<FileAttr> {
        let (kind, size) = match inode {
            1 => (FileType::Directory, 0),
            2 => (FileType::RegularFile, self.large.len()),
            3 => (FileType::RegularFile, SMALL.len()),
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size: size as u64,
            blocks: 1,
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: SystemTime::UNIX_EPOCH,
            kind,
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

/// For so long the kernel may know an answer: everything is asked each time.
const KNOWN: Duration = Duration::ZERO;

impl Filesystem for Files {
    fn lookup(&mut self, _: &Request<'_>, _: u64, name: &OsStr, reply: ReplyEntry) {
        let inode = match name.to_str() {
            Some("large.bin") => 2,
            Some("small.bin") => 3,
            _ => 0,
        };
        let found = self.attributes(inode);
        self.gate.pass(Call::Lookup, move || match found {
            Some(found) => reply.entry(&KNOWN, &found, 0),
            None => reply.error(libc::ENOENT),
        });
    }

    fn getattr(&mut self, _: &Request<'_>, inode: u64, reply: ReplyAttr) {
        let found = self.attributes(inode);
        self.gate.pass(Call::GetAttr, move || match found {
            Some(found) => reply.attr(&KNOWN, &found),
            None => reply.error(libc::ENOENT),
        });
    }

    fn open(&mut self, _: &Request<'_>, _: u64, _: i32, reply: ReplyOpen) {
        self.gate.pass(Call::Open, move || reply.opened(0, 0));
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        inode: u64,
        _: u64,
        offset: i64,
        size: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyData,
    ) {
        let all = if inode == 2 { &self.large[..] } else { SMALL };
        let start = usize::try_from(offset).unwrap().min(all.len());
        let end = (start + size as usize).min(all.len());
        let bytes = all[start..end].to_vec();
        self.gate.pass(Call::Read, move || reply.data(&bytes));
    }

    fn flush(&mut self, _: &Request<'_>, _: u64, _: u64, _: u64, reply: ReplyEmpty) {
        self.gate.pass(Call::Flush, move || reply.ok());
    }

    fn readdir(&mut self, _: &Request<'_>, _: u64, _: u64, _: i64, reply: ReplyDirectory) {
        reply.ok();
    }
}

fn quick_to_give_up() -> Setup {
    with(|setup: &mut Setup| setup.limits.wall = Duration::from_secs(1))
}

/// Two requests for files of a mount that hung took both threads of a server: all waited for as long as it hung.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_mount_that_hung_stopped_everything() {
    let host = Host::start_with(quick_to_give_up()).await;
    host.write("local.bin", &noise(100_000));
    let remote = host.folder.path().join("remote");
    fs::create_dir(&remote).unwrap();
    symlink("remote/large.bin", host.folder.path().join("link.bin")).unwrap();
    let Some(mounted) = Mounted::at(&remote) else {
        return;
    };
    assert_eq!(host.get("/media/link.bin").await.body, noise(LARGE_BYTES));
    for call in [
        Call::Lookup,
        Call::GetAttr,
        Call::Open,
        Call::Read,
        Call::Flush,
    ] {
        let small = host.get("/media/remote/small.bin").await;
        assert_eq!((small.status, &small.body[..]), (200, SMALL), "{call:?}");
        mounted.hang(call);
        let (address, targets) = (
            host.address,
            ["remote/small.bin", "remote/large.bin", "link.bin"],
        );
        let asking: Vec<_> = (0..60)
            .map(|turn| {
                let target = format!("/media/{}?{turn}", targets[turn % targets.len()]);
                tokio::spawn(async move { request(address, "GET", &target, &[]).await })
            })
            .collect();
        mounted.gate.wait_until_something_hangs();

        // The file that is kept open, and ones that nobody has asked for.
        for turn in 0..20 {
            host.write(&format!("{call:?}{turn}.bin"), &noise(turn * 1000));
            let local = host.get("/media/local.bin").await;
            assert_eq!((local.status, local.body.len()), (200, 100_000));
            let new = host.get(&format!("/media/{call:?}{turn}.bin")).await;
            assert_eq!((new.status, new.body.len()), (200, turn * 1000));
        }
        assert_eq!(host.get("/media/nothing.bin").await.status, 404);
        assert!(mounted.gate.hangs(), "{call:?}: the others waited for it");

        for asked in asking {
            // Bodies whose head was sent end with the client's patience.
            if call == Call::Read || call == Call::Flush {
                asked.abort();
                continue;
            }
            assert_unavailable(&asked.await.unwrap());
        }
        assert!(mounted.gate.hangs(), "{call:?}: it was waited for");
        mounted.gate.open();
        while host.get("/media/remote/small.bin").await.status != 200 {}
        let large = host.get("/media/remote/large.bin").await;
        assert!(large.body == noise(LARGE_BYTES), "{call:?}");
        host.registry().idle().await;
    }
}

fn assert_unavailable(answer: &Response) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.field("retry-after"), Some("1"));
    assert!(matches!(
        &*answer.error(),
        "Store is busy" | "Request took too long"
    ));
}

/// Other mounts beside one that hangs are asked, each on threads of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_beside_one_that_hangs_goes_on() {
    let host = Host::start_with(quick_to_give_up()).await;
    let [first, second, memory] = ["first", "second", "memory"].map(|name| {
        let path = host.folder.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    });
    let Some(hung) = Mounted::at(&first) else {
        return;
    };
    let _other = Mounted::at(&second).unwrap();
    let of_memory = Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(&memory)
        .status();
    assert!(of_memory.unwrap().success());
    let _unmount = Unmount(memory.clone());
    fs::write(memory.join("large.bin"), noise(LARGE_BYTES)).unwrap();
    hung.hang(Call::Open);
    let address = host.address;
    let asking: Vec<_> = (0..40)
        .map(|turn| {
            let target = format!("/media/first/large.bin?{turn}");
            tokio::spawn(async move { request(address, "GET", &target, &[]).await })
        })
        .collect();
    hung.gate.wait_until_something_hangs();
    for name in ["second", "memory"] {
        let range = [("range", "bytes=7-")];
        let rest = host
            .request("GET", &format!("/media/{name}/large.bin"), &range)
            .await;
        assert_eq!(rest.status, 206, "{name}");
        assert!(rest.body == noise(LARGE_BYTES)[7..], "{name}");
    }
    assert!(hung.gate.hangs());
    for asked in asking {
        assert_unavailable(&asked.await.unwrap());
    }
}

/// The folder itself hung: even the admin's listener waited.
#[test]
fn a_folder_that_hangs_is_told_of_and_hangs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let server: Server;
    let Some(mounted) = Mounted::at(folder.path()) else {
        return;
    };
    server = Server::start(folder.path(), &["--admin", "127.0.0.1:0"]);
    assert_eq!(server.answer("/media/small.bin"), (200, SMALL.to_vec()));
    let says = |path: &str| String::from_utf8(exchange(&server.admin, path)).unwrap();
    assert!(says("/readyz").starts_with("HTTP/1.1 200"));
    mounted.hang(Call::GetAttr);
    mounted.gate.wait_until_something_hangs();
    loop {
        assert!(says("/healthz").starts_with("HTTP/1.1 200"));
        assert_eq!(server.answer("/elsewhere").0, 404);
        let ready = says("/readyz");
        if ready.starts_with("HTTP/1.1 503") {
            assert!(ready.contains("does not answer"), "{ready}");
            break;
        }
    }
    assert_eq!(server.answer("/media/small.bin").0, 503);
    assert!(mounted.gate.hangs());
    mounted.gate.open();
    while server.answer("/media/small.bin") != (200, SMALL.to_vec()) {}
    while !says("/readyz").starts_with("HTTP/1.1 200") {}
}

/// Unmounts at its end, whatever is open.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
