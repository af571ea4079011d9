//! War stories: small captures in each of which one thing is broken, and what is then true of them.
//!
//! Runs on the caller's thread, in memory; one seed gives the same bytes every time. No files are opened here.
//! Packets go to write.rs or to a test in the same process, truth to whoever judges a judgement.

mod crowd;
mod demo;
mod healthy;
mod idle;
mod loss;
mod names;
mod negotiation;
mod next_hop;
mod oddities;
mod pmtu;
mod segments;
mod stalls;
mod storm;
mod strangers;
mod talk;
pub mod trouble;
mod window;
mod world;

use std::io::{self, Write};

use crate::encap::Encap;
use crate::truth::Truth;
use crate::write::{Style, Writer};

pub use healthy::dns;
use world::World;
pub use world::flow_line;

/// All captures begin here: 2025-10-09T08:53:20Z, ns since the epoch.
pub const START: u64 = 1_760_000_000 * 1_000_000_000;

/// What can be asked of a scenario; what does not concern one is ignored by it.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub seed: u64,
    /// IPv6 instead of IPv4.
    pub v6: bool,
    /// Outer and inner VLAN id; 0 for none.
    pub vlan: [u16; 2],
    /// What the frames are put into.
    pub encap: Encap,
    /// Length of the silence a scenario turns on, seconds (`rst_after_idle`, `keepalive`).
    pub idle_s: Option<f64>,
    /// How many flows (1–20,000): troubled ones, or all of `healthy`; connections of `syn_no_synack`; SYNs of
    /// `syn_flood`.
    pub flows: Option<u32>,
    /// `syn_no_synack`: one in so many SYNs vanishes.
    pub one_in: Option<u32>,
    /// How the file is written.
    pub style: Style,
}

impl Default for Options {
    fn default() -> Self {
        let style = Style::default();
        Options {
            seed: 1,
            v6: false,
            vlan: [0; 2],
            encap: Encap::None,
            idle_s: None,
            flows: None,
            one_in: None,
            style,
        }
    }
}

/// One packet; `ts` in ns since the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub ts: u64,
    pub bytes: Vec<u8>,
}

struct Scenario {
    name: &'static str,
    about: &'static str,
    build: fn(&mut World),
}

const SCENARIOS: [Scenario; 51] = [
    Scenario {
        name: "healthy",
        about: "200 clean flows, DNS, ping, ARP: nothing to report",
        build: healthy::build,
    },
    Scenario {
        name: "rst_midflow",
        about: "a server resets flows in the middle of a request",
        build: |w| healthy::with_siblings(w, "rst_midflow", 3),
    },
    Scenario {
        name: "rst_after_idle",
        about: "a middlebox forgets flows idle for more than --idle (300 s) and forges RSTs, TTL 253",
        build: idle::rst_after_idle,
    },
    Scenario {
        name: "rst_storm",
        about: "a host answers the data of --flows (200) existing flows with RST, within a second",
        build: |w| storm::rst_storm(w, storm::Storm { host: 40, flows: w.flows(200), at_s: 4.0 }),
    },
    Scenario {
        name: "conn_refused",
        about: "SYNs to a closed port are answered by RST",
        build: |w| healthy::with_siblings(w, "conn_refused", 5),
    },
    Scenario {
        name: "syn_no_synack",
        about: "one in --one-in (20) SYNs to a service vanishes, its retries at 1, 3 and 7 s too",
        build: storm::syn_no_synack,
    },
    Scenario {
        name: "syn_retransmission",
        about: "the first SYN is lost, its retry answered",
        build: |w| healthy::with_siblings(w, "syn_retransmission", 4),
    },
    Scenario {
        name: "retransmission",
        about: "segments are lost beyond the tap and sent again, by duplicate ACKs and by timeout",
        build: |w| healthy::with_siblings(w, "retransmission", 4),
    },
    Scenario {
        name: "zero_window",
        about: "a client stops reading for 8.8 s: window closed, probed, opened again",
        build: |w| healthy::with_siblings(w, "zero_window", 3),
    },
    Scenario {
        name: "zero_window_short",
        about: "the same for 4.9 s, too short to look at",
        build: stalls::zero_window_short,
    },
    Scenario {
        name: "rst_injected",
        about: "a device in the path forges RSTs to one end or both; others are their hosts' own, by another route",
        build: strangers::rst_injected,
    },
    Scenario {
        name: "half_open",
        about: "a client is gone, the server repeats its data for 10 s and more; others come back after 9 s",
        build: stalls::half_open,
    },
    Scenario {
        name: "accept_queue_full",
        about: "a server repeats its SYN-ACK after the client's ACK; others because no ACK came",
        build: stalls::accept_queue_full,
    },
    Scenario {
        name: "icmp_ignored",
        about: "ICMP says the packets are too large, and the sender keeps their size",
        build: stalls::icmp_ignored,
    },
    Scenario {
        name: "icmp_frag_needed",
        about: "path MTU discovery works: ICMP arrives, the sender uses smaller segments",
        build: |w| healthy::with_siblings(w, "icmp_frag_needed", 3),
    },
    Scenario {
        name: "pmtu_blackhole",
        about: "full-size DF segments are sent again and again and never acknowledged, small ones pass",
        build: |w| healthy::with_siblings(w, "pmtu_blackhole", 3),
    },
    Scenario {
        name: "pmtu_blackhole_silent",
        about: "the same while the receiver waits in silence; one is answered after 9 s",
        build: stalls::pmtu_silent,
    },
    Scenario {
        name: "wscale_missing",
        about: "the window scale option is missing in SYN-ACKs, or in both SYNs",
        build: |w| healthy::with_siblings(w, "wscale_missing", 4),
    },
    Scenario {
        name: "sack_missing",
        about: "SACK-permitted is missing in SYN-ACKs, or in both SYNs",
        build: |w| healthy::with_siblings(w, "sack_missing", 4),
    },
    Scenario {
        name: "ecn_syn_blackhole",
        about: "SYNs that offer ECN vanish, the plain one after 2.5 s is answered",
        build: |w| healthy::with_siblings(w, "ecn_syn_blackhole", 3),
    },
    Scenario {
        name: "ecn_ce",
        about: "congestion is echoed 25 times and the sender never answers that it heard",
        build: negotiation::ecn_ce,
    },
    Scenario {
        name: "sack_garbled",
        about: "SACK blocks lie outside the sequence space: a device shifted numbers and forgot them",
        build: |w| healthy::with_siblings(w, "sack_garbled", 3),
    },
    Scenario {
        name: "mss_low",
        about: "a server takes at most 300 bytes in a segment",
        build: |w| healthy::with_siblings(w, "mss_low", 2),
    },
    Scenario {
        name: "window_limited",
        about: "2 MB over 40 ms of round trip, without window scaling: the window is the limit",
        build: |w| healthy::with_siblings(w, "window_limited", 1),
    },
    Scenario {
        name: "loss_limited",
        about: "one segment in eight is lost over 40 ms of round trip",
        build: |w| healthy::with_siblings(w, "loss_limited", 1),
    },
    Scenario {
        name: "keepalive",
        about: "idle flows kept alive by a probe every --idle (30) seconds",
        build: idle::keepalive,
    },
    Scenario {
        name: "syn_flood",
        about: "--flows (2000) SYNs from spoofed sources to one service in two seconds",
        build: storm::syn_flood,
    },
    Scenario {
        name: "span_duplicates",
        about: "the healthy network, each packet delivered twice by the mirror: nothing to report",
        build: healthy::seen_twice,
    },
    Scenario {
        name: "fragments",
        about: "the healthy network behind a link of 576 bytes that splits what is larger: nothing to report",
        build: healthy::in_fragments,
    },
    Scenario {
        name: "dns_slow",
        about: "--flows (4) DNS answers after 1 to 3 s, others just below",
        build: names::slow,
    },
    Scenario {
        name: "dns_unanswered",
        about: "--flows (4) DNS questions nobody answers",
        build: names::unanswered,
    },
    Scenario {
        name: "dns_timeout_retry",
        about: "DNS questions without answer, asked again: 5 s later as glibc does, from other ports, of other servers",
        build: names::retried,
    },
    Scenario {
        name: "dns_error",
        about: "a resolver that answers SERVFAIL, and names that do not exist",
        build: names::errors,
    },
    Scenario {
        name: "rst_after_clienthello",
        about: "TLS ClientHellos answered by RST, forged and genuine",
        build: talk::rst_after_clienthello,
    },
    Scenario {
        name: "tls_no_server_hello",
        about: "TLS ClientHellos answered by nothing, or by FIN",
        build: talk::tls_no_server_hello,
    },
    Scenario {
        name: "http_server_error",
        about: "a web service of which half the answers are 500, and one with a single one",
        build: talk::http_server_error,
    },
    Scenario {
        name: "slow_server",
        about: "requests acknowledged at once and answered 5 to 8 s later",
        build: talk::slow_server,
    },
    Scenario {
        name: "slow_connect",
        about: "handshakes of a second and more, without a loss and with two",
        build: talk::slow_connect,
    },
    Scenario {
        name: "port_scan",
        about: "a client probes --flows (150) ports of one host: silence, refusals, a few open",
        build: crowd::port_scan,
    },
    Scenario {
        name: "host_scan",
        about: "a client tries port 22 on --flows (80) hosts",
        build: crowd::host_scan,
    },
    Scenario {
        name: "port_exhaustion",
        about: "a client makes --flows (120) connections to one service from 24 ports",
        build: crowd::port_exhaustion,
    },
    Scenario {
        name: "connection_churn",
        about: "a client opens and closes --flows (1300) connections to one service, 110 a second",
        build: crowd::connection_churn,
    },
    Scenario {
        name: "syn_unanswered_ratio",
        about: "one in fifty of --flows (600) SYNs to a service is lost, the retries get through",
        build: crowd::syn_unanswered_ratio,
    },
    Scenario {
        name: "outage",
        about: "a service is silent for four seconds; --flows (250) clients repeat their SYNs: no flood",
        build: crowd::outage,
    },
    Scenario {
        name: "busy",
        about: "--flows (900) connections to one service in three seconds, all of which complete",
        build: crowd::busy,
    },
    Scenario {
        name: "syn_recv_pileup",
        about: "the SYN-ACKs of --flows (200) handshakes are lost on their way back",
        build: crowd::syn_recv_pileup,
    },
    Scenario {
        name: "close_wait_pileup",
        about: "--flows (260) clients have closed, the service has not",
        build: crowd::close_wait_pileup,
    },
    Scenario {
        name: "fin_wait2_pileup",
        about: "a service has closed --flows (260) connections, the clients have not",
        build: crowd::fin_wait2_pileup,
    },
    Scenario {
        name: "time_wait_pileup",
        about: "--flows (260; a pile from 10000 on) connections to a service are closed within 50 s",
        build: crowd::time_wait_pileup,
    },
    Scenario {
        name: "service_down",
        about: "a service refuses --flows (26) connections within 6 s, another 38 within 20 s",
        build: crowd::service_down,
    },
    Scenario {
        name: "demo",
        about: "a minute of a misbehaving network: four troubles at different times among healthy flows",
        build: demo::build,
    },
];

/// The names of all scenarios.
pub const NAMES: [&str; SCENARIOS.len() + oddities::SCENARIOS.len()] = {
    let (here, odd) = (&SCENARIOS, &oddities::SCENARIOS);
    let mut names = [""; SCENARIOS.len() + oddities::SCENARIOS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = if i < here.len() { here[i].name } else { odd[i - here.len()].name };
        i += 1;
    }
    names
};

fn find(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().chain(&oddities::SCENARIOS).find(|s| s.name == name)
}

/// What a scenario is about, in one line.
pub fn about(name: &str) -> Option<&'static str> {
    find(name).map(|s| s.about)
}

/// The packets of a scenario in time order, and what is true of them; `None` if there is no such scenario.
pub fn packets(name: &str, options: &Options) -> Option<(Vec<Packet>, Truth)> {
    let scenario = find(name)?;
    let mut world = World::new(options);
    (scenario.build)(&mut world);
    Some(world.finish())
}

/// How much was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub packets: u64,
    /// Size of the capture file, bytes.
    pub bytes: u64,
}

/// Writes a scenario as a capture file, in the options' style.
///
/// # Errors
/// `NotFound` for an unknown name; those of the output.
pub fn write(name: &str, options: &Options, out: &mut dyn Write) -> io::Result<(Truth, Written)> {
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("no scenario is called {name:?}"));
    let (packets, truth) = packets(name, options).ok_or_else(unknown)?;
    let mut writer = Writer::new(out, options.style)?;
    for packet in &packets {
        writer.packet(packet.ts, &packet.bytes)?;
    }
    let written = Written { packets: packets.len() as u64, bytes: writer.written };
    writer.finish()?;
    Ok((truth, written))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{self, Seen};
    use crate::packet::{ACK, RST, SYN};
    use crate::truth::{Line, Scope};

    fn small() -> Options {
        Options { idle_s: Some(20.0), ..Options::default() }
    }

    fn seen(packets: &[Packet], line: &Line) -> Vec<Seen> {
        line.marks.iter().filter_map(|n| check::read(&packets[*n as usize - 1].bytes).ok()).collect()
    }

    #[test]
    fn every_scenario_builds_in_both_ip_versions_and_with_vlans() {
        for name in NAMES {
            for (v6, vlan) in [(false, [0, 0]), (true, [0, 0]), (false, [110, 0]), (true, [20, 30])] {
                let (packets, truth) = packets(name, &Options { v6, vlan, ..small() }).unwrap();
                assert!(!truth.lines.is_empty() && packets.len() > 500, "{name}");
                assert!(packets.windows(2).all(|w| w[0].ts <= w[1].ts), "{name}");
                // What happens to frames on the way is not what `check` knows.
                let rendered =
                    if ["span_duplicates", "fragments"].contains(&name) { 0 } else { packets.len() };
                for p in &packets[..rendered] {
                    match check::read(&p.bytes) {
                        Ok(s) => assert_eq!((s.vlan, s.src.is_ipv6()), (vlan, v6), "{name}"),
                        Err(e) => assert!(e.starts_with("not IP: ether type 0x0806"), "{name}: {e}"),
                    }
                }
            }
        }
    }

    #[test]
    fn a_mirror_sees_each_packet_twice_and_a_narrow_link_splits_the_large() {
        let plain = packets("healthy", &small()).unwrap().0;
        let twice = packets("span_duplicates", &small()).unwrap().0;
        assert_eq!(twice.len(), 2 * plain.len());
        assert!(plain.iter().all(|p| twice.contains(p)));
        let split = packets("fragments", &small()).unwrap().0;
        assert!(split.len() > plain.len() && split.iter().all(|p| p.bytes.len() <= 14 + 20 + 552));
        let tunnelled = packets("healthy", &Options { encap: Encap::Vxlan, ..small() }).unwrap().0;
        assert!(plain.iter().zip(&tunnelled).all(|(p, t)| t.bytes.ends_with(&p.bytes) && t.ts == p.ts));
    }

    #[test]
    fn same_options_same_bytes_other_seed_others() {
        let file = |name, seed| {
            let mut out = Vec::new();
            let (truth, written) = write(name, &Options { seed, ..small() }, &mut out).unwrap();
            assert_eq!(written.bytes, out.len() as u64);
            let mut lines = Vec::new();
            truth.write(&mut lines).unwrap();
            (out, lines)
        };
        for name in NAMES {
            assert!(file(name, 1) == file(name, 1), "{name}");
        }
        assert!(file("healthy", 1).0 != file("healthy", 2).0);
        assert!(write("nonsense", &small(), &mut Vec::new()).is_err());
    }

    #[test]
    fn marks_point_at_packets_of_the_flow_and_counts_agree() {
        for name in NAMES {
            let (packets, truth) = packets(name, &small()).unwrap();
            for line in truth.lines.iter().filter(|l| l.scope == Scope::Flow && l.kind != "healthy") {
                assert!(!line.marks.is_empty(), "{name}: {} shows nothing", line.kind);
                for s in seen(&packets, line).iter().filter(|s| s.protocol == 6) {
                    let ends = [(Some(s.src), Some(s.sport)), (Some(s.dst), Some(s.dport))];
                    assert!(ends.contains(&(line.src, line.sport)) && ends.contains(&(line.dst, line.dport)));
                }
                let per_packet = [
                    "retransmission",
                    "syn_retransmission",
                    "zero_window",
                    "duplicate_ack",
                    "keepalive",
                    "rst_midflow",
                    "icmp_frag_needed",
                    "zero_window_probe",
                ];
                if let (true, Some(count)) = (per_packet.contains(&line.kind.as_str()), line.count) {
                    assert_eq!(line.marks.len() as u32, count, "{name}: {}", line.kind);
                }
            }
        }
    }

    #[test]
    fn a_middlebox_forges_after_silence_and_siblings_live() {
        let (packets, truth) = packets("rst_after_idle", &small()).unwrap();
        let dead: Vec<&Line> = truth.of_kind("rst_after_idle").collect();
        assert_eq!(dead.len(), 8);
        for line in dead {
            assert!(line.idle_s.unwrap() > 20.0);
            let rst = seen(&packets, line)[0];
            assert_eq!((rst.flags, rst.ttl), (RST, trouble::MIDDLEBOX_TTL));
        }
        let alive: Vec<f64> = truth.of_kind("healthy").filter_map(|l| l.idle_s).collect();
        assert_eq!(alive.len(), 16);
        assert!(alive.iter().all(|s| *s < 20.0) && alive.iter().any(|s| *s > 19.0));
    }

    #[test]
    fn a_storm_is_a_storm_and_a_flood_a_flood() {
        let (packets, truth) = packets("rst_storm", &small()).unwrap();
        let line = truth.of_kind("rst_storm").next().unwrap();
        assert_eq!((line.scope, line.count), (Scope::Host, Some(200)));
        let time = |n: &u64| packets[*n as usize - 1].ts;
        let span = time(line.marks.last().unwrap()) - time(&line.marks[0]);
        assert!(span < trouble::SECOND);
        assert!(seen(&packets, line).iter().all(|s| Some(s.src) == line.host && s.flags == RST));

        let (packets, truth) = super::packets("syn_flood", &small()).unwrap();
        let line = truth.of_kind("syn_flood").next().unwrap();
        assert_eq!((line.scope, line.count, line.dport), (Scope::Service, Some(2000), Some(443)));
        assert!(seen(&packets, line).iter().all(|s| s.flags == SYN));
    }

    #[test]
    fn vanished_syns_are_one_in_n_and_never_answered() {
        let (packets, truth) = packets("syn_no_synack", &Options { one_in: Some(10), ..small() }).unwrap();
        let lost: Vec<&Line> = truth.of_kind("syn_no_synack").collect();
        assert_eq!(lost.len(), 40);
        for p in &packets {
            let Ok(s) = check::read(&p.bytes) else { continue };
            assert!(!lost.iter().any(|l| (l.src, l.sport) == (Some(s.dst), Some(s.dport))));
        }
    }

    #[test]
    fn options_are_missing_where_the_truth_says_so() {
        for (name, missing) in [
            ("wscale_missing", (|s: &Seen| s.window_scale.is_none()) as fn(&Seen) -> bool),
            ("sack_missing", |s: &Seen| !s.sack_permitted),
        ] {
            let (packets, truth) = packets(name, &small()).unwrap();
            for line in truth.of_kind(name) {
                assert!(seen(&packets, line).iter().all(missing));
            }
            let lacking = packets.iter().filter_map(|p| check::read(&p.bytes).ok());
            let lacking = lacking.filter(|s| s.flags == SYN | ACK && missing(s)).count();
            assert_eq!(lacking, truth.of_kind(name).count());
        }
    }
}
