//! Checks of an interface: whether it may be taken, and what its driver makes of XDP. Main thread; asks the kernel and
//! changes nothing.

use dataplane::source::afpacket::link_type;
use dataplane::source::afxdp::foreign;
use dataplane::source::nic::{Nic, NicCounters};
use dataplane_sys::bpf::{XdpAbilities, xdp_state};
use dataplane_sys::ethtool;
use dataplane_sys::tuning::Setting;

use super::check::Check;
use crate::live::mode::Mode;

/// Bytes of IP that fit one buffer.
const ONE_BUFFER: u32 = 1770;

/// What is asked of an interface before it is judged.
pub struct Asked {
    pub nic: Nic,
    pub driver: String,
    pub queues: u32,
    pub abilities: Option<XdpAbilities>,
    pub counters: NicCounters,
}

impl Asked {
    /// # Errors
    /// There is no such interface.
    pub fn ask(name: &str) -> std::io::Result<Asked> {
        let nic = Nic::find(name)?;
        let abilities = xdp_state(nic.ifindex).ok().and_then(|state| state.abilities);
        Ok(Asked {
            driver: ethtool::driver(name).unwrap_or_else(|_| "unknown".to_owned()),
            queues: ethtool::receive_queues(name).unwrap_or(1),
            counters: nic.counters().unwrap_or_default(),
            abilities,
            nic,
        })
    }

    /// A veth pair, which has no wire and no ring of its own.
    pub fn is_veth(&self) -> bool {
        self.driver == "veth"
    }

    /// Bytes of its rings' memory, with so many packets in each.
    pub fn ring_bytes(&self, ring: u32) -> u64 {
        let frame = if self.nic.mtu > ONE_BUFFER { 4096 } else { 2048 };
        u64::from(self.queues) * 2 * u64::from(ring) * frame
    }
}

pub fn checks(asked: &Asked, mode: Mode) -> Vec<Check> {
    let nic = &asked.nic;
    let mut all = vec![link(nic, mode), free(nic, mode)];
    all.extend(nic.xdp_program.map(|id| occupied(nic, &foreign(id))));
    if mode != Mode::Afpacket {
        all.push(native(asked));
        all.push(zero_copy(asked));
        all.push(frames(nic.mtu, asked.abilities));
    }
    all.push(losses(asked.counters));
    all
}

fn link(nic: &Nic, mode: Mode) -> Check {
    if mode == Mode::Afpacket && link_type(nic).is_none() {
        return Check::new("link", "of a kind that is not read")
            .bad("captures are of Ethernet frames or raw IP");
    }
    if mode != Mode::Afpacket && !nic.ethernet {
        return Check::new("link", "no Ethernet interface")
            .bad("XDP captures Ethernet frames; referee run --mode afpacket takes raw IP and lo as well");
    }
    match (nic.up, nic.carrier) {
        (true, true) => Check::new("link", "up, with a link"),
        (true, false) => Check::new("link", "up, without a link")
            .bad("nothing can come: no cable, or the other end is off"),
        (false, _) => Check::new("link", "down")
            .bad("an interface that is down receives nothing")
            .command(format!("ip link set {} up", nic.name))
            .fix(Setting::Up, 1),
    }
}

fn free(nic: &Nic, mode: Mode) -> Check {
    if nic.depends.is_empty() {
        return Check::new("free", "no address, route, bridge or VLAN depends on it");
    }
    let check = Check::new("free", format!("depended on by {}", nic.depends.join(", ")));
    if mode == Mode::Afpacket {
        return Check::new("free", format!("{}, which AF_PACKET leaves alone", check.found));
    }
    check
        .bad("XDP takes its packets away from the host: what depends on it goes silent, and `run` refuses it")
        .command(format!("referee run -i {} --mode afpacket   (or --steal, if it is to go silent)", nic.name))
}

fn occupied(nic: &Nic, program: &str) -> Check {
    Check::new("xdp_program", format!("one is attached: {program}"))
        .bad("there is room for one, and a foreign one is never replaced")
        .command(format!(
            "bpftool link; bpftool prog; ip link show {}   (then stop whoever attached it)",
            nic.name
        ))
}

fn native(asked: &Asked) -> Check {
    let driver = &asked.driver;
    match asked.abilities {
        None => Check::unknown("native_xdp", format!("driver {driver}; this kernel doesn't say what it can")),
        Some(can) if can.native => Check::new("native_xdp", format!("driver {driver} runs XDP programs")),
        Some(_) => Check::new("native_xdp", format!("driver {driver} does not run XDP programs"))
            .warn("the program runs in the kernel's generic path: it works, at a fraction of the speed"),
    }
}

fn zero_copy(asked: &Asked) -> Check {
    match asked.abilities {
        None => Check::unknown("zero_copy", "this kernel doesn't say; `run` tries it and says what it got"),
        Some(can) if can.zero_copy => Check::new("zero_copy", "yes"),
        Some(_) => Check::new("zero_copy", format!("driver {} can't", asked.driver))
            .warn(without_zero_copy(&asked.driver)),
    }
}

/// What it costs, and from which kernel on a driver that lacks it has it.
fn without_zero_copy(driver: &str) -> &'static str {
    match driver {
        "igb" => "each packet is copied once more; Linux 6.14 has it for this driver",
        "virtio_net" => {
            "each packet is copied once more; Linux 6.11 has it for this driver, if the host gives it the queues"
        }
        _ => "each packet is copied once more",
    }
}

fn frames(mtu: u32, abilities: Option<XdpAbilities>) -> Check {
    let check = Check::new("frames", format!("MTU {mtu}"));
    match abilities {
        _ if mtu <= ONE_BUFFER => check,
        Some(can) if !can.multi_buffer => check
            .bad("longer packets than fit a buffer need a driver that takes them in parts, which this one doesn't")
            .command("ip link set IFACE mtu 1500"),
        Some(can) if can.zero_copy && can.zero_copy_buffers < 2 => {
            check.warn("longer packets than fit a buffer rule out zero-copy with this driver")
        }
        _ => check,
    }
}

fn losses(counters: NicCounters) -> Check {
    let NicCounters { rx_missed, rx_errors, .. } = counters;
    let check =
        Check::new("nic_losses", format!("{rx_missed} missed, {rx_errors} damaged since it was made"));
    if rx_missed + rx_errors == 0 {
        return check;
    }
    check.warn("lost before anybody saw them: a ring that was too small or a CPU that came too late; damaged: cable, optics")
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    fn nic() -> Nic {
        Nic {
            hardware: 1,
            name: "tap0".into(),
            ifindex: 2,
            ethernet: true,
            up: true,
            carrier: true,
            mtu: 1500,
            xdp_program: None,
            depends: Vec::new(),
        }
    }

    const ICE: XdpAbilities =
        XdpAbilities { native: true, zero_copy: true, multi_buffer: true, zero_copy_buffers: 5 };
    const IGB: XdpAbilities = XdpAbilities { multi_buffer: false, zero_copy_buffers: 1, ..ICE };

    fn asked(nic: Nic, abilities: Option<XdpAbilities>) -> Asked {
        Asked { nic, driver: "ice".into(), queues: 4, abilities, counters: NicCounters::default() }
    }

    #[test]
    fn a_free_port_of_a_good_nic_is_ready() {
        let all = checks(&asked(nic(), Some(ICE)), Mode::Auto);
        assert!(all.iter().all(|check| check.state == State::Ok), "{all:?}");
        assert_eq!(asked(nic(), None).ring_bytes(16_384), 4 * (64 << 20));
    }

    #[test]
    fn a_newer_kernel_is_advised_where_it_would_help() {
        let why = |driver: &str| {
            let can = XdpAbilities { zero_copy: false, ..ICE };
            zero_copy(&Asked { driver: driver.into(), ..asked(nic(), Some(can)) }).why
        };
        assert!(why("igb").contains("Linux 6.14") && why("virtio_net").contains("Linux 6.11"));
        assert_eq!(why("veth"), "each packet is copied once more");
    }

    #[test]
    fn what_stands_in_the_way_is_bad() {
        let bad = |nic: Nic, abilities| {
            let all = checks(&asked(nic, abilities), Mode::Auto);
            all.into_iter()
                .filter(|check| check.state == State::Bad)
                .map(|check| check.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(bad(Nic { up: false, ..nic() }, Some(ICE)), ["link"]);
        assert_eq!(bad(Nic { carrier: false, ..nic() }, None), ["link"]);
        assert_eq!(bad(Nic { depends: vec!["the address 10.0.0.1".into()], ..nic() }, None), ["free"]);
        assert_eq!(bad(Nic { xdp_program: Some(u32::MAX), ..nic() }, None), ["xdp_program"]);
        assert_eq!(bad(Nic { mtu: 9000, ..nic() }, Some(IGB)), ["frames"]);
        assert_eq!(bad(Nic { mtu: 9000, ..nic() }, Some(ICE)), [""; 0]);
        let used = Nic { depends: vec!["the default route".into()], ..nic() };
        assert_eq!(free(&used, Mode::Afpacket).state, State::Ok);
    }
}
