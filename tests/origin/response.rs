//! The response of an origin to a request for an object: right by RFC 9110, then with its faults.

use super::content::Content;
use super::gate::Gate;
use super::gzip::gzip;
use super::object::{Fault, Numbers, Object};
use super::record::ResponseProgress;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::{HeaderMap, Method, Response, StatusCode, request};
use http_body::Frame;
use http_body_util::StreamBody;
use httpdate::{fmt_http_date, parse_http_date};
use std::io;
use std::ops::Range;

/// A body that may end with an error, which closes the connection.
pub(crate) type Body = StreamBody<BoxStream<'static, io::Result<Frame<Bytes>>>>;

/// Maximum size of a chunk of a body, in bytes: the record of a response is as exact as that.
const CHUNK: u64 = 16 * 1024;

/// Returns the response to a request of these numbers for an object. `None` closes the connection without a response.
pub(crate) async fn respond(
    object: &Object,
    numbers: Numbers,
    request: &request::Parts,
    progress: ResponseProgress,
) -> Option<Response<Body>> {
    let faults = || object.faults_at(numbers);
    for fault in faults() {
        match fault {
            Fault::SlowHead(gate) => drop(gate.wait_beyond(0).await),
            Fault::Silent => std::future::pending().await,
            Fault::Closed => return None,
            Fault::Status(status) => return Some(status_only(*status, None, progress)),
            Fault::Redirect(status, location) => {
                return Some(status_only(*status, Some(location), progress));
            }
            _ => {}
        }
    }
    let mut answer = Answer::right(object, numbers, request);
    let mut transfer = Transfer::new(progress);
    for fault in faults() {
        if matches!(fault, Fault::WrongLength(_)) && request.method == Method::HEAD {
            continue;
        }
        answer.spoil(fault, object);
        transfer.spoil(fault);
    }
    Some(answer.send(transfer))
}

/// Returns a response with a text that names its status.
pub(crate) fn status_only(
    status: u16,
    location: Option<&str>,
    progress: ResponseProgress,
) -> Response<Body> {
    let mut fields = HeaderMap::new();
    fields.insert("content-type", "text/plain".parse().unwrap());
    if let Some(location) = location {
        fields.insert("location", location.parse().unwrap());
    }
    let content = Content::Memory(format!("The test wants {status}.\n").into());
    let answer = Answer {
        status: StatusCode::from_u16(status).unwrap(),
        fields,
        range: Some(0..content.length()),
        content,
        length: None,
        is_chunked: false,
    };
    answer.send(Transfer::new(progress))
}

/// A response before it is sent.
struct Answer {
    status: StatusCode,
    fields: HeaderMap,
    content: Content,
    /// The part of the content that is the body. Without one there is no body.
    range: Option<Range<u64>>,
    /// Value of `Content-Length` if it is not the body's.
    length: Option<u64>,
    is_chunked: bool,
}

impl Answer {
    /// The right response, but for the faults that decide which response is made.
    fn right(object: &Object, numbers: Numbers, request: &request::Parts) -> Self {
        let has = |wanted: fn(&Fault) -> bool| object.faults_at(numbers).any(wanted);
        let ignores_conditions = has(|fault| matches!(fault, Fault::IgnoredConditions));
        let ignores_range = has(|fault| matches!(fault, Fault::IgnoredRange));
        let length = object.content.length();
        let mut answer = Answer {
            status: StatusCode::OK,
            fields: fields(object),
            content: object.content.clone(),
            range: Some(0..length),
            length: None,
            is_chunked: false,
        };
        if let Some(status) = precondition(object, request).filter(|_| !ignores_conditions) {
            answer.status = status;
            answer.range = None;
            return answer;
        }
        let is_conditional = !ignores_conditions && !if_range_holds(object, request);
        if ignores_range || is_conditional || request.method != Method::GET {
            return answer;
        }
        let field = request.headers.get("range");
        match field.and_then(|range| parse_range(range.to_str().ok()?, length)) {
            Some(Some(range)) => {
                answer.status = StatusCode::PARTIAL_CONTENT;
                answer.range = Some(range);
                answer.set_content_range(length, |first, last, length| {
                    format!("bytes {first}-{last}/{length}")
                });
            }
            Some(None) => {
                answer.status = StatusCode::RANGE_NOT_SATISFIABLE;
                answer.range = None;
                answer.set("content-range", &format!("bytes */{length}"));
            }
            None => {}
        }
        answer
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.fields.insert(name, value.parse().unwrap());
    }

    fn set_content_range(&mut self, length: u64, value: impl Fn(u64, u64, u64) -> String) {
        if let Some(range) = &self.range {
            let value = value(range.start, range.end - 1, length);
            self.set("content-range", &value);
        }
    }

    fn spoil(&mut self, fault: &Fault, object: &Object) {
        let length = object.content.length();
        let is_part = self.status == StatusCode::PARTIAL_CONTENT;
        match (fault, self.range.clone()) {
            (Fault::WrongRange(value), _) if is_part => self.set_content_range(length, value),
            (Fault::RangeBeyond(more), Some(range)) if is_part => {
                self.range = Some(range.start..length.min(range.end + more));
                self.set_content_range(length, |first, last, length| {
                    format!("bytes {first}-{last}/{length}")
                });
            }
            (Fault::WrongLength(more), Some(range)) => {
                self.length = Some((range.end - range.start).saturating_add_signed(*more));
            }
            (Fault::Gzip, Some(range)) => {
                let coded = gzip(&self.content.read(range));
                self.range = Some(0..coded.len() as u64);
                self.content = Content::Memory(coded.into());
                self.set("content-encoding", "gzip");
            }
            (Fault::Chunked, Some(_)) => self.is_chunked = true,
            _ => {}
        }
    }

    fn send(mut self, mut transfer: Transfer) -> Response<Body> {
        let range = self.range.clone().unwrap_or(0..0);
        let bytes = range.end - range.start;
        if self.length.is_some_and(|length| length > bytes) {
            // The server sends nothing of a short body that ends at once.
            transfer.cut.get_or_insert(bytes);
        }
        if !self.is_chunked && self.status != StatusCode::NOT_MODIFIED {
            let length = self.length.unwrap_or(bytes);
            self.set("content-length", &length.to_string());
        }
        let body = transfer.stream(self.content, range);
        let mut response = Response::new(StreamBody::new(body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.fields;
        response
    }
}

fn fields(object: &Object) -> HeaderMap {
    let mut fields = HeaderMap::new();
    fields.insert("accept-ranges", "bytes".parse().unwrap());
    if let Some(entity_tag) = &object.entity_tag {
        fields.insert("etag", entity_tag.parse().unwrap());
    }
    if let Some(modified) = object.modified {
        fields.insert("last-modified", fmt_http_date(modified).parse().unwrap());
    }
    for (name, value) in &object.fields {
        fields.append(*name, value.parse().unwrap());
    }
    fields
}

/// Returns the status that preconditions lead to (RFC 9110 section 13.2.2).
fn precondition(object: &Object, request: &request::Parts) -> Option<StatusCode> {
    let field = |name: &str| request.headers.get(name)?.to_str().ok();
    let date = |name: &str| parse_http_date(field(name)?).ok();
    let strong = |tag: &str| !tag.starts_with("W/");
    let opaque = |tag: &str| tag.trim_start_matches("W/").to_owned();
    let own = object.entity_tag.as_deref();
    let any = |list: &str, same: &dyn Fn(&str) -> bool| {
        list.split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || same(tag))
    };
    if let Some(list) = field("if-match") {
        let holds = any(list, &|tag| strong(tag) && own == Some(tag));
        if !holds {
            return Some(StatusCode::PRECONDITION_FAILED);
        }
    } else if let Some(date) = date("if-unmodified-since")
        && object.modified.is_some_and(|modified| modified > date)
    {
        return Some(StatusCode::PRECONDITION_FAILED);
    }
    let is_unchanged = match field("if-none-match") {
        Some(list) => any(list, &|tag| own.map(opaque) == Some(opaque(tag))),
        None => date("if-modified-since")
            .is_some_and(|date| object.modified.is_some_and(|modified| modified <= date)),
    };
    is_unchanged.then_some(StatusCode::NOT_MODIFIED)
}

/// Whether `Range` counts (RFC 9110 section 13.1.5).
fn if_range_holds(object: &Object, request: &request::Parts) -> bool {
    let Some(field) = request.headers.get("if-range") else {
        return true;
    };
    let value = field.to_str().unwrap_or_default();
    match parse_http_date(value) {
        Ok(date) => object.modified == Some(date),
        Err(_) => !value.starts_with("W/") && object.entity_tag.as_deref() == Some(value),
    }
}

/// Reads a range (RFC 9110 section 14.1.2). `None` for one that is ignored, such as several ranges, and `Some(None)` for one
/// that cannot be satisfied.
fn parse_range(value: &str, length: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first, last) {
        ("", suffix) => length.saturating_sub(suffix.parse().ok()?)..length,
        (first, "") => first.parse().ok()?..length,
        (first, last) => {
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            if first > last {
                return None;
            }
            first..length.min(last.saturating_add(1))
        }
    };
    Some(Some(range).filter(|range| range.start < range.end))
}

/// Order and time of the bytes of a body.
struct Transfer {
    progress: ResponseProgress,
    gate: Option<Gate>,
    /// The connection is closed after so many bytes.
    cut: Option<u64>,
    /// Nothing more comes after so many bytes.
    stall: Option<u64>,
    /// Offset in the object of the byte that is inverted.
    flipped: Option<u64>,
}

impl Transfer {
    fn new(progress: ResponseProgress) -> Self {
        Transfer {
            progress,
            gate: None,
            cut: None,
            stall: None,
            flipped: None,
        }
    }

    fn spoil(&mut self, fault: &Fault) {
        match fault {
            Fault::Slow(gate) => self.gate = Some(gate.clone()),
            Fault::Cut(bytes) => self.cut = Some(*bytes),
            Fault::Stalled(bytes) => self.stall = Some(*bytes),
            Fault::Flipped(offset) => self.flipped = Some(*offset),
            _ => {}
        }
    }

    fn stream(
        self,
        content: Content,
        range: Range<u64>,
    ) -> BoxStream<'static, io::Result<Frame<Bytes>>> {
        let state = (self, content, range, 0);
        stream::unfold(state, |(transfer, content, range, sent)| async move {
            let chunk = transfer.chunk(&content, &range, sent).await?;
            let next = sent + chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            transfer.progress.sent(next - sent);
            Some((chunk.map(Frame::data), (transfer, content, range, next)))
        })
        .boxed()
    }

    /// Returns the next bytes after so many of the range.
    async fn chunk(
        &self,
        content: &Content,
        range: &Range<u64>,
        sent: u64,
    ) -> Option<io::Result<Bytes>> {
        if self.cut.is_some_and(|cut| sent >= cut) {
            self.progress.flushed().await;
            return Some(Err(io::Error::other("the test cuts the response")));
        }
        let start = range.start + sent;
        if start >= range.end {
            return None;
        }
        if self.stall.is_some_and(|stall| sent >= stall) {
            std::future::pending::<()>().await;
        }
        let allowed = match &self.gate {
            Some(gate) => gate.wait_beyond(sent).await,
            None => u64::MAX,
        };
        let most = [Some(allowed), self.cut, self.stall];
        let most = most.into_iter().flatten().fold(sent + CHUNK, u64::min);
        let end = range.end.min(start + (most - sent));
        let chunk = content.read(start..end);
        Some(Ok(match self.flipped {
            Some(offset) if (start..end).contains(&offset) => {
                let mut chunk = chunk.to_vec();
                chunk[usize::try_from(offset - start).unwrap()] ^= 0xff;
                chunk.into()
            }
            _ => chunk,
        }))
    }
}
