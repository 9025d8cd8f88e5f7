//! Points in time as the interface represents them.

use std::time::SystemTime;

/// Converts a time to nanoseconds since 1970-01-01T00:00:00Z: `timestamp-ns` of `wit/media-store.wit`.
///
/// Returns `None` for a time before 1970 or after 2554.
#[must_use]
pub fn timestamp_ns(time: SystemTime) -> Option<u64> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_outside_the_range_are_none() {
        let epoch = SystemTime::UNIX_EPOCH;
        let nanosecond = Duration::from_nanos(1);
        assert_eq!(timestamp_ns(epoch), Some(0));
        assert_eq!(timestamp_ns(epoch + nanosecond), Some(1));
        assert_eq!(timestamp_ns(epoch - nanosecond), None);
        assert_eq!(
            timestamp_ns(epoch + Duration::from_nanos(u64::MAX)),
            Some(u64::MAX)
        );
        assert_eq!(
            timestamp_ns(epoch + Duration::from_nanos(u64::MAX) + nanosecond),
            None
        );
    }
}
