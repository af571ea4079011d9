//! The few words the judge itself puts into an incident: times, endpoints, the sentence about the other
//! flows. Pure functions on values, on the judge's thread; the result goes into `explain`.

use std::net::{IpAddr, SocketAddr};

use rules::facts::Counts;

use super::incident::{Subject, Tally};
use crate::moment::utc;

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
