//! The clients: how each kind of them sends its request, reads the answer, and goes.

use crate::replay::load::{Get, Manner};
use crate::replay::tally::{Done, End};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, header};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{error::Elapsed, sleep, timeout};

/// How long any answer may take; whatever is not whole then has failed.
const LONGEST_REQUEST: Duration = Duration::from_secs(30);

/// After how long a slow reader gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that a slow reader reads in a second.
const SLOW_BYTES_A_SECOND: usize = 16 * 1024;

/// Receive buffer of a slow reader. The kernel doubles it, and the window is about half of that.
const SLOW_RECEIVE_BUFFER: u32 = 8 * 1024;

/// Receive buffer of a client that will leave. Over loopback the kernel's default buffer would take a whole file before the
/// client has read its first chunk. Over a network it takes no more than the path holds.
const LEAVER_RECEIVE_BUFFER: u32 = 64 * 1024;

/// How often an id that was not found is asked for again, and after what pause.
pub(crate) const RETRIES: usize = 2;
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Maximum length of a head. Heads are read in chunks of that size, so a client that leaves after fewer body bytes may have
/// read a few more.
const HEAD_BYTES: usize = 1024;

/// All clients of one server. Those that take everything share kept-alive connections, as the browsers of a
/// page do; those that leave take one each.
pub(crate) struct Clients {
    address: SocketAddr,
    pooled: legacy::Client<HttpConnector, Empty<Bytes>>,
}

impl Clients {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Clients {
            address,
            pooled: legacy::Client::builder(TokioExecutor::new()).build(connector),
        }
    }

    /// Sends a planned GET and tells how it ended: once, or once for each time that it was sent again.
    pub(crate) async fn send(&self, get: Get) -> Vec<Done> {
        let mut done = Done {
            status: None,
            bytes: 0,
            end: End::Whole,
        };
        let target = get.target.as_str();
        match get.manner {
            Manner::Whole => self.whole(target, None, &mut done).await,
            Manner::Range { first, last } => {
                let range = format!("bytes={first}-{last}");
                self.whole(target, Some(range), &mut done).await;
            }
            Manner::Retry => return self.retry(target).await,
            Manner::Leave { after } => {
                let ended = timeout(LONGEST_REQUEST, self.leave(target, after, &mut done)).await;
                done.end = end(ended, too_long());
            }
            Manner::Slow => {
                let ended = timeout(PATIENCE, self.slow(target, &mut done)).await;
                done.end = end(ended, End::GaveUp);
            }
        }
        vec![done]
    }

    async fn retry(&self, target: &str) -> Vec<Done> {
        let mut all = Vec::new();
        for attempt in 0..=RETRIES {
            if attempt > 0 {
                sleep(RETRY_PAUSE).await;
            }
            let mut done = Done {
                status: None,
                bytes: 0,
                end: End::Whole,
            };
            self.whole(target, None, &mut done).await;
            let not_found = done.status == Some(StatusCode::NOT_FOUND.as_u16());
            all.push(done);
            if !not_found {
                break;
            }
        }
        all
    }

    async fn whole(&self, target: &str, range: Option<String>, done: &mut Done) {
        let ended = timeout(LONGEST_REQUEST, self.take(target, range, done)).await;
        done.end = end(ended, too_long());
    }

    async fn take(&self, target: &str, range: Option<String>, done: &mut Done) -> Result<End> {
        let mut request = Request::get(format!("http://{}{target}", self.address));
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        let response = self.pooled.request(request.body(Empty::new())?).await?;
        done.status = Some(response.status().as_u16());
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => done.bytes += frame.data_ref().map_or(0, Bytes::len) as u64,
                Err(_) => return Ok(End::CutShort),
            }
        }
        Ok(End::Whole)
    }

    async fn leave(&self, target: &str, after: u64, done: &mut Done) -> Result<End> {
        let (mut stream, length) = self.open(target, LEAVER_RECEIVE_BUFFER, done).await?;
        let mut piece = [0; 16 * 1024];
        while done.bytes < after.min(length) {
            let most = piece.len();
            let left = usize::try_from(after - done.bytes).map_or(most, |left| left.min(most));
            match stream.read(&mut piece[..left]).await {
                Ok(0) | Err(_) => return Ok(End::CutShort),
                Ok(count) => done.bytes += count as u64,
            }
        }
        // Dropped with bytes that nobody read, the connection is reset: what a closed tab does.
        Ok(End::Left)
    }

    async fn slow(&self, target: &str, done: &mut Done) -> Result<End> {
        let (mut stream, length) = self.open(target, SLOW_RECEIVE_BUFFER, done).await?;
        let mut piece = [0; SLOW_BYTES_A_SECOND];
        while done.bytes < length {
            let mut left = piece.len();
            while left > 0 && done.bytes < length {
                match stream.read(&mut piece[..left]).await {
                    Ok(0) | Err(_) => return Ok(End::CutShort),
                    Ok(count) => {
                        left -= count;
                        done.bytes += count as u64;
                    }
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
        Ok(End::Whole)
    }

    /// Sends a GET on a connection of its own, and reads the head of the answer and what came with it. The
    /// body's length comes back.
    async fn open(
        &self,
        target: &str,
        receive_buffer: u32,
        done: &mut Done,
    ) -> Result<(TcpStream, u64)> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(receive_buffer)?;
        let mut stream = socket.connect(self.address).await?;
        let head = format!("GET {target} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        stream.write_all(head.as_bytes()).await?;
        let mut came = Vec::with_capacity(2 * HEAD_BYTES);
        let head = loop {
            if let Some(head) = parse_head(&came)? {
                break head;
            }
            let mut piece = [0; HEAD_BYTES];
            let count = stream.read(&mut piece).await?;
            if count == 0 || came.len() > 8 * HEAD_BYTES {
                bail!("no head came");
            }
            came.extend_from_slice(&piece[..count]);
        };
        done.status = Some(head.status);
        done.bytes = (came.len() - head.length) as u64;
        Ok((stream, head.body_length))
    }
}

/// Parts of a response's head that a client here needs.
#[derive(Debug, PartialEq)]
struct Head {
    status: u16,
    /// Its own length.
    length: usize,
    body_length: u64,
}

/// Reads the head of an answer; `None` while it is not whole.
fn parse_head(came: &[u8]) -> Result<Option<Head>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = response.parse(came)? else {
        return Ok(None);
    };
    let body_length = response
        .headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("content-length"))
        .context("an answer without a length")?;
    Ok(Some(Head {
        status: response.code.context("an answer without a status")?,
        length,
        body_length: str::from_utf8(body_length.value)?.parse()?,
    }))
}

fn end(ended: Result<Result<End>, Elapsed>, at_limit: End) -> End {
    match ended {
        Ok(Ok(end)) => end,
        Ok(Err(error)) => End::Failed(format!("{error:#}")),
        Err(_) => at_limit,
    }
}

fn too_long() -> End {
    End::Failed(format!("no end within {} s", LONGEST_REQUEST.as_secs()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::net::TcpListener;

    const PATH: &str = "/api/media/x";

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
        assert_eq!(parse_head(&head[..20]).unwrap(), None);
        let mut came = head.to_vec();
        came.extend_from_slice(b"body");
        let expected = Head {
            status: 200,
            length: head.len(),
            body_length: 1000,
        };
        assert_eq!(parse_head(&came).unwrap(), Some(expected));
        assert!(parse_head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse_head(b"nonsense\r\n\r\n").is_err());
    }

    /// A server that gives each connection the same bytes, and then closes it.
    async fn server_of(answer: Vec<u8>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for _ in 0..8 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answer = answer.clone();
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(&answer).await;
                });
            }
        });
        address
    }

    fn answer(status: &str, promised: usize, sent: usize) -> Vec<u8> {
        let mut answer =
            format!("HTTP/1.1 {status}\r\ncontent-length: {promised}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + sent, b'x');
        answer
    }

    async fn send(answer: Vec<u8>, manner: Manner) -> Vec<Done> {
        let clients = Clients::new(server_of(answer).await);
        let get = Get {
            at: Duration::ZERO,
            target: PATH.to_owned(),
            manner,
        };
        clients.send(get).await
    }

    #[tokio::test]
    async fn a_client_that_takes_everything_tells_whole_from_cut_short() {
        for (sent, end) in [(5000, End::Whole), (4000, End::CutShort)] {
            let done = send(answer("200 OK", 5000, sent), Manner::Whole).await;
            let expected = Done {
                status: Some(200),
                bytes: sent as u64,
                end,
            };
            assert_eq!(done, [expected]);
        }
    }

    #[tokio::test]
    async fn a_client_leaves_where_it_was_told_to() {
        let after = 150_000;
        let done = send(answer("200 OK", 300_000, 300_000), Manner::Leave { after }).await;
        assert_eq!((done[0].bytes, &done[0].end), (after, &End::Left));
        let done = send(answer("200 OK", 300_000, 10), Manner::Leave { after }).await;
        assert_eq!((done[0].bytes, &done[0].end), (10, &End::CutShort));
    }

    #[tokio::test]
    async fn what_is_not_found_is_asked_for_again() {
        let done = send(answer("404 Not Found", 2, 2), Manner::Retry).await;
        assert_eq!(done.len(), 1 + RETRIES);
        assert!(done.iter().all(|done| done.status == Some(404)), "{done:?}");
        let done = send(answer("200 OK", 2, 2), Manner::Retry).await;
        assert_eq!(done.len(), 1);
    }

    #[tokio::test]
    async fn a_slow_reader_reads_the_end_of_what_is_short() {
        let done = send(answer("200 OK", 20_000, 20_000), Manner::Slow).await;
        assert_eq!((done[0].bytes, &done[0].end), (20_000, &End::Whole));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_a_failure() {
        let clients = Clients::new(SocketAddr::from(([127, 0, 0, 1], 1)));
        for manner in [Manner::Whole, Manner::Leave { after: 1 }, Manner::Slow] {
            let get = Get {
                at: Duration::ZERO,
                target: PATH.to_owned(),
                manner,
            };
            let done = clients.send(get).await;
            assert!(matches!(
                &done[..],
                [Done {
                    status: None,
                    end: End::Failed(_),
                    ..
                }]
            ));
        }
    }
}
