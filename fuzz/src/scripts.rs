//! Bytes as a rule file. libFuzzer's thread; whatever loads is asked about facts of nothing and about facts as large as
//! they get, and its bodies run, within a share of the limits they have in the program.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rules::facts::{ClientFacts, Counts, FlowFacts, HostFacts, LinkFacts, ServiceFacts, ServiceStates, Side, SideFacts};
use rules::{Bodies, BodyLimits, Event, Hits, Override, RuleSet, Scope, Snapshot, SourceFile};

const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

pub fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let file = SourceFile { name: "rules/input.rhai".to_owned(), text: text.to_owned() };
    let value = Override { rule: "input".to_owned(), param: "least".to_owned(), value: "3".to_owned() };
    let _ = RuleSet::load(std::slice::from_ref(&file), &[value]).map_err(|errors| {
        assert!(!errors.is_empty(), "refused without a word");
        for error in errors {
            assert!(!error.to_string().is_empty());
        }
    });
    let Ok(set) = RuleSet::load(&[file], &[]) else { return };
    let set = Arc::new(set);
    let mut hits = Hits::new();
    for flow in [FlowFacts::default(), extreme()] {
        for event in Event::ALL {
            set.match_flow(event, &flow, &mut hits);
            hits.clear();
        }
    }
    set.match_host(&host(), &mut hits);
    set.match_service(&service(), &mut hits);
    set.match_link(&link(), &mut hits);
    run_bodies(&set);
}

fn run_bodies(set: &Arc<RuleSet>) {
    let limits = BodyLimits { operations: 2000, ..BodyLimits::default() };
    let mut bodies = Bodies::new(Arc::clone(set), limits);
    let (flow, host, service, link) = (extreme(), host(), service(), link());
    for (index, rule) in (0..8_u16).zip(set.rules()) {
        let snapshot = match rule.scope {
            Scope::Flow => Snapshot::Flow(&flow, Event::Rst),
            Scope::Host => Snapshot::Host(&host),
            Scope::Service => Snapshot::Service(&service),
            Scope::Link => Snapshot::Link(&link),
        };
        if let Err(error) = bodies.run(index, &snapshot) {
            let text = error.to_string();
            assert!(!text.contains("internal error"), "{text}");
        }
    }
}

/// Facts no capture gives, at the ends of their ranges.
fn extreme() -> FlowFacts {
    let side = SideFacts { packets: u64::MAX, ..SideFacts::default() };
    FlowFacts {
        by: Some(Side::Resp),
        orig: side,
        resp: side,
        established: true,
        sport: u16::MAX,
        now_ns: u64::MAX,
        syns: u32::MAX,
        syn_age_ms: Some(u64::MAX),
        idle_before_ms: u64::MAX,
        rtt_client_us: Some(0),
        rtt_server_us: Some(1),
        ttl: Some(0),
        icmp_mtu: Some(u32::MAX),
        ..FlowFacts::default()
    }
}

fn counts() -> [Counts; 3] {
    [
        Counts::default(),
        Counts { rsts: 50, ..Counts::default() },
        Counts { syns: u32::MAX, ..Counts::default() },
    ]
}

fn host() -> HostFacts {
    let [last_1s, last_10s, last_60s] = counts();
    HostFacts { addr: NOBODY, now_ns: 0, last_1s, last_10s, last_60s, client: ClientFacts::default() }
}

fn service() -> ServiceFacts {
    let [last_1s, last_10s, last_60s] = counts();
    let states = ServiceStates::default();
    ServiceFacts {
        addr: NOBODY,
        port: 443,
        proto: 6,
        now_ns: u64::MAX,
        last_1s,
        last_10s,
        last_60s,
        unfinished_most: u32::MAX,
        states,
    }
}

fn link() -> LinkFacts {
    let [last_1s, last_10s, last_60s] = counts();
    LinkFacts { state_entries: u32::MAX, last_1s, last_10s, last_60s, ..LinkFacts::default() }
}
