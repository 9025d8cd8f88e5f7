//! The rows of the comparison: what is asked for, over how many connections, and how fast.

use super::media::File;
use serde::{Serialize, Serializer};

/// One row: the same request, again and again, to each server.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// Name for `--only`.
    pub(crate) name: &'static str,
    /// Title in the tables.
    pub(crate) title: &'static str,
    pub(crate) asked: Asked,
    pub(crate) connections: usize,
    /// Connections that have asked once, and then stay open beside the others.
    pub(crate) idle_connections: usize,
    pub(crate) load: Load,
}

/// Kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Asked {
    Get(File),
    Head(File),
    /// A range, both ends included.
    Range(File, u64, u64),
    /// With the entity tag that the server gave before.
    Unchanged(File),
    Missing,
}

/// How it is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Load {
    /// The next request as soon as an answer is whole: gives a throughput.
    Closed,
    /// So too, by h2load, to see whether the figure is the tool's.
    ByH2load,
    /// So too, by this program.
    BySender,
    /// So too, over HTTP/2 and TLS, several requests at once on each connection.
    Http2,
    /// The same, over HTTP/1.1 and TLS, one request at a time on each connection.
    Tls,
    /// As in a closed loop, and each of many files once.
    EachOnce,
    /// So many requests a second, whatever the server does: gives latencies.
    AtRate(u32),
}

impl Load {
    /// Whether its figure is a throughput.
    pub(crate) fn is_closed(self) -> bool {
        !matches!(self, Load::AtRate(_))
    }
}

impl Serialize for Load {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Load::Closed => serializer.serialize_str("closed"),
            Load::ByH2load => serializer.serialize_str("h2load"),
            Load::BySender => serializer.serialize_str("sender"),
            Load::Http2 => serializer.serialize_str("http2"),
            Load::Tls => serializer.serialize_str("tls"),
            Load::EachOnce => serializer.serialize_str("each-once"),
            Load::AtRate(rate) => serializer.collect_str(&format_args!("{rate}/s")),
        }
    }
}

impl Asked {
    /// The file that the answer's body is of.
    pub(crate) fn file(self) -> Option<File> {
        match self {
            Asked::Get(file)
            | Asked::Head(file)
            | Asked::Range(file, ..)
            | Asked::Unchanged(file) => Some(file),
            Asked::Missing => None,
        }
    }

    pub(crate) fn method(self) -> &'static str {
        match self {
            Asked::Head(_) => "HEAD",
            _ => "GET",
        }
    }

    /// The one status that is right.
    pub(crate) fn status(self) -> u16 {
        match self {
            Asked::Get(_) | Asked::Head(_) => 200,
            Asked::Range(..) => 206,
            Asked::Unchanged(_) => 304,
            Asked::Missing => 404,
        }
    }

    /// Which bytes of its file the body has, from and to; none where that is the server's to say.
    pub(crate) fn body(self) -> Option<(u64, u64)> {
        match self {
            Asked::Get(file) => Some((0, file.bytes())),
            Asked::Range(_, first, last) => Some((first, last + 1)),
            Asked::Head(_) | Asked::Unchanged(_) => Some((0, 0)),
            Asked::Missing => None,
        }
    }
}

/// Number of clients that keep a server busy with small files. Large files have fewer clients, so that no more than some
/// hundred megabytes are in flight.
const BUSY: usize = 64;
const BUSY_WITH_LARGE: usize = 32;
const BUSY_WITH_HUGE: usize = 8;

/// Each of which has several requests under way.
const HTTP2_CONNECTIONS: usize = 8;

/// All rows, in the order of the tables.
pub(crate) fn all() -> Vec<Row> {
    let closed = |name, title, asked, connections| Row {
        name,
        title,
        asked,
        connections,
        idle_connections: 0,
        load: Load::Closed,
    };
    let at_rate = |name, title, file, rate| Row {
        name,
        title,
        asked: Asked::Get(file),
        connections: BUSY,
        idle_connections: 0,
        load: Load::AtRate(rate),
    };
    let http2 = |name, title, file| Row {
        load: Load::Http2,
        ..closed(name, title, Asked::Get(file), HTTP2_CONNECTIONS)
    };
    let tls = |name, title, file, connections| Row {
        load: Load::Tls,
        ..closed(name, title, Asked::Get(file), connections)
    };
    vec![
        closed("1k", "1 KB", Asked::Get(File::OneKilobyte), BUSY),
        closed("4k", "4 KB", Asked::Get(File::FourKilobytes), BUSY),
        closed(
            "500k",
            "500 KB",
            Asked::Get(File::HalfMegabyte),
            BUSY_WITH_LARGE,
        ),
        closed(
            "50m",
            "50 MB",
            Asked::Get(File::FiftyMegabytes),
            BUSY_WITH_HUGE,
        ),
        closed(
            "range",
            "500 KB of 50 MB",
            Asked::Range(File::FiftyMegabytes, 25_000_000, 25_499_999),
            BUSY_WITH_LARGE,
        ),
        closed(
            "304",
            "4 KB, unchanged (304)",
            Asked::Unchanged(File::FourKilobytes),
            BUSY,
        ),
        closed("404", "missing (404)", Asked::Missing, BUSY),
        closed(
            "head",
            "HEAD of 4 KB",
            Asked::Head(File::FourKilobytes),
            BUSY,
        ),
        Row {
            idle_connections: 1000,
            ..closed(
                "idle",
                "4 KB beside 1,000 idle",
                Asked::Get(File::FourKilobytes),
                BUSY,
            )
        },
        Row {
            load: Load::EachOnce,
            ..closed(
                "cold",
                "4 KB, each file once",
                Asked::Get(File::FourKilobytes),
                BUSY,
            )
        },
        Row {
            load: Load::ByH2load,
            ..closed(
                "4k-h2load",
                "4 KB, sent by h2load",
                Asked::Get(File::FourKilobytes),
                BUSY,
            )
        },
        Row {
            load: Load::BySender,
            ..closed(
                "4k-sender",
                "4 KB, sent by the bench",
                Asked::Get(File::FourKilobytes),
                BUSY,
            )
        },
        tls("tls", "4 KB, TLS", File::FourKilobytes, BUSY),
        tls(
            "tls-500k",
            "500 KB, TLS",
            File::HalfMegabyte,
            BUSY_WITH_LARGE,
        ),
        http2("h2", "4 KB, HTTP/2 and TLS", File::FourKilobytes),
        http2("h2-500k", "500 KB, HTTP/2 and TLS", File::HalfMegabyte),
        at_rate("slow", "4 KB, 1,000 a second", File::FourKilobytes, 1000),
        at_rate("fast", "4 KB, 20,000 a second", File::FourKilobytes, 20_000),
        at_rate("large", "500 KB, 500 a second", File::HalfMegabyte, 500),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_row_has_a_name_of_its_own() {
        let names: HashSet<&str> = all().iter().map(|row| row.name).collect();
        assert_eq!(names.len(), all().len());
    }

    #[test]
    fn what_is_asked_for_lies_within_its_file() {
        for row in all() {
            if let (Some(file), Some((from, to))) = (row.asked.file(), row.asked.body()) {
                assert!(from <= to && to <= file.bytes(), "{}", row.name);
            }
        }
    }
}
