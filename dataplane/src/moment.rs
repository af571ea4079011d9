//! A moment in words: RFC 3339, UTC.
//!
//! Pure; on the thread of whoever has something to say: the judge, readers of captures, the program. Never on a worker.

use crate::source::Nanos;

/// RFC 3339, UTC, milliseconds.
pub fn utc(ns: Nanos) -> String {
    let (seconds, millis) = (ns / 1_000_000_000, ns / 1_000_000 % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar. A u64 of
/// nanoseconds ends in 2554, so stepping through the years is short.
fn civil(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut rest = days;
    let mut year = 1970;
    while rest >= 365 + u64::from(leap(year)) {
        rest -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(951_827_696_789_000_000), "2000-02-29T12:34:56.789Z");
        assert_eq!(utc(1_763_635_527_123_456_789), "2025-11-20T10:45:27.123Z");
        assert_eq!(utc(1_735_689_599_999_999_999), "2024-12-31T23:59:59.999Z");
        assert_eq!(utc(u64::MAX), "2554-07-21T23:34:33.709Z");
    }
}
