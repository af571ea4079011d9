//! How a rule's body writes for people: counted nouns, times, addresses with ports, whose header a RST has.
//!
//! Pure functions on values, on the judge's thread; their results go into `explain` and `advise`.

use std::net::SocketAddr;

use rhai::{Dynamic, Engine, ImmutableString};

use crate::body::views::{Address, SideView};
use crate::facts::SideFacts;

pub(crate) fn register(engine: &mut Engine) {
    engine.register_fn("plural", |n: i64, noun: ImmutableString| plural(n, &noun, &format!("{noun}s")));
    engine.register_fn("plural", |n: i64, noun: ImmutableString, nouns: ImmutableString| {
        plural(n, &noun, &nouns)
    });
    engine.register_fn("endpoint", |address: Address, port: i64| endpoint(address, port));
    engine.register_fn("rst_header", |name: ImmutableString, side: SideView| rst_header(&name, side.facts()));
    engine.register_fn("duration_ms", duration_ms);
    engine.register_fn("duration_us", duration_us);
    // A fact that isn't known is no reason for a body to fail.
    for name in ["duration_ms", "duration_us"] {
        engine.register_fn(name, |_: ()| "an unknown time".to_owned());
    }
    engine.register_fn("plural", |_: (), noun: ImmutableString| format!("an unknown number of {noun}s"));
    engine.register_fn("endpoint", |address: Dynamic, port: Dynamic| format!("{address}:{port}"));
}

fn plural(n: i64, noun: &str, nouns: &str) -> String {
    format!("{n} {}", if n == 1 { noun } else { nouns })
}

fn endpoint(address: Address, port: i64) -> String {
    SocketAddr::new(address.0, u16::try_from(port).unwrap_or_default()).to_string()
}

/// The RST in the name of a side beside that side's other packets. A TTL that is one off is a hint and no proof: packets of
/// one host differ by as much where its routes do. One that is alike is none either: a device next to the host has it too.
fn rst_header(name: &str, side: &SideFacts) -> String {
    let Some(ttl) = side.rst.ttl else { return String::new() };
    let Some(usual) = side.ttl_usual else {
        return format!("The RST came with TTL {ttl}; the {name} sent nothing else to compare it with.");
    };
    let df =
        if side.rst.df_fits == Some(false) { ", and its Don't Fragment bit is not as in those" } else { "" };
    let id = if side.rst.id_fits == Some(false) { ", and its IP-ID does not go on from theirs" } else { "" };
    let others = if ttl == usual {
        format!("as the {name}'s other packets")
    } else {
        format!("the {name}'s other packets with {usual}")
    };
    let hint = match i16::from(ttl) - i16::from(usual) {
        0 if df.is_empty() && id.is_empty() => ": its header points to nobody else",
        1 => ": a device one hop nearer to this capture point may have sent it",
        -1 => ": a device one hop farther from this capture point, on another way, may have sent it",
        _ => "",
    };
    format!("The RST came with TTL {ttl}, {others}{df}{id}{hint}.")
}

fn duration_ms(ms: i64) -> String {
    if ms == 0 { "less than 1 ms".to_owned() } else { duration_us(ms.saturating_mul(1000)) }
}

/// Two or three digits, rounded; and tenths of a second as far as 1,000 s: timeouts are told by them.
fn duration_us(us: i64) -> String {
    let tenths = |of: i64| {
        let tenths = us.saturating_add(of / 20) / (of / 10);
        let (whole, rest) = (tenths / 10, tenths % 10);
        if rest == 0 { format!("{whole}") } else { format!("{whole}.{rest}") }
    };
    let whole = |of: i64| us.saturating_add(of / 2) / of;
    match us {
        0 => "less than 1 µs".to_owned(),
        ..1_000 => format!("{us} µs"),
        1_000..9_950 => format!("{} ms", tenths(1_000)),
        9_950..999_500 => format!("{} ms", whole(1_000)),
        999_500..999_950_000 => format!("{} s", tenths(1_000_000)),
        _ => format!("{} s", whole(1_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::RstFacts;

    #[test]
    fn times_are_rounded_and_never_nothing_point_nothing() {
        for (us, wanted) in [
            (0, "less than 1 µs"),
            (40, "40 µs"),
            (999, "999 µs"),
            (1_000, "1 ms"),
            (2_450, "2.5 ms"),
            (9_949, "9.9 ms"),
            (9_950, "10 ms"),
            (119_600, "120 ms"),
            (999_499, "999 ms"),
            (999_500, "1 s"),
            (2_449_000, "2.4 s"),
            (8_760_000, "8.8 s"),
            (300_460_000, "300.5 s"),
            (999_960_000, "1000 s"),
        ] {
            assert_eq!(duration_us(us), wanted);
        }
    }

    #[test]
    fn a_rst_is_told_beside_its_senders_other_packets() {
        let of = |ttl, ttl_usual, df_fits, id_fits| {
            let rst = RstFacts { ttl, df_fits, id_fits, ..RstFacts::default() };
            rst_header("server", &SideFacts { ttl_usual, rst, ..SideFacts::default() })
        };
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(of(None, Some(63), None, None), "");
        assert_eq!(
            of(Some(64), None, None, None),
            "The RST came with TTL 64; the server sent nothing else to compare it with."
        );
        assert_eq!(
            of(Some(64), Some(63), yes, None),
            "The RST came with TTL 64, the server's other packets with 63: a device one hop nearer to this capture point \
             may have sent it."
        );
        assert!(of(Some(62), Some(63), yes, no).contains(
            "with 63, and its IP-ID does not go on from theirs: a device one hop farther from this capture point"
        ));
        assert_eq!(
            of(Some(63), Some(63), yes, yes),
            "The RST came with TTL 63, as the server's other packets: its header points to nobody else."
        );
        assert_eq!(
            of(Some(63), Some(63), no, yes),
            "The RST came with TTL 63, as the server's other packets, and its Don't Fragment bit is not as in those."
        );
        assert_eq!(
            of(Some(253), Some(61), None, None),
            "The RST came with TTL 253, the server's other packets with 61."
        );
    }

    #[test]
    fn nouns_are_counted() {
        assert_eq!(plural(1, "packet", "packets"), "1 packet");
        assert_eq!(plural(0, "entry", "entries"), "0 entries");
    }

    #[test]
    fn an_address_with_a_port_can_be_told_from_its_port() {
        let of = |text: &str| endpoint(Address(text.parse().unwrap()), 443);
        assert_eq!((of("10.0.0.1"), of("fd00::1")), ("10.0.0.1:443".into(), "[fd00::1]:443".into()));
    }
}
