//! The few words the judge itself puts into an incident: times, endpoints, the sentence about the other
//! flows. Pure functions on values, on the judge's thread; the result goes into `explain`.

use std::net::{IpAddr, SocketAddr};

use rules::facts::Counts;

use super::incident::{Subject, Tally};
use crate::source::Nanos;

/// The protocol's name in records; its number where it has none here.
pub fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => other.to_string(),
    }
}

/// 16 digits. As `{:016x}` writes them, in a fraction of the time: an incident lists up to a hundred flows.
pub fn hex(number: u64) -> String {
    let digit = |at: u32| char::from(b"0123456789abcdef"[(number >> (4 * at)) as usize & 15]);
    let mut text = String::with_capacity(16);
    text.extend((0..16).rev().map(digit));
    text
}

/// Several pieces of advice in one text: sentences follow each other, fragments are parted by semicolons.
pub fn advice(pieces: &[String]) -> String {
    let mut text = String::new();
    for piece in pieces {
        if !text.is_empty() {
            text.push_str(if text.ends_with(['.', '!', '?']) { " " } else { "; " });
        }
        text.push_str(piece.trim());
    }
    text
}

/// What a closing incident says of the flows beyond the one its words are about; empty if there are none.
pub fn closing(subject: &Subject, tally: &Tally) -> String {
    match subject {
        Subject::Flow { dst, dport, .. } if tally.flows > 1 => {
            let more = tally.flows - 1;
            let span = span(tally);
            format!(" … and {} to {} {span}", flows(more, "more "), endpoint(*dst, *dport))
        }
        Subject::Host { .. } | Subject::Service { .. } if tally.all_flows() > 0 => {
            let verb = if tally.all_flows() == 1 { "is" } else { "are" };
            format!(" … {} {} {verb} part of it", flows(tally.all_flows(), ""), span(tally))
        }
        _ => String::new(),
    }
}

/// What is known of the other SYNs to a service of which some got no answer; `None` if there were none.
pub fn unanswered(addr: IpAddr, port: u16, last_60s: &Counts) -> Option<String> {
    let lost = last_60s.syn_unanswered.saturating_add(last_60s.recovered);
    let service = endpoint(addr, port);
    (last_60s.syns > 0 && lost > 0).then(|| {
        let recovered = match last_60s.recovered {
            0 => "no retry got through".to_owned(),
            n => format!("a retry got through in {n} of these cases"),
        };
        format!(
            " In the last 60 s, {lost} of {} SYNs to {service} got no answer; {recovered}.",
            last_60s.syns.max(lost)
        )
    })
}

fn flows(count: u64, more: &str) -> String {
    format!("{count} {more}flow{}", if count == 1 { "" } else { "s" })
}

fn span(tally: &Tally) -> String {
    format!("between {} and {}", utc(tally.first_ns), utc(tally.last_ns))
}

fn endpoint(addr: IpAddr, port: u16) -> String {
    SocketAddr::new(addr, port).to_string()
}

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
    fn numbers_are_written_as_hex_digits() {
        for number in [0, 1, 0xabc, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(hex(number), format!("{number:016x}"));
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(951_827_696_789_000_000), "2000-02-29T12:34:56.789Z");
        assert_eq!(utc(1_763_635_527_123_456_789), "2025-11-20T10:45:27.123Z");
        assert_eq!(utc(1_735_689_599_999_999_999), "2024-12-31T23:59:59.999Z");
        assert_eq!(utc(u64::MAX), "2554-07-21T23:34:33.709Z");
    }

    #[test]
    fn advice_reads_as_one_text() {
        let pieces = ["Do this.", "or that", "or nothing"].map(str::to_owned);
        assert_eq!(advice(&pieces), "Do this. or that; or nothing");
        assert_eq!(advice(&[]), "");
    }

    #[test]
    fn the_closing_sentence_names_the_service_and_the_span() {
        let subject = Subject::Flow {
            proto: "tcp".into(),
            src: "10.0.0.1".parse().expect("an address"),
            sport: 40000,
            dst: "fd00::2".parse().expect("an address"),
            dport: 443,
        };
        let mut tally = Tally::starting(0);
        tally.flow(1);
        assert_eq!(closing(&subject, &tally), "");
        tally.flow(2);
        tally.events(2_000_000_000, 2);
        let expected = " … and 1 more flow to [fd00::2]:443 \
                        between 1970-01-01T00:00:00.000Z and 1970-01-01T00:00:02.000Z";
        assert_eq!(closing(&subject, &tally), expected);
    }
}
