//! Checks of an interface's settings: what the NIC does to packets before anybody sees them, how many it can hold, how it
//! spreads them. Main thread; reads, and says what `--fix` may set.

use std::io;

use dataplane_sys::tuning::{self, Rss, Setting, largest_rx_ring};

use super::check::Check;
use super::nic::Asked;
use crate::live::mode::Mode;

/// Toeplitz, as the kernel numbers hash functions.
const TOEPLITZ: u8 = 1;
/// Transformations after which both directions hash alike: XOR, and OR besides it.
const SYMMETRIC: u8 = 0b11;
/// Pause frames are sent, or may be agreed on.
const PAUSE_SENT: u32 = 0b101;

pub fn checks(asked: &Asked, mode: Mode) -> Vec<Check> {
    let name = asked.nic.name.as_str();
    let read = |setting| tuning::read(name, setting);
    let mut all = vec![merging(name, read(Setting::Lro))];
    match mode {
        Mode::Afpacket => all.push(gro(name, read(Setting::Gro), asked.is_veth())),
        Mode::Auto | Mode::Xdp => {
            all.push(Check::new("gro", "of no matter: XDP comes before it"));
            all.push(vlan_strip(name, read(Setting::VlanStrip)));
        }
    }
    all.push(rings(name, read(Setting::RxRing), largest_rx_ring(name)));
    all.push(pause(name, read(Setting::Pause)));
    all.push(spread(name, asked.queues, tuning::rss(name)));
    all
}

/// A driver without the setting has nothing to set.
fn missing(check: &'static str, error: &io::Error) -> Check {
    match error.kind() {
        io::ErrorKind::Unsupported => Check::new(check, "the driver has no such setting"),
        _ => Check::unknown(check, error.to_string()),
    }
}

fn merging(interface: &str, on: io::Result<u32>) -> Check {
    match on {
        Err(error) => missing("lro", &error),
        Ok(0) => Check::new("lro", "off"),
        Ok(_) => Check::new("lro", "on")
            .bad("the NIC joins segments of a connection: sizes, times and losses are then not those of the wire")
            .command(format!("ethtool -K {interface} lro off"))
            .fix(Setting::Lro, 0),
    }
}

fn vlan_strip(interface: &str, on: io::Result<u32>) -> Check {
    match on {
        Err(error) => missing("vlan_strip", &error),
        Ok(0) => Check::new("vlan_strip", "off"),
        Ok(_) => Check::new("vlan_strip", "on")
            .warn("the NIC takes VLAN tags out of frames before XDP sees them: captures show none")
            .command(format!("ethtool -K {interface} rxvlan off"))
            .fix(Setting::VlanStrip, 0),
    }
}

fn gro(interface: &str, on: io::Result<u32>, veth: bool) -> Check {
    let check = match on {
        Err(error) => return missing("gro", &error),
        Ok(0) => return Check::new("gro", "off"),
        Ok(_) => Check::new("gro", "on")
            .warn("the kernel joins segments before AF_PACKET sees them: facts about their sizes are unknown")
            .command(format!("ethtool -K {interface} gro off")),
    };
    // A veth without it receives packets in another, slower way.
    if veth { check } else { check.fix(Setting::Gro, 0) }
}

fn rings(interface: &str, now: io::Result<u32>, most: io::Result<u32>) -> Check {
    let (now, most) = match (now, most) {
        (Ok(now), Ok(most)) => (now, most),
        (Err(error), _) | (_, Err(error)) => return missing("rx_ring", &error),
    };
    let check = Check::new("rx_ring", format!("{now} packets of at most {most}"));
    if now >= most {
        return check;
    }
    check
        .warn("what finds no room in it is lost before anybody saw it (rx_missed)")
        .command(format!("ethtool -G {interface} rx {most}"))
        .fix(Setting::RxRing, most)
}

fn pause(interface: &str, now: io::Result<u32>) -> Check {
    match now {
        Err(error) => missing("pause", &error),
        Ok(now) if now & PAUSE_SENT == 0 => Check::new("pause", "none are sent"),
        Ok(_) => Check::new("pause", "pause frames may be sent")
            .warn("a NIC that is full then has the switch wait, which hides loss and can slow the port that is mirrored")
            .command(format!("ethtool -A {interface} autoneg off rx off tx off"))
            .fix(Setting::Pause, 0),
    }
}

/// Both directions of a connection hash alike.
fn symmetric(rss: &Rss) -> bool {
    let repeats = !rss.key.is_empty() && rss.key.windows(3).all(|three| three[0] == three[2]);
    rss.transformation & SYMMETRIC != 0 || rss.function == TOEPLITZ && repeats
}

fn spread(interface: &str, queues: u32, rss: io::Result<Rss>) -> Check {
    if queues < 2 {
        return Check::new("rss", "one queue");
    }
    let why = "the two directions of a connection may reach different queues, and so different workers";
    match rss {
        Err(error) => {
            Check::new("rss", format!("{queues} queues; how packets are spread is not told ({error})"))
                .warn(why)
                .command(format!("ethtool -L {interface} combined 1   (or rx 1)"))
        }
        Ok(rss) if symmetric(&rss) => Check::new("rss", format!("{queues} queues, both directions alike")),
        Ok(rss) => {
            let key: Vec<&str> = ["6d", "5a"].into_iter().cycle().take(rss.key.len()).collect();
            let command = match key.is_empty() {
                true => format!("ethtool -X {interface} xfrm symmetric-xor"),
                false => format!("ethtool -X {interface} hfunc toeplitz hkey {}", key.join(":")),
            };
            Check::new("rss", format!("{queues} queues, by a hash that differs between directions"))
                .warn(why)
                .command(command)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    #[test]
    fn what_the_nic_does_to_packets() {
        assert_eq!(merging("e", Ok(0)).state, State::Ok);
        let on = merging("e", Ok(1));
        assert_eq!((on.state, on.fix, on.safe), (State::Bad, Some((Setting::Lro, 0)), true));
        let strip = vlan_strip("ens1", Ok(1));
        assert_eq!(
            (strip.state, strip.command.as_deref()),
            (State::Warn, Some("ethtool -K ens1 rxvlan off"))
        );
        assert_eq!((gro("e", Ok(1), false).safe, gro("e", Ok(1), true).safe), (true, false));
        assert_eq!(pause("e", Ok(0b010)).state, State::Ok, "it only obeys");
        assert_eq!((pause("e", Ok(0b001)).state, pause("e", Ok(0b100)).state), (State::Warn, State::Warn));
    }

    #[test]
    fn rings_that_could_be_larger() {
        assert_eq!(rings("e", Ok(4096), Ok(4096)).state, State::Ok);
        let small = rings("e", Ok(256), Ok(8160));
        assert_eq!(
            (small.command.as_deref(), small.fix),
            (Some("ethtool -G e rx 8160"), Some((Setting::RxRing, 8160)))
        );
        let none = || io::Error::from_raw_os_error(95);
        assert_eq!(rings("e", Err(none()), Ok(1)).state, State::Ok);
        assert_eq!(rings("e", Err(io::Error::from_raw_os_error(1)), Ok(1)).state, State::Unknown);
    }

    #[test]
    fn hashes_that_are_alike_for_both_directions() {
        // The key that most drivers begin with, and the one that repeats.
        let usual = [0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67];
        let even = [0x6d, 0x5a, 0x6d, 0x5a, 0x6d, 0x5a, 0x6d, 0x5a];
        let rss = |function, transformation, key: &[u8]| Rss { function, transformation, key: key.to_vec() };
        assert!(!symmetric(&rss(TOEPLITZ, 0, &usual)));
        assert!(symmetric(&rss(TOEPLITZ, 0, &even)) && symmetric(&rss(TOEPLITZ, 1, &usual)));
        assert!(!symmetric(&rss(2, 0, &even)) && !symmetric(&rss(TOEPLITZ, 0, &[])));
        let check = spread("e", 4, Ok(rss(TOEPLITZ, 0, &usual[..4])));
        assert_eq!(check.command.as_deref(), Some("ethtool -X e hfunc toeplitz hkey 6d:5a:6d:5a"));
        assert_eq!(spread("e", 1, Err(io::Error::from_raw_os_error(95))).state, State::Ok);
    }
}
