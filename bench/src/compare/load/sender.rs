//! `send`: a program of its own that sends requests on time, and tells how long each answer took.
//!
//! A request that is due while every connection is busy waits, and its latency counts from the time when it was due. A
//! pause of the server therefore delays all requests that were due in it, not only those in flight (no coordinated
//! omission). The sender polls the clock and the sockets, so it takes a core.

use super::answers::Answers;
use super::schedule::Schedule;
use super::{Latency, Outcome};
use anyhow::{Context, Result, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write, stdin, stdout};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Sends the requests of a plan in JSON that is read from standard input, and writes the outcome in JSON.
#[derive(Debug, Args)]
pub(crate) struct Send {}

/// Plan of a load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    /// Requests a second; none where the next goes as soon as a connection is free.
    pub(crate) rate: Option<f64>,
    /// Requests in all.
    pub(crate) requests: u64,
    /// After so many seconds nothing more is sent.
    pub(crate) seconds: f64,
    pub(crate) method: String,
    /// Targets of the requests, in turn.
    pub(crate) targets: Vec<String>,
    /// Further field lines of each request.
    pub(crate) fields: Vec<(String, String)>,
}

impl Plan {
    /// The head of a request.
    pub(crate) fn head(&self, target: &str) -> Vec<u8> {
        let mut head = format!(
            "{} {target} HTTP/1.1\r\nHost: {}\r\n",
            self.method, self.address
        );
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        head.into_bytes()
    }
}

impl Send {
    pub(crate) fn run(self) -> Result<()> {
        let plan: Plan = serde_json::from_reader(stdin().lock())?;
        let outcome = send(&plan)?;
        serde_json::to_writer(stdout().lock(), &outcome)?;
        Ok(())
    }
}

/// How long answers are waited for after the last request was sent.
const DRAIN: Duration = Duration::from_secs(10);

/// Bytes that are read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Latencies are told to three digits, up to ten minutes.
const LONGEST: Duration = Duration::from_secs(600);
const DIGITS: u8 = 3;

pub(crate) fn send(plan: &Plan) -> Result<Outcome> {
    ensure!(!plan.targets.is_empty(), "nothing to ask for");
    let heads: Vec<Vec<u8>> = plan
        .targets
        .iter()
        .map(|target| plan.head(target))
        .collect();
    let mut sender = Sender::connect(plan)?;
    let schedule = Schedule {
        rate: plan.rate,
        requests: plan.requests,
    };
    let no_more_after = Duration::from_secs_f64(plan.seconds);
    let mut events = Events::with_capacity(plan.connections);
    let started = Instant::now();
    let (mut sent, mut last_answer) = (0u64, Duration::ZERO);
    loop {
        let now = started.elapsed();
        if now > no_more_after + DRAIN {
            break;
        }
        while now <= no_more_after
            && !sender.idle.is_empty()
            && let Some(due) = schedule.due(sent, now)
            && due <= now
        {
            sender.start(due, &heads[(sent % heads.len() as u64) as usize])?;
            sent += 1;
        }
        if sender.is_idle() && (now > no_more_after || schedule.due(sent, now).is_none()) {
            break;
        }
        sender.poll.poll(&mut events, Some(Duration::ZERO))?;
        for event in &events {
            if sender.advance(event.token(), started)? {
                last_answer = started.elapsed();
            }
        }
    }
    sender.outcome.seconds = last_answer.as_secs_f64();
    // Requests that were due and could not be sent in time had no response either.
    let due_in_time = plan.rate.map_or(sent, |rate| {
        ((rate * plan.seconds) as u64).min(plan.requests)
    });
    sender.outcome.failed += sender.under_way() + due_in_time.saturating_sub(sent);
    sender.outcome.latency = (sender.outcome.answers > 0).then(|| latency(&sender.latencies));
    Ok(sender.outcome)
}

fn latency(latencies: &Histogram<u64>) -> Latency {
    let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1e3;
    Latency {
        p50: microseconds(latencies.value_at_quantile(0.5)),
        p99: microseconds(latencies.value_at_quantile(0.99)),
        p999: microseconds(latencies.value_at_quantile(0.999)),
        most: microseconds(latencies.max()),
    }
}

/// All connections and what came of them.
struct Sender {
    poll: Poll,
    address: SocketAddr,
    heads_only: bool,
    connections: Vec<Connection>,
    /// Those that wait for a request, the longest waiting first, so that all are used.
    idle: VecDeque<usize>,
    latencies: Histogram<u64>,
    outcome: Outcome,
    piece: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    answers: Answers,
    /// When its request was due, from the start.
    due: Option<Duration>,
}

impl Sender {
    fn connect(plan: &Plan) -> Result<Self> {
        let mut sender = Sender {
            poll: Poll::new()?,
            address: plan.address,
            heads_only: plan.method == "HEAD",
            connections: Vec::new(),
            idle: VecDeque::new(),
            latencies: Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, DIGITS)?,
            outcome: Outcome::default(),
            piece: vec![0; PIECE_BYTES],
        };
        for number in 0..plan.connections {
            let connection = sender.open(number)?;
            sender.connections.push(connection);
            sender.idle.push_back(number);
        }
        Ok(sender)
    }

    fn open(&self, number: usize) -> Result<Connection> {
        let stream = std::net::TcpStream::connect(self.address).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll
            .registry()
            .register(&mut stream, Token(number), Interest::READABLE)?;
        Ok(Connection {
            stream,
            answers: Answers::new(self.heads_only),
            due: None,
        })
    }

    fn is_idle(&self) -> bool {
        self.idle.len() == self.connections.len()
    }

    fn under_way(&self) -> u64 {
        (self.connections.len() - self.idle.len()) as u64
    }

    /// Sends a request on an idle connection. A head is far smaller than what a socket takes, so it goes whole or not
    /// at all.
    fn start(&mut self, due: Duration, head: &[u8]) -> Result<()> {
        let Some(number) = self.idle.pop_front() else {
            return Ok(());
        };
        let connection = &mut self.connections[number];
        match connection.stream.write(head) {
            Ok(written) if written == head.len() => connection.due = Some(due),
            _ => self.fail(number)?,
        }
        Ok(())
    }

    /// Reads what there is, and tells whether an answer is whole by it.
    fn advance(&mut self, Token(number): Token, started: Instant) -> Result<bool> {
        let mut any = false;
        loop {
            let connection = &mut self.connections[number];
            let count = match connection.stream.read(&mut self.piece) {
                Ok(0) => 0,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(any),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            if count == 0 {
                self.lost(number)?;
                return Ok(any);
            }
            self.outcome.bytes += count as u64;
            let taken = match connection.due {
                Some(due) => connection
                    .answers
                    .take(&self.piece[..count])
                    .map(|status| (due, status)),
                None => Err(anyhow::anyhow!("an answer that nobody asked for")),
            };
            match taken {
                Ok((_, None)) => {}
                Ok((due, Some(status))) => {
                    let took = started.elapsed().saturating_sub(due);
                    self.latencies.saturating_record(took.as_nanos() as u64);
                    self.outcome.answers += 1;
                    *self.outcome.by_status.entry(status).or_default() += 1;
                    self.outcome.errors += u64::from(status >= 400);
                    connection.due = None;
                    self.idle.push_back(number);
                    any = true;
                }
                Err(_) => {
                    self.lost(number)?;
                    return Ok(any);
                }
            }
        }
    }

    /// A connection is no more: its request, if it had one, has failed.
    fn lost(&mut self, number: usize) -> Result<()> {
        if self.connections[number].due.is_some() {
            return self.fail(number);
        }
        self.connections[number] = self.open(number)?;
        Ok(())
    }

    /// A request has failed, and its connection with it.
    fn fail(&mut self, number: usize) -> Result<()> {
        self.outcome.failed += 1;
        self.connections[number] = self.open(number)?;
        self.idle.push_back(number);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// A server that answers each head with the same bytes, and ends each connection after so many.
    fn server_of(answer: &'static [u8], answers_each: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut head = [0; 1024];
                    for _ in 0..answers_each {
                        match stream.read(&mut head) {
                            Ok(0) | Err(_) => return,
                            Ok(_) => {}
                        }
                        if stream.write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    fn plan(address: SocketAddr, requests: u64, rate: Option<f64>) -> Plan {
        Plan {
            address,
            connections: 3,
            rate,
            requests,
            seconds: 60.0,
            method: "GET".into(),
            targets: vec!["/a".into(), "/b".into()],
            fields: vec![("Range".into(), "bytes=0-1".into())],
        }
    }

    const ANSWER: &[u8] = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\n\r\nhi";

    #[test]
    fn a_head_has_what_the_plan_says() {
        let plan = plan(SocketAddr::from(([127, 0, 0, 1], 80)), 1, None);
        let expected = b"GET /a HTTP/1.1\r\nHost: 127.0.0.1:80\r\nRange: bytes=0-1\r\n\r\n";
        assert_eq!(plan.head("/a"), expected);
    }

    #[test]
    fn all_that_is_planned_is_sent_and_counted() {
        for rate in [None, Some(5000.0)] {
            let outcome = send(&plan(server_of(ANSWER, usize::MAX), 100, rate)).unwrap();
            assert_eq!(
                (outcome.answers, outcome.failed, outcome.errors),
                (100, 0, 0)
            );
            assert_eq!(outcome.by_status, BTreeMap::from([(206, 100)]));
            assert_eq!(outcome.bytes, 100 * ANSWER.len() as u64);
            let latency = outcome.latency.unwrap();
            assert!(latency.p50 <= latency.p99 && latency.p99 <= latency.most);
        }
    }

    #[test]
    fn connections_that_end_are_opened_again() {
        let outcome = send(&plan(server_of(ANSWER, 7), 100, None)).unwrap();
        assert_eq!(outcome.answers + outcome.failed, 100);
        assert!(outcome.answers >= 50, "{outcome:?}");
    }

    #[test]
    fn answers_that_cannot_be_counted_have_failed() {
        let outcome = send(&plan(
            server_of(b"HTTP/1.1 200 OK\r\n\r\n", usize::MAX),
            10,
            None,
        ))
        .unwrap();
        assert_eq!(
            (outcome.answers, outcome.failed, outcome.latency),
            (0, 10, None)
        );
    }

    #[test]
    fn errors_are_counted_apart() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        let outcome = send(&plan(server_of(answer, usize::MAX), 10, None)).unwrap();
        assert_eq!((outcome.answers, outcome.errors), (10, 10));
    }

    use std::collections::BTreeMap;
}
