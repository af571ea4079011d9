//! Times as people write and read them: RFC 3339 in UTC, durations, "so long ago".
//!
//! Pure functions but for [`When::resolve`], which the caller gives the time of day. Main thread; used by the
//! command line and by everything that prints a packet's time.

use std::time::{SystemTime, UNIX_EPOCH};

pub use dataplane::moment::utc;
use dataplane::source::Nanos;

const SECOND: u64 = 1_000_000_000;
const DAY_S: i64 = 86_400;

/// A moment as given on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Ns since the epoch, UTC.
    At(Nanos),
    /// So many ns before now.
    Ago(Nanos),
}

impl When {
    /// Reads RFC 3339 or a duration.
    ///
    /// # Errors
    /// Neither of both, with what to write.
    pub fn parse(text: &str) -> Result<When, String> {
        let moment = rfc3339(text).map(When::At).or_else(|| duration(text).map(When::Ago));
        moment.ok_or_else(|| {
            "give a time like 2025-10-09T08:53:20Z, or how long ago it was: 90s, 15m, 2h, 1d12h".to_owned()
        })
    }

    /// Ns since the epoch.
    pub fn resolve(self, now: SystemTime) -> Nanos {
        match self {
            When::At(ns) => ns,
            When::Ago(ago) => {
                let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
                u64::try_from(now).unwrap_or(u64::MAX).saturating_sub(ago)
            }
        }
    }
}

/// A duration in ns.
///
/// # Errors
/// It is none, with what to write.
pub fn lasting(text: &str) -> Result<Nanos, String> {
    duration(text).ok_or_else(|| "give a duration: 500ms, 30s, 15m, 1h".to_owned())
}

/// A duration in ns: numbers with units ms, s, m, h, d, one after the other.
fn duration(text: &str) -> Option<Nanos> {
    let mut total: Option<u64> = None;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (ns, unit) = [
            (SECOND / 1000, "ms"),
            (SECOND, "s"),
            (60 * SECOND, "m"),
            (3600 * SECOND, "h"),
            (86_400 * SECOND, "d"),
        ]
        .into_iter()
        .find(|(_, unit)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total = Some(total.unwrap_or(0).checked_add(number.checked_mul(ns)?)?);
    }
    total
}

/// A duration as it is typed, to the millisecond.
pub fn typed(ns: Nanos) -> String {
    let mut rest = ns / 1_000_000;
    let mut text = String::new();
    for (ms, unit) in [(3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")] {
        if rest >= ms {
            text.push_str(&format!("{}{unit}", rest / ms));
        }
        rest %= ms;
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// RFC 3339 §5.6: a date, a time, and Z or an offset.
fn rfc3339(text: &str) -> Option<Nanos> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    let is = |at: usize, allowed: &[u8]| bytes.get(at).is_some_and(|b| allowed.contains(b));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // Second 60 is a leap second; the epoch doesn't count it.
    let in_range = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    if !in_range || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
        None => ("0", rest),
    };
    if fraction.is_empty() {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let start = text.len() - 5;
            let (hours, minutes) = (number(start..start + 2)?, number(start + 3..start + 5)?);
            let seconds = (hours <= 23 && minutes <= 59).then_some(hours * 3600 + minutes * 60)?;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let seconds = days(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second - offset;
    u64::try_from(seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?).ok()
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, in the years a date here can have.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let before = |year: i64| {
        let y = year - 1;
        y * 365 + y / 4 - y / 100 + y / 400
    };
    before(year) - before(1970) + (1..month).map(|m| days_in(year, m)).sum::<i64>() + day - 1
}

/// How long something took, in the unit that reads best.
pub fn span(ns: Nanos) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        1_000_000_000..60_000_000_000 => format!("{}.{} s", ns / SECOND, ns / 100_000_000 % 10),
        60_000_000_000..3_600_000_000_000 => {
            format!("{} min {} s", ns / SECOND / 60, ns / SECOND % 60)
        }
        _ => format!("{} h {} min", ns / SECOND / 3600, ns / SECOND / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_both_ways() {
        for (text, ns) in [
            ("1970-01-01T00:00:00.000Z", 0),
            ("2000-02-29T12:34:56.789Z", 951_827_696_789_000_000),
            ("2025-10-09T08:53:20.000Z", 1_760_000_000_000_000_000),
            ("2024-12-31T23:59:59.999Z", 1_735_689_599_999_000_000),
        ] {
            assert_eq!(utc(ns), text);
            assert_eq!(When::parse(text), Ok(When::At(ns)));
        }
        assert_eq!(utc(u64::MAX), "2554-07-21T23:34:33.709Z");
        assert_eq!(When::parse("2025-10-09T10:53:20+02:00"), Ok(When::At(1_760_000_000_000_000_000)));
        assert_eq!(When::parse("2025-10-09 03:23:20.5-05:30"), Ok(When::At(1_760_000_000_500_000_000)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "15",
            "m",
            "15x",
            "-5m",
            "99999999999999d",
            "2025-13-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2025-10-09T08:53:20",
            "2025-10-09T08:53:20.Z",
            "2025-10-09T08:53:20+2:00",
            "2025-10-09T25:00:00Z",
            "2025-1é-09T08:53:20Z",
            "1969-12-31T23:59:59Z",
            "9999-01-01T00:00:00Z",
        ] {
            assert!(When::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_reach_back() {
        assert_eq!(When::parse("1d12h30m5s7ms"), Ok(When::Ago(131_405_007_000_000)));
        let now = UNIX_EPOCH + std::time::Duration::from_secs(1000);
        assert_eq!(When::Ago(900 * SECOND).resolve(now), 100 * SECOND);
        assert_eq!(When::Ago(u64::MAX).resolve(now), 0);
    }

    #[test]
    fn what_is_typed_is_read_again() {
        for (ns, text) in
            [(7200 * SECOND, "2h"), (90 * SECOND, "1m30s"), (1_500_000_000, "1s500ms"), (0, "0s")]
        {
            assert_eq!((typed(ns).as_str(), lasting(text)), (text, Ok(ns)));
        }
    }

    #[test]
    fn spans_for_people() {
        let spans = [999, 5_000_000, 8_800_000_000, 301_000_000_000, 7_500_000_000_000].map(span);
        assert_eq!(spans, ["0 µs", "5 ms", "8.8 s", "5 min 1 s", "2 h 5 min"]);
    }
}
