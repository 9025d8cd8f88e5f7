//! Routes: patterns of targets, which group requests in logs and metrics.
//!
//! The host does not know the guest's routes, so it derives a pattern from each path. An id becomes `:id`, and a file
//! name becomes `*` with its extension. There are [`ROUTES`] and one at most.

use crate::request_counts::{CODES, class};
use http::StatusCode;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Maximum number of routes. Requests for further ones count as `(other)`, so a client that makes up paths uses no
/// memory.
pub(crate) const ROUTES: usize = 64;

/// A group of requests whose targets have the same pattern, with its counters. It is never removed.
#[derive(Debug)]
pub struct Route {
    /// Pattern of the route, as in `/api/media/:id`.
    pub pattern: Arc<str>,
    /// Number of requests so far.
    pub(crate) requests: AtomicU64,
    /// Heap growth while its requests were served, in bytes: allocated minus freed.
    pub(crate) heap_growth_bytes: AtomicI64,
    /// Number of ended requests by class of the status code.
    ended: [AtomicU64; CODES.len()],
}

/// Number of ended requests of one route with one class of the status code.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteCount {
    /// Route of the requests.
    pub route: Arc<Route>,
    /// Class of the status code, as in `2xx`. `none` if there was no response.
    pub code: &'static str,
    /// Number of requests.
    pub count: u64,
}

impl Route {
    /// Counts the end of a request.
    pub(crate) fn count_end(&self, status: Option<StatusCode>) {
        self.ended[class(status)].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the counts above zero.
    pub(crate) fn counts(self: &Arc<Self>) -> impl Iterator<Item = RouteCount> + '_ {
        let counts = CODES.iter().zip(&self.ended);
        let counts = counts.map(|(code, count)| RouteCount {
            route: Arc::clone(self),
            code,
            count: count.load(Ordering::Relaxed),
        });
        counts.filter(|count| count.count > 0)
    }
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for Route {}

/// Routes of one host.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    by_pattern: RwLock<HashMap<Arc<str>, Arc<Route>>>,
}

const OTHER: &str = "(other)";

impl Routes {
    /// Returns the route of a path. A query is ignored.
    pub(crate) fn of(&self, path: &str) -> Arc<Route> {
        let pattern = pattern(path);
        {
            let routes = self.by_pattern.read();
            if let Some(route) = routes.get(pattern.as_str()) {
                return Arc::clone(route);
            }
        }
        let mut routes = self.by_pattern.write();
        let name = if routes.len() < ROUTES {
            pattern.as_str()
        } else {
            OTHER
        };
        let name: Arc<str> = name.into();
        let route = routes.entry(Arc::clone(&name)).or_insert_with(|| {
            Arc::new(Route {
                pattern: name,
                requests: AtomicU64::new(0),
                heap_growth_bytes: AtomicI64::new(0),
                ended: Default::default(),
            })
        });
        Arc::clone(route)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Route>> {
        let routes = self.by_pattern.read();
        routes.values().cloned().collect()
    }
}

/// Maximum number of segments in a pattern. Further ones become `…`.
const SEGMENTS: usize = 4;

/// Maximum length of a segment in a pattern, in bytes. A longer one counts as an id.
const SEGMENT_BYTES: usize = 24;

fn pattern(path: &str) -> String {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let mut pattern = String::with_capacity(40);
    for (position, segment) in path.split('/').skip(1).enumerate() {
        pattern.push('/');
        if position == SEGMENTS {
            pattern.push('…');
            break;
        }
        match segment.rsplit_once('.') {
            Some((_, extension)) if is_plain(extension) && extension.len() <= 5 => {
                pattern.push_str("*.");
                pattern.push_str(extension);
            }
            Some(_) => pattern.push('*'),
            None if looks_like_an_id(segment) || !is_plain(segment) => pattern.push_str(":id"),
            None => pattern.push_str(segment),
        }
    }
    if pattern.is_empty() {
        path.chars().take(1).collect()
    } else {
        pattern
    }
}

fn is_plain(segment: &str) -> bool {
    segment
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn looks_like_an_id(segment: &str) -> bool {
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    segment.len() > SEGMENT_BYTES || digits >= 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let id = "0123456789abcdef".repeat(4);
        for (path, expected) in [
            (format!("/api/media/{id}"), "/api/media/:id"),
            (format!("/api/media/{id}/info?x=1"), "/api/media/:id/info"),
            ("/media/cats/cat-1.gif".into(), "/media/cats/*.gif"),
            ("/media?id=a.gif".into(), "/media"),
            ("/media/a.b.verylong".into(), "/media/*"),
            ("/media/%00".into(), "/media/:id"),
            ("/a/b/c/d/e/f".into(), "/a/b/c/d/…"),
            ("/users/123456/x".into(), "/users/:id/x"),
            ("/".into(), "/"),
            ("*".into(), "*"),
            (String::new(), ""),
        ] {
            assert_eq!(pattern(&path), expected, "{path}");
        }
    }

    #[test]
    fn ended_requests_are_counted_by_class() {
        let route = Routes::default().of("/a");
        for status in [
            StatusCode::OK,
            StatusCode::PARTIAL_CONTENT,
            StatusCode::NOT_FOUND,
        ] {
            route.count_end(Some(status));
        }
        route.count_end(None);
        let counts = route.counts().map(|count| (count.code, count.count));
        assert_eq!(
            counts.collect::<Vec<_>>(),
            [("none", 1), ("2xx", 2), ("4xx", 1)]
        );
    }

    #[test]
    fn made_up_paths_do_not_make_it_grow() {
        let routes = Routes::default();
        for a in b'a'..=b'z' {
            for b in b'a'..=b'z' {
                routes.of(&format!("/{}{}", char::from(a), char::from(b)));
            }
        }
        assert_eq!(routes.all().len(), ROUTES + 1);
        assert_eq!(&*routes.of("/another").pattern, OTHER);
        assert_eq!(&*routes.of("/aa").pattern, "/aa");
    }
}
