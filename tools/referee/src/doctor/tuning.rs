//! Checks of an interface's settings: what the NIC does to packets before anybody sees them, how many it can hold, how it
//! spreads them. Main thread; reads, and says what `--fix` may set.

use std::io;

use dataplane::source::rss::{self, Spread, symmetric_key};
use dataplane_sys::ethtool::{self, Channels};
use dataplane_sys::tuning::{self, Setting, largest_rx_ring};

use super::check::Check;
use super::nic::Asked;
use crate::live::mode::Mode;

/// Pause frames are sent, or may be agreed on.
const PAUSE_SENT: u32 = 0b101;

/// Who deals with what the queues bring.
#[derive(Clone, Copy, Debug)]
pub struct Workers {
    pub count: usize,
    /// They give each other the packets that are theirs.
    pub hand_over: bool,
}

pub fn checks(asked: &Asked, mode: Mode, workers: Workers) -> Vec<Check> {
    let name = asked.nic.name.as_str();
    let read = |setting| tuning::read(name, setting);
    let mut all = vec![merging(name, read(Setting::Lro))];
    match mode {
        Mode::Afpacket => all.push(gro(name, read(Setting::Gro), asked.is_veth())),
        Mode::Auto | Mode::Xdp => {
            all.push(Check::new("gro", "of no matter: XDP comes before it"));
            all.push(vlan_strip(name, read(Setting::VlanStrip), asked.is_veth()));
        }
    }
    all.push(rings(name, read(Setting::RxRing), largest_rx_ring(name)));
    all.push(pause(name, read(Setting::Pause)));
    all.push(match mode {
        Mode::Afpacket => Check::new("rss", "of no matter: one socket hears all queues"),
        Mode::Auto | Mode::Xdp => spread(asked, rss::look(name), ethtool::channels(name).ok(), workers),
    });
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

fn vlan_strip(interface: &str, on: io::Result<u32>, veth: bool) -> Check {
    match on {
        Err(error) => missing("vlan_strip", &error),
        Ok(1..) if veth => Check::new(
            "vlan_strip",
            "a veth takes none out; those of a VLAN interface on its other end are seen with txvlan off there",
        ),
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

fn spread(
    asked: &Asked,
    hash: io::Result<(Spread, usize)>,
    channels: Option<Channels>,
    workers: Workers,
) -> Check {
    let (queues, name) = (asked.queues, asked.nic.name.as_str());
    if queues < 2 {
        return Check::new("rss", "one queue");
    }
    let how = match &hash {
        Ok((spread, _)) if spread.symmetric() == Some(true) => {
            return Check::new("rss", format!("{queues} queues, both directions alike"));
        }
        Ok((Spread::Asymmetric, _)) => "by a hash that differs between directions".to_owned(),
        Ok(_) => "by a hash that the driver doesn't tell".to_owned(),
        Err(error) => format!("how packets are spread is not told ({error})"),
    };
    let found = format!("{queues} queues; {how}");
    if workers.count < 2 {
        return Check::new("rss", format!("{found}; one worker has them all"));
    }
    if !workers.hand_over {
        return Check::new("rss", found)
            .warn("a connection whose two directions reach different workers is judged as two halves")
            .command("redispatch = \"auto\" in [capture] of /etc/referee/referee.toml");
    }
    let advised = match hash {
        Ok((Spread::Asymmetric, 0)) => Some(format!("ethtool -X {name} xfrm symmetric-xor")),
        Ok((Spread::Asymmetric, bytes)) => {
            Some(format!("ethtool -X {name} hfunc toeplitz hkey {}", symmetric_key(bytes)))
        }
        // Native XDP needs as many queues as the other end of the pair sends by.
        _ if asked.is_veth() => None,
        _ => channels.and_then(|channels| one_queue(name, channels)),
    };
    match advised {
        Some(command) => Check::new("rss", found)
            .warn("the two directions of a connection may reach different workers, which hand each other copies")
            .command(command),
        None => Check::new("rss", format!("{found}; the workers hand each other what is theirs")),
    }
}

/// What makes one receive queue of several, as the device has them.
fn one_queue(interface: &str, channels: Channels) -> Option<String> {
    let Channels { rx, combined, max_rx, max_combined } = channels;
    let counts = match (combined > 0 && max_combined > 0, rx > 0 && max_rx > 0) {
        (true, true) => "rx 0 combined 1",
        (true, false) => "combined 1",
        (false, true) => "rx 1",
        (false, false) => return None,
    };
    Some(format!("ethtool -L {interface} {counts}"))
}

#[cfg(test)]
mod tests {
    use dataplane::source::nic::{Nic, NicCounters};

    use super::super::check::State;
    use super::*;

    #[test]
    fn what_the_nic_does_to_packets() {
        assert_eq!(merging("e", Ok(0)).state, State::Ok);
        let on = merging("e", Ok(1));
        assert_eq!((on.state, on.fix, on.safe), (State::Bad, Some((Setting::Lro, 0)), true));
        assert_eq!(
            (vlan_strip("e", Ok(1), true).state, vlan_strip("e", Ok(1), true).command),
            (State::Ok, None)
        );
        let strip = vlan_strip("ens1", Ok(1), false);
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
    fn advice_about_queues_fits_the_device_and_the_workers() {
        let asked = |driver: &str, queues| Asked {
            nic: Nic::find("lo").unwrap(),
            driver: driver.to_owned(),
            queues,
            abilities: None,
            counters: NicCounters::default(),
        };
        let none = || Err(io::Error::from_raw_os_error(95));
        let told = |driver, hash, channels, count, hand_over| {
            let check = spread(&asked(driver, 4), hash, Some(channels), Workers { count, hand_over });
            (check.state, check.command)
        };
        let combined = Channels { combined: 4, max_combined: 8, ..Channels::default() };
        let rx = Channels { rx: 4, max_rx: 4, ..Channels::default() };
        let both = Channels { rx: 2, max_rx: 4, combined: 2, max_combined: 4 };
        let command = |text: &str| (State::Warn, Some(text.to_owned()));
        assert_eq!(told("e", none(), combined, 4, true), command("ethtool -L lo combined 1"));
        assert_eq!(told("e", none(), rx, 4, true), command("ethtool -L lo rx 1"));
        assert_eq!(told("e", none(), both, 4, true), command("ethtool -L lo rx 0 combined 1"));
        assert_eq!(told("e", none(), Channels::default(), 4, true), (State::Ok, None));
        // Fewer would cost native XDP.
        assert_eq!(told("veth", none(), rx, 4, true), (State::Ok, None));
        let halves = command("redispatch = \"auto\" in [capture] of /etc/referee/referee.toml");
        assert_eq!(told("veth", none(), rx, 4, false), halves);
        assert_eq!(told("e", none(), combined, 1, true), (State::Ok, None), "one worker has them all");
        let key = told("e", Ok((Spread::Asymmetric, 4)), combined, 4, true);
        assert_eq!(key, command("ethtool -X lo hfunc toeplitz hkey 6d:5a:6d:5a"));
        let mixed = told("e", Ok((Spread::Asymmetric, 0)), combined, 4, true);
        assert_eq!(mixed, command("ethtool -X lo xfrm symmetric-xor"));
        assert_eq!(told("e", Ok((Spread::ByKey, 40)), combined, 4, false), (State::Ok, None));
        let workers = Workers { count: 4, hand_over: true };
        assert_eq!(spread(&asked("e", 1), none(), Some(combined), workers).state, State::Ok);
    }
}
