//! Any bytes on a connection: the host responds or closes the connection, and does not fail. After a head that two readers
//! could understand differently it accepts no further request.
//!
//! The whole host runs, over a socket, with the embedded component. A valid request with `Connection: close` follows the
//! bytes. There is thus always an end, and a request that could be smuggled.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::store::Folder;
use millpond::{Config, Limits, Millpond, Outcome, Source};
use millpond_server::{ConnectionLimits, Server};
use std::net::SocketAddr;
use std::sync::LazyLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const GOOD: &[u8] = b"GET /media/good.txt HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

/// With it, a connection of HTTP/2 begins (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

static HOST: LazyLock<Host> = LazyLock::new(Host::start);

fuzz_target!(|bytes: &[u8]| {
    let sent = [bytes, GOOD].concat();
    let received = HOST.exchange(&sent);
    let registry = HOST.millpond.registry();
    assert_eq!(
        registry.ended_requests(Outcome::Failed),
        0,
        "the component failed"
    );
    if sent.starts_with(PREFACE) {
        // The response is in HTTP/2, or there is none.
        return;
    }
    let heads = Heads::read(&sent);
    let answers = answers(&received, &heads.methods);
    // One to each sound head, and one to the first that is not.
    let most = heads.methods.len() + usize::from(heads.unsound.is_some());
    assert!(answers.len() <= most, "{answers:?} where {most} may be");
    if let (Some(Unsound::Ambiguous), Some(status)) =
        (heads.unsound, answers.get(heads.methods.len()))
    {
        assert!(*status >= 400, "{status} to a head that is ambiguous");
    }
});

/// A host in this process. Its tasks run on this thread, while an exchange waits for them.
struct Host {
    runtime: Runtime,
    address: SocketAddr,
    millpond: Millpond,
    _folder: tempfile::TempDir,
}

impl Host {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        for name in ["a.txt", "good.txt"] {
            std::fs::write(folder.path().join(name), name).expect("the folder can be written");
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let _entered = runtime.enter();
        let media = Folder::open(folder.path()).expect("the folder can be opened");
        let source = Source::embedded();
        let millpond = Millpond::new(&source, media, &Config::default(), Limits::default())
            .expect("the embedded component can be served from");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.set_nonblocking(true).expect("a socket can wait");
        let listener = TcpListener::from_std(listener).expect("the runtime takes a socket");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let server = Server::new(millpond.clone());
        runtime.spawn(async move {
            let (limits, stop) = (ConnectionLimits::default(), CancellationToken::new());
            server.serve(listener, limits, stop).await;
        });
        drop(_entered);
        Host {
            runtime,
            address,
            millpond,
            _folder: folder,
        }
    }

    /// Sends those bytes on a connection of their own, and gives back what comes until its end.
    fn exchange(&self, sent: &[u8]) -> Vec<u8> {
        self.runtime.block_on(async {
            let stream = TcpStream::connect(self.address).await;
            let mut stream = stream.expect("the host listens");
            // Else a port is taken for a minute after each input, and there are not so many.
            stream.set_zero_linger().expect("a socket has options");
            let (mut reader, mut writer) = stream.split();
            let mut received = Vec::new();
            let write = async {
                writer.write_all(sent).await?;
                // A frame may be left unfinished, and then nothing else says that there is no more.
                match sent.starts_with(PREFACE) {
                    true => writer.shutdown().await,
                    false => Ok(()),
                }
            };
            let (written, read) = tokio::join!(write, reader.read_to_end(&mut received));
            if !sent.starts_with(PREFACE) {
                written.expect("what is sent is taken, or thrown away");
                read.expect("the end is a clean one");
            }
            received
        })
    }
}

/// Requests that a strict parser of RFC 9112 finds in the bytes.
struct Heads {
    /// The methods of the requests whose ends are beyond doubt, up to the first of which that is not so.
    methods: Vec<String>,
    /// The head that follows those.
    unsound: Option<Unsound>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unsound {
    /// A head that two readers may understand differently.
    Ambiguous,
    /// A head that announces content, or none at all.
    Last,
}

impl Heads {
    fn read(sent: &[u8]) -> Self {
        let mut methods = Vec::new();
        let mut rest = sent;
        loop {
            while let Some(after) = rest.strip_prefix(b"\r\n") {
                rest = after;
            }
            let Some(end) = find(rest, b"\r\n\r\n") else {
                let unsound = (!rest.is_empty()).then_some(Unsound::Last);
                return Heads { methods, unsound };
            };
            let (head, after) = rest.split_at(end + 4);
            if let Err(unsound) = check(head) {
                let unsound = Some(unsound);
                return Heads { methods, unsound };
            }
            // The line may have a method only.
            let method = head.split(|byte| b" \r\n".contains(byte)).next();
            methods.push(String::from_utf8_lossy(method.unwrap_or_default()).into_owned());
            rest = after;
        }
    }
}

fn check(head: &[u8]) -> Result<(), Unsound> {
    let text = String::from_utf8_lossy(head);
    let lines: Vec<&str> = text.split("\r\n").collect();
    if lines.iter().any(|line| line.contains(['\r', '\n'])) {
        return Err(Unsound::Ambiguous);
    }
    let values = |name: &str| -> Vec<&str> {
        let fields = lines.iter().skip(1).filter_map(|line| line.split_once(':'));
        fields
            .filter(|(field, _)| field.trim().eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    };
    let lengths = values("content-length");
    let has_coding = !values("transfer-encoding").is_empty();
    if has_coding && !lengths.is_empty() || lengths.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(Unsound::Ambiguous);
    }
    let is_zero = |length: &&str| length.bytes().all(|digit| digit == b'0');
    if has_coding || !lengths.iter().all(is_zero) {
        return Err(Unsound::Last);
    }
    Ok(())
}

/// The statuses of the answers, each of which has to be a whole one.
fn answers(received: &[u8], methods: &[String]) -> Vec<u16> {
    let mut statuses = Vec::new();
    let mut rest = received;
    while !rest.is_empty() {
        let end = find(rest, b"\r\n\r\n").expect("an answer has a head");
        let head = std::str::from_utf8(&rest[..end]).expect("a head is text");
        rest = &rest[end + 4..];
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
        let status: u16 = status.expect("a head has a status");
        assert!(head.starts_with("HTTP/1."), "{head}");
        assert!((200..600).contains(&status), "{head}");
        let is_head = methods.get(statuses.len()).is_some_and(|m| m == "HEAD");
        statuses.push(status);
        let length = head.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            (name == "content-length").then(|| value.parse::<usize>())
        });
        let length = match (length, status) {
            (None, 204 | 304) => 0,
            (None, _) => panic!("no length: {head}"),
            (Some(length), _) => length.expect("a length is a number"),
        };
        if statuses.len() > methods.len() {
            // It may be an answer to a `HEAD`, and is the last.
            assert!(rest.is_empty() || rest.len() == length, "{head}");
            break;
        }
        if !is_head {
            assert!(rest.len() >= length, "a short body: {head}");
            rest = &rest[length..];
        }
    }
    statuses
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
