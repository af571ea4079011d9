//! Facts set by name: how a rule's test cases make the snapshot they are about. The counterpart of the getters in `table`.
//!
//! Runs where rules are tried out; nothing here is called while packets come. A fact that follows from others is refused.

use std::net::IpAddr;

use crate::facts::table::{Fact, Subject, Window};
use crate::facts::{
    Counts, Dealings, DnsFacts, FlowFacts, HostFacts, LinkFacts, Name, ServiceEntries, ServiceFacts, Side,
    SideFacts,
};
use crate::nearest::nearest;
use crate::verdict::EvidenceValue;

/// Why a fact can't be set.
pub(crate) type Refused = String;
type Done = Result<(), Refused>;

/// A snapshot whose facts can be set by name.
pub(crate) trait Given: Subject {
    /// False if the fact follows from others, or has a window that counts are not kept for.
    fn put(&mut self, path: &str, window: Option<Window>, value: &EvidenceValue) -> Result<bool, Refused>;
}

/// Sets a fact as rules write it, `host.rsts(10)` included.
pub(crate) fn give<S: Given>(subject: &mut S, name: &str, value: &EvidenceValue) -> Done {
    let (path, window) = match name.strip_suffix(')').and_then(|rest| rest.split_once('(')) {
        Some((path, seconds)) => {
            let window = seconds.trim().parse().ok().and_then(Window::from_seconds);
            (
                path,
                Some(window.ok_or_else(|| format!("`{name}`: counts are kept over 1, 10 and 60 seconds"))?),
            )
        }
        None => (name, None),
    };
    let Some(fact) = S::find(path) else {
        let near = nearest(path, S::facts().map(|fact| fact.path));
        let help = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        return Err(format!("there is no fact `{name}` of a {}{help}", S::ROOT));
    };
    if fact.is_windowed() != window.is_some() {
        return Err(match window {
            None => format!("`{name}` needs a window: write `{path}(10)`"),
            Some(_) => format!("`{path}` has no window: write it without `(…)`"),
        });
    }
    match subject.put(path, window, value) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("`{name}` follows from other facts{}; give those", follows_from(fact))),
        Err(wanted) => Err(format!("`{name}` is {wanted}; {value} is not")),
    }
}

fn follows_from<S>(fact: &Fact<S>) -> &'static str {
    match fact.path {
        "flow.orig_opened" => " (flow.syns, flow.sport, flow.dport)",
        "flow.unacked" => " (flow.orig.unacked, flow.resp.unacked)",
        "flow.rtt_us" => " (flow.rtt_client_us, flow.rtt_server_us)",
        path if path.ends_with(".segments") => " (payload, max_payload)",
        path if path.ends_with(".losses") => " (retransmissions, needless)",
        path if path.ends_with(".loss_ppm") => " (retransmissions, needless, payload, max_payload)",
        path if path.ends_with("ratio") => " (unanswered, syns)",
        path if path.ends_with(".rate") => " (payload, flow.age_ms)",
        path if path.ends_with("_bound") => " (the round trip, losses and windows)",
        path if path.ends_with("_rate") => " (the count of the same name)",
        _ => "",
    }
}

/// A field that a value fits into, or what would fit.
trait Put {
    fn put(&mut self, value: &EvidenceValue) -> Done;
}

macro_rules! put_number {
    ($($type:ty),*) => {
        $(impl Put for $type {
            fn put(&mut self, value: &EvidenceValue) -> Done {
                let number = match value {
                    EvidenceValue::Int(number) => <$type>::try_from(*number).ok(),
                    _ => None,
                };
                *self = number.ok_or_else(|| format!("a whole number from {} to {}", <$type>::MIN, <$type>::MAX))?;
                Ok(())
            }
        })*
    };
}
put_number!(u8, u16, u32, u64, i32);

impl Put for bool {
    fn put(&mut self, value: &EvidenceValue) -> Done {
        match value {
            EvidenceValue::Bool(yes) => *self = *yes,
            _ => return Err("true or false".to_owned()),
        }
        Ok(())
    }
}

impl Put for IpAddr {
    fn put(&mut self, value: &EvidenceValue) -> Done {
        let parsed = match value {
            EvidenceValue::Address(address) => Some(*address),
            EvidenceValue::Text(text) => text.parse().ok(),
            _ => None,
        };
        *self = parsed.ok_or("an address, such as \"10.0.0.1\"")?;
        Ok(())
    }
}

impl Put for Name {
    fn put(&mut self, value: &EvidenceValue) -> Done {
        match value {
            EvidenceValue::Text(text) => *self = Name::of(text.as_bytes()),
            _ => return Err("a text".to_owned()),
        }
        Ok(())
    }
}

impl<T: Put + Zero> Put for Option<T> {
    fn put(&mut self, value: &EvidenceValue) -> Done {
        self.get_or_insert(T::ZERO).put(value)
    }
}

/// What a field holds before it is set.
trait Zero {
    const ZERO: Self;
}

macro_rules! zero {
    ($($type:ty = $zero:expr),*) => {
        $(impl Zero for $type {
            const ZERO: Self = $zero;
        })*
    };
}
zero!(
    u8 = 0,
    u16 = 0,
    u32 = 0,
    u64 = 0,
    i32 = 0,
    bool = false,
    IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
);

/// A table of names and the fields they are kept in; what is not in it follows from others.
macro_rules! table {
    ($name:expr, $value:expr, { $($fact:literal => $field:expr),* $(,)? }) => {
        match $name {
            $($fact => $field.put($value)?,)*
            _ => return Ok(false),
        }
    };
}

const NS_OF_MS: u64 = 1_000_000;

impl Given for FlowFacts {
    fn put(&mut self, path: &str, _: Option<Window>, value: &EvidenceValue) -> Result<bool, Refused> {
        if let Some(name) = path.strip_prefix("flow.orig.") {
            return side(&mut self.orig, name, value);
        }
        if let Some(name) = path.strip_prefix("flow.resp.") {
            return side(&mut self.resp, name, value);
        }
        let name = path.strip_prefix("flow.").unwrap_or(path);
        match name {
            "by_orig" | "by_resp" => {
                let mut yes = false;
                yes.put(value)?;
                self.by = Some(if yes == (name == "by_orig") { Side::Orig } else { Side::Resp });
            }
            "age_ms" => {
                let mut ms = 0u64;
                ms.put(value)?;
                self.now_ns = self.start_ns.saturating_add(ms.saturating_mul(NS_OF_MS));
            }
            _ => return of_flow(self, name, value),
        }
        Ok(true)
    }
}

fn of_flow(f: &mut FlowFacts, name: &str, value: &EvidenceValue) -> Result<bool, Refused> {
    if name.starts_with("dns_") && name != "dns_asked" || name.starts_with("service_") {
        return of_answers(f, name, value);
    }
    table!(name, value, {
        "src" => f.src, "dst" => f.dst, "sport" => f.sport, "dport" => f.dport, "proto" => f.proto,
        "vlan" => f.vlan[0], "inner_vlan" => f.vlan[1],
        "established" => f.established, "fin_seen" => f.fin_seen, "rst_seen" => f.rst_seen, "rst" => f.rst,
        "syns" => f.syns, "ecn_syns" => f.ecn_syns, "last_syn_plain" => f.last_syn_plain, "syn_acks" => f.syn_acks,
        "silent_ms" => f.silent_ms, "syn_age_ms" => f.syn_age_ms, "idle_before_ms" => f.idle_before_ms,
        "packets_since_idle" => f.packets_since_idle,
        "rtt_client_us" => f.rtt_client_us, "rtt_server_us" => f.rtt_server_us, "ttl" => f.ttl,
        "icmp_too_big" => f.icmp_too_big, "icmp_mtu" => f.icmp_mtu, "late_syn_acks" => f.late_syn_acks,
        "disproved" => f.disproved, "both_ways" => f.both_ways, "syn_span_ms" => f.syn_span_ms,
        "plain_answered" => f.rivals.plain_answered, "plain_lost" => f.rivals.plain_lost,
        "ecn_answered" => f.rivals.ecn_answered,
        "connect_us" => f.app.connect_us, "tls_us" => f.app.tls_us, "first_byte_us" => f.app.first_byte_us,
        "answer_ms" => f.app.answer_ms, "sni" => f.app.name, "tls_hello_ms" => f.app.hello_ms,
        "tls_answered" => f.app.tls_answered, "tls_waits" => f.app.tls_waits, "tls_over" => f.app.tls_over,
        "tls_alert" => f.app.tls_alert, "server_hello_after_rst" => f.app.server_hello_after_rst,
        "http_status" => f.app.http_status, "dns_asked" => f.app.dns_asked,
    });
    Ok(true)
}

/// Facts that are known together.
fn of_answers(f: &mut FlowFacts, name: &str, value: &EvidenceValue) -> Result<bool, Refused> {
    if name.starts_with("service_") {
        let counts = f.app.service.get_or_insert_default();
        table!(name, value, {
            "service_answers" => counts.answers, "service_errors" => counts.errors, "service_late" => counts.late,
        });
        return Ok(true);
    }
    let dns: &mut DnsFacts = f.app.dns.get_or_insert_default();
    // A name on a TCP flow is the one its ClientHello gives.
    f.proto = if f.proto == FlowFacts::default().proto && name == "dns_name" { 17 } else { f.proto };
    table!(name, value, {
        "dns_name" => f.app.name, "dns_type" => dns.kind, "dns_rcode" => dns.rcode, "dns_wait_ms" => dns.wait_ms,
        "dns_since_last_ms" => dns.since_last_ms, "dns_asks" => dns.asks, "dns_repeats" => dns.repeats,
    });
    Ok(true)
}

fn side(s: &mut SideFacts, name: &str, value: &EvidenceValue) -> Result<bool, Refused> {
    if name.starts_with("rst_") || name == "packets_after_rst" {
        return rst(s, name, value);
    }
    table!(name, value, {
        "packets" => s.packets, "bytes" => s.bytes, "payload" => s.payload, "mss" => s.mss, "wscale" => s.wscale,
        "sack" => s.sack, "ttl_min" => s.ttl_min, "ttl_max" => s.ttl_max, "ttl_usual" => s.ttl_usual,
        "unacked" => s.unacked, "max_payload" => s.max_payload, "retransmissions" => s.retransmissions,
        "zero_windows" => s.zero_windows, "keepalives" => s.keepalives, "rsts" => s.rsts, "fins" => s.fins,
        "stuck_sends" => s.stuck_sends, "stuck_bytes" => s.stuck_bytes, "stuck_payload" => s.stuck_payload,
        "stuck_aggregate" => s.stuck_aggregate, "arrived_sends" => s.arrived_sends,
        "small_passes" => s.small_passes, "largest_acked" => s.largest_acked,
        "only_large_stuck" => s.only_large_stuck,
        "spurious_retransmissions" => s.spurious_retransmissions, "needless" => s.needless,
        "window_fulls" => s.window_fulls, "filled_window" => s.filled_window, "sack_garbled" => s.sack_garbled,
        "congestion_marks" => s.congestion_marks, "congestion_echoes" => s.congestion_echoes,
        "congestion_answers" => s.congestion_answers, "unanswered_ms" => s.unanswered_ms,
        "unanswered_sends" => s.unanswered_sends, "window_closed_ms" => s.window_closed_ms,
        "window_closed" => s.window_closed, "answered_unseen" => s.answered_unseen,
        "opened_unseen" => s.opened_unseen, "window_probes" => s.window_probes,
        "keepalive_every_ms" => s.keepalive_every_ms, "oversize" => s.oversize,
        "icmp_unreachable" => s.icmp_unreachable, "icmp_unreachable_code" => s.icmp_unreachable_code,
        "icmp_time_exceeded" => s.icmp_time_exceeded, "in_sight" => s.in_sight, "out_of_sight" => s.out_of_sight,
    });
    Ok(true)
}

fn rst(s: &mut SideFacts, name: &str, value: &EvidenceValue) -> Result<bool, Refused> {
    let rst = &mut s.rst;
    table!(name, value, {
        "rst_injected" => rst.injected, "rst_ttl" => rst.ttl, "rst_window" => rst.window,
        "rst_delay_us" => rst.delay_us, "rst_too_fast" => rst.too_fast, "rst_seq_exact" => rst.seq_exact,
        "rst_seq_in_window" => rst.seq_in_window, "rst_id_fits" => rst.id_fits, "rst_df_fits" => rst.df_fits,
        "packets_after_rst" => rst.followed_by,
    });
    Ok(true)
}

/// What happened within a window happened within the longer ones too.
fn count(
    windows: [&mut Counts; 3],
    name: &str,
    window: Window,
    value: &EvidenceValue,
) -> Result<bool, Refused> {
    let mut least = 0u32;
    for (counts, its) in windows.into_iter().zip(Window::ALL) {
        let field = match name {
            "syns" => &mut counts.syns,
            "established" => &mut counts.established,
            "unanswered" => &mut counts.syn_unanswered,
            "refused" => &mut counts.refused,
            "rsts" => &mut counts.rsts,
            "unfinished" => &mut counts.unfinished,
            "unfinished_repeated" => &mut counts.unfinished_repeated,
            "recovered" => &mut counts.recovered,
            "closed" => &mut counts.closed,
            "cuts" => &mut counts.cuts,
            "refusals" => &mut counts.refusals,
            "client_cuts" => &mut counts.client_cuts,
            _ => return Ok(false),
        };
        if its == window {
            field.put(value)?;
            least = *field;
        }
        *field = (*field).max(least);
    }
    Ok(true)
}

impl Given for HostFacts {
    fn put(&mut self, path: &str, window: Option<Window>, value: &EvidenceValue) -> Result<bool, Refused> {
        let name = path.strip_prefix("host.").unwrap_or(path);
        if let Some(window) = window {
            return count([&mut self.last_1s, &mut self.last_10s, &mut self.last_60s], name, window, value);
        }
        let c = &mut self.client;
        table!(name, value, {
            "addr" => self.addr, "state_entries" => c.state_entries,
            "ports_tried" => c.ports.tried, "ports_of" => c.ports.of_host, "port_attempts" => c.ports.attempts,
            "port_attempts_completed" => c.ports.completed, "port_attempts_refused" => c.ports.refused,
            "hosts_tried" => c.hosts.tried, "hosts_port" => c.hosts.of_port, "host_attempts" => c.hosts.attempts,
            "host_attempts_completed" => c.hosts.completed, "host_attempts_refused" => c.hosts.refused,
            "reuse_of" => c.reuse.addr, "reuse_port" => known(&mut c.reuse).port,
            "reuse_connections" => c.reuse.begun_60s, "reuse_completed" => c.reuse.completed_60s,
            "reuses" => c.reuse.reuses, "reuses_known" => c.reuse.reuses_known, "reuse_ports" => c.reuse.ports,
            "reuse_port_low" => known(&mut c.reuse).port_low, "reuse_port_high" => known(&mut c.reuse).port_high,
            "reuse_shortest_ms" => c.reuse.shortest_ms,
            "churn_of" => c.churn.addr, "churn_port" => known(&mut c.churn).port,
            "churn_begun" => c.churn.begun_10s, "churn_closed" => c.churn.short_10s,
        });
        Ok(true)
    }
}

/// Ports are known if the service is.
fn known(dealings: &mut Dealings) -> &mut Dealings {
    dealings.addr.get_or_insert(IpAddr::ZERO);
    dealings
}

impl Given for ServiceFacts {
    fn put(&mut self, path: &str, window: Option<Window>, value: &EvidenceValue) -> Result<bool, Refused> {
        let name = path.strip_prefix("service.").unwrap_or(path);
        if let Some(window) = window {
            return count([&mut self.last_1s, &mut self.last_10s, &mut self.last_60s], name, window, value);
        }
        let s = &mut self.states;
        table!(name, value, {
            "addr" => self.addr, "port" => self.port, "proto" => self.proto,
            "unfinished_most" => self.unfinished_most,
            "syn_recv" => s.syn_recv, "open" => s.established, "close_wait" => s.close_wait,
            "fin_wait2" => s.fin_wait2, "time_wait" => s.time_wait, "state_entries" => s.entries,
            "state_entries_total" => s.entries_total, "top_client" => s.top_client,
            "top_client_entries" => s.top_client_entries,
        });
        Ok(true)
    }
}

impl Given for LinkFacts {
    fn put(&mut self, path: &str, window: Option<Window>, value: &EvidenceValue) -> Result<bool, Refused> {
        let name = path.strip_prefix("link.").unwrap_or(path);
        if let Some(window) = window {
            return count([&mut self.last_1s, &mut self.last_10s, &mut self.last_60s], name, window, value);
        }
        let [c1, c2, c3] = &mut self.clients;
        let [s1, s2, s3] = &mut self.services;
        table!(name, value, {
            "state_entries" => self.state_entries,
            "client_1" => client(c1).0, "client_1_entries" => client(c1).1,
            "client_2" => client(c2).0, "client_2_entries" => client(c2).1,
            "client_3" => client(c3).0, "client_3_entries" => client(c3).1,
            "service_1" => entries(s1).addr, "service_1_port" => entries(s1).port,
            "service_1_entries" => entries(s1).entries,
            "service_2" => entries(s2).addr, "service_2_port" => entries(s2).port,
            "service_2_entries" => entries(s2).entries,
            "service_3" => entries(s3).addr, "service_3_port" => entries(s3).port,
            "service_3_entries" => entries(s3).entries,
        });
        Ok(true)
    }
}

fn client(place: &mut Option<(IpAddr, u32)>) -> &mut (IpAddr, u32) {
    place.get_or_insert((IpAddr::ZERO, 0))
}

fn entries(place: &mut Option<ServiceEntries>) -> &mut ServiceEntries {
    place.get_or_insert(ServiceEntries { addr: IpAddr::ZERO, port: 0, proto: 6, entries: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::Blank;
    use crate::facts::table::Get;

    /// Every fact is either set and read back, or named here as one that follows from others.
    fn check<S: Given + Blank>(derived: &[&str]) {
        for fact in S::facts() {
            let windows: &[Option<Window>] = match fact.is_windowed() {
                true => &[Some(Window::S1), Some(Window::S10), Some(Window::S60)],
                false => &[None],
            };
            for window in windows {
                let mut subject = S::blank();
                let value = match fact.get {
                    Get::Bool(_) => EvidenceValue::Bool(true),
                    Get::Address(_) => EvidenceValue::Text("10.0.4.21".to_owned()),
                    Get::Text(_) => EvidenceValue::Text("www.example.net".to_owned()),
                    _ => EvidenceValue::Int(7),
                };
                let name = window.map_or(fact.path.to_owned(), |w| format!("{}({})", fact.path, w.seconds()));
                let given = give(&mut subject, &name, &value);
                if derived.iter().any(|name| fact.path == *name || fact.path.ends_with(&format!(".{name}"))) {
                    assert!(given.unwrap_err().contains("follows from other facts"), "{name}");
                    continue;
                }
                given.unwrap();
                let read = match (&fact.get, window) {
                    (Get::Int(get), _) => get(&subject).map(EvidenceValue::Int),
                    (Get::Bool(get), _) => get(&subject).map(EvidenceValue::Bool),
                    (Get::Address(get), _) => get(&subject).map(|a| EvidenceValue::Text(a.to_string())),
                    (Get::Text(get), _) => get(&subject).map(|t| EvidenceValue::Text(t.to_string())),
                    (Get::CountOver(get), Some(window)) => get(&subject, *window).map(EvidenceValue::Int),
                    _ => None,
                };
                assert_eq!(read, Some(value), "{name}");
            }
        }
    }

    #[test]
    fn what_is_given_is_what_is_read() {
        check::<FlowFacts>(&[
            "flow.orig_opened",
            "flow.unacked",
            "flow.rtt_us",
            "segments",
            "losses",
            "rate",
            "loss_ppm",
            "loss_bound",
            "window_bound",
        ]);
        let rates = [
            "syn_rate",
            "established_rate",
            "unanswered_rate",
            "refused_rate",
            "rst_rate",
            "syn_unanswered_ratio",
            "unfinished_rate",
            "closed_rate",
        ];
        check::<HostFacts>(&rates);
        check::<ServiceFacts>(&rates);
        check::<LinkFacts>(&rates);
    }

    #[test]
    fn what_cannot_be_given_is_refused_by_name() {
        let mut flow = FlowFacts::default();
        let mut refused = |name: &str, value: EvidenceValue| give(&mut flow, name, &value).unwrap_err();
        assert_eq!(
            refused("flow.rtt_us", EvidenceValue::Int(1)),
            "`flow.rtt_us` follows from other facts (flow.rtt_client_us, flow.rtt_server_us); give those"
        );
        assert_eq!(
            refused("flow.dprot", EvidenceValue::Int(1)),
            "there is no fact `flow.dprot` of a flow; did you mean `flow.dport`?"
        );
        assert_eq!(
            refused("flow.dport", EvidenceValue::Int(70_000)),
            "`flow.dport` is a whole number from 0 to 65535; 70000 is not"
        );
        assert!(refused("flow.src", EvidenceValue::Text("10.0.0".into())).contains("an address"));
        let mut host = HostFacts::blank();
        assert!(give(&mut host, "host.rsts", &EvidenceValue::Int(1)).unwrap_err().contains("host.rsts(10)"));
        assert!(
            give(&mut host, "host.rsts(5)", &EvidenceValue::Int(1)).unwrap_err().contains("1, 10 and 60")
        );
    }

    #[test]
    fn a_longer_window_holds_what_a_shorter_one_does() {
        let mut host = HostFacts::blank();
        give(&mut host, "host.rsts(1)", &EvidenceValue::Int(60)).unwrap();
        assert_eq!((host.last_1s.rsts, host.last_10s.rsts, host.last_60s.rsts), (60, 60, 60));
        give(&mut host, "host.rsts(60)", &EvidenceValue::Int(90)).unwrap();
        assert_eq!((host.last_10s.rsts, host.last_60s.rsts), (60, 90));
    }
}
