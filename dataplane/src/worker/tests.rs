//! The whole loop over packets from memory: times of timers and ticks, full queues, what a flow is, and that
//! the books balance whatever comes.

use rules::SourceFile;

use super::*;
use crate::config::Timeouts;
use crate::decode::flags::{ACK, FIN, RST, SYN};
use crate::decode::frames::{Seg, too_big};
use crate::flow::record::{dir_flag, flow_flag};
use crate::judge::message::{CaptureLimits, Command, Message};
use crate::latency::RoundTrips;
use crate::record::{RecordConfig, recorder};
use crate::source::LinkType;
use crate::source::synthetic::Synthetic;

const MS: Nanos = 1_000_000;
const S: Nanos = 1000 * MS;
/// Not on the boundary of a tick of anything.
const T0: Nanos = 1_700_000_000 * S + 12_345_678;

/// What came of a run.
#[derive(Debug, Default)]
struct Run {
    messages: Vec<Message>,
    rows: Vec<EndedFlow>,
    steps: Vec<Step>,
    account: WorkerAccount,
}

impl Run {
    /// Time and port of each hit.
    fn hits(&self) -> Vec<(Nanos, u16)> {
        let hit = |m: &Message| match m {
            Message::Hit(hit) => Some((hit.facts.now_ns, hit.facts.sport)),
            _ => None,
        };
        self.messages.iter().filter_map(hit).collect()
    }
}

fn config() -> WorkerConfig {
    WorkerConfig { history_bytes: 1 << 20, activity: 4096, ..WorkerConfig::small() }
}

fn rules(text: &str) -> Arc<RuleSet> {
    Arc::new(RuleSet::load(&[SourceFile { name: "t.rhai".to_owned(), text: text.to_owned() }], &[]).unwrap())
}

const THREE_SECONDS: &str =
    "rule \"t\" on syn_timeout when flow.syn_age_ms >= 3000 then { incident(\"info\", `x`); }";

/// Runs to the end; queues are emptied every `every` steps, and whenever they are full.
fn run_every(source: Synthetic, config: &WorkerConfig, rules: Arc<RuleSet>, every: usize) -> Run {
    let queues = Queues::new(config.messages, true);
    let mut worker = Worker::new(source, config, rules, queues.clone(), None, 0);
    let mut run = Run::default();
    loop {
        let step = worker.step();
        run.steps.push(step);
        if run.steps.len() % every == 0 || step == Step::Full || step == Step::Done {
            run.messages.extend(std::iter::from_fn(|| queues.message()));
            run.rows.extend(std::iter::from_fn(|| queues.rows.as_ref()?.pop()));
        }
        assert!(worker.account().balanced(u64::from(worker.live_flows())), "{:?}", worker.account());
        if step == Step::Done {
            break;
        }
    }
    run.account = worker.account();
    assert_eq!(worker.live_flows(), 0);
    run
}

fn run(source: Synthetic, rules_text: &str) -> Run {
    run_every(source, &config(), rules(rules_text), 1)
}

fn push(source: &mut Synthetic, ts: Nanos, seg: &Seg) {
    source.push(ts, &seg.ip(), LinkType::Raw);
}

fn syn(port: u16, isn: u32) -> Seg {
    Seg::new(true, SYN, isn, 0).port(port)
}

fn handshake(source: &mut Synthetic, ts: Nanos, port: u16) {
    push(source, ts, &syn(port, 0));
    push(source, ts + MS, &Seg::new(false, SYN | ACK, 0, 1).port(port));
    push(source, ts + 2 * MS, &Seg::new(true, ACK, 1, 1).port(port));
}

#[test]
fn what_a_connection_took_is_counted_once_and_only_if_it_was_seen() {
    let mut source = Synthetic::new("t");
    handshake(&mut source, T0, 1);
    push(&mut source, T0 + 3 * MS, &Seg::new(true, ACK, 1, 1).data(10).port(1));
    push(&mut source, T0 + 8 * MS, &Seg::new(false, ACK, 1, 11).data(10).port(1));
    push(&mut source, T0 + 9 * MS, &Seg::new(true, ACK, 11, 11).data(10).port(1));
    push(&mut source, T0 + 10 * MS, &Seg::new(false, ACK, 11, 21).data(10).port(1));
    // Picked up while under way.
    push(&mut source, T0 + 11 * MS, &Seg::new(true, ACK, 100, 100).data(10).port(2));
    push(&mut source, T0 + 12 * MS, &Seg::new(false, ACK, 100, 110).data(10).port(2));
    let latency = run(source, THREE_SECONDS).account.latency;
    let of = |durations: RoundTrips| (durations.counts.iter().sum::<u64>(), durations.sum_ns);
    assert_eq!((of(latency.server_rtt), of(latency.client_rtt)), ((1, MS), (1, MS)));
    assert_eq!((of(latency.connect), of(latency.first_byte)), ((1, 2 * MS), (1, 5 * MS)));
    assert_eq!(of(latency.dns_answer), (0, 0));
}

#[test]
fn timers_speak_of_the_exact_time_and_idle_drives_them() {
    let mut source = Synthetic::new("t");
    push(&mut source, T0, &syn(1, 0));
    push(&mut source, T0 + S, &syn(1, 0));
    source.idle(T0 + 2 * S);
    source.idle(T0 + 90 * S);
    let run = run(source, THREE_SECONDS);
    assert_eq!(run.hits(), [(T0 + 3 * S, 1)]);
    let idle = |step: &&Step| matches!(step, Step::Idle(_));
    let idles: Vec<_> = run.steps.iter().filter(idle).copied().collect();
    assert_eq!(idles, [Step::Idle(T0 + 2 * S), Step::Idle(T0 + 90 * S)]);
    // Ended by its timer, not by the end of input.
    assert_eq!((run.rows.len(), run.account.flows_ended), (1, 1));
    assert_eq!(run.rows[0].flow.rare.syn_checks, 64);
}

#[test]
fn at_the_end_of_input_timers_due_at_its_last_packet_fire_and_no_later_ones() {
    for (last, hits) in [(3 * S - 1, 0), (3 * S, 1), (1000 * S, 1)] {
        let mut source = Synthetic::new("t");
        push(&mut source, T0, &syn(1, 0));
        push(&mut source, T0 + last, &syn(2, 0));
        let run = run(source, THREE_SECONDS);
        assert_eq!(run.hits(), vec![(T0 + 3 * S, 1); hits], "{last}");
    }
}

#[test]
fn a_handshake_given_up_or_taken_back_raises_no_more_timeouts() {
    let every_second = "rule \"t\" on syn_timeout then { incident(\"info\", `x`); }";
    let mut source = Synthetic::new("t");
    push(&mut source, T0, &syn(1, 0));
    push(&mut source, T0 + 500 * MS, &Seg::new(true, RST, 1, 0).port(1));
    push(&mut source, T0, &syn(2, 0));
    push(&mut source, T0 + 500 * MS, &Seg::new(false, RST | ACK, 0, 1).port(2));
    source.idle(T0 + 200 * S);
    assert_eq!(run(source, every_second).hits(), []);
    let mut source = Synthetic::new("t");
    push(&mut source, T0, &syn(1, 0));
    source.idle(T0 + 200 * S);
    let short = Timeouts { half_open: 2500 * MS, ..Timeouts::default() };
    let run = run_every(source, &WorkerConfig { timeouts: short, ..config() }, rules(THREE_SECONDS), 1);
    assert_eq!((run.hits(), run.rows[0].flow.rare.syn_checks), (vec![], 2));
}

#[test]
fn ticks_come_at_boundaries_after_what_happened_before_them() {
    let mut source = Synthetic::new("t");
    push(&mut source, T0, &syn(1, 0));
    push(&mut source, T0 + 20 * MS, &Seg::new(false, RST | ACK, 0, 1).port(1));
    push(&mut source, T0 + 450 * MS, &syn(2, 0));
    let reads_all =
        "rule \"h\" on tick when host.syns(1) + host.rsts(1) > 9000 then { incident(\"info\", `x`); }
        rule \"s\" on tick when service.syns(1) + service.refused(1) + service.rsts(1) > 9000
        then { incident(\"info\", `x`); }";
    let run = run(source, reads_all);
    let boundary = T0 / (100 * MS) * 100 * MS;
    let said: Vec<String> = run
        .messages
        .iter()
        .filter(|m| !matches!(m, Message::Dealing { .. }))
        .map(|m| match m {
            Message::Tick(at) => format!("tick {}", (at - boundary) / MS),
            Message::Host { addr, counts } => format!("{addr} {} {}", counts.syns, counts.rsts),
            Message::Service { port, counts, .. } => {
                format!("{port} {} {} {}", counts.syns, counts.refused, counts.rsts)
            }
            other => format!("{other:?}"),
        })
        .collect();
    let (first, second) = said.split_at(7);
    let mut sorted = first[..3].to_vec();
    sorted.sort();
    assert_eq!(sorted, ["10.0.0.1 1 0", "10.0.0.2 0 1", "80 1 1 1"]);
    assert_eq!(first[3..], ["tick 100", "tick 200", "tick 300", "tick 400"]);
    assert_eq!(second, ["10.0.0.1 1 0", "80 1 0 0", "tick 500"]);
}

/// Many flows with everything in them.
fn busy() -> Synthetic {
    let mut source = Synthetic::new("t");
    for n in 0..3000_u16 {
        let at = T0 + u64::from(n) * 300_000;
        match n % 4 {
            0 => push(&mut source, at, &syn(n, 0)),
            1 => handshake(&mut source, at, n),
            2 => {
                push(&mut source, at, &syn(n, 0));
                push(&mut source, at, &Seg::new(false, RST | ACK, 0, 1).port(n));
            }
            _ => push(&mut source, at, &Seg::new(true, ACK, 1, 1).port(n).data(100)),
        }
    }
    source.idle(T0 + 4 * S);
    handshake(&mut source, T0 + 200 * S, 9);
    source.idle(T0 + 300 * S);
    source.idle(T0 + 10_000 * S);
    source
}

#[test]
fn small_queues_that_are_waited_for_give_what_large_ones_give() {
    let noisy = "rule \"t\" on syn, syn_timeout, established, rst, close then { incident(\"info\", `x`); }";
    let large = WorkerConfig { messages: 1 << 16, ..config() };
    let small = WorkerConfig { messages: 1, lossless: true, ..config() };
    let wanted = run_every(busy(), &large, rules(noisy), 1);
    let got = run_every(busy(), &small, rules(noisy), usize::MAX);
    assert!(got.steps.iter().filter(|s| **s == Step::Full).count() > 20);
    assert_eq!((got.account.events.dropped, got.account.events.rows_dropped), (0, 0));
    assert_eq!(
        format!("{:?}{:?}", got.messages, got.rows),
        format!("{:?}{:?}", wanted.messages, wanted.rows)
    );
    assert_eq!(format!("{:?}", got.account), format!("{:?}", wanted.account));
    let idles =
        |run: &Run| run.steps.iter().filter(|s| matches!(s, Step::Idle(_))).copied().collect::<Vec<_>>();
    assert_eq!(idles(&got), idles(&wanted), "no idle time is forgotten");
    let lossy = run_every(busy(), &WorkerConfig { messages: 1, ..config() }, rules(noisy), 50);
    assert!(lossy.account.events.dropped > 0, "live, nobody waits");
}

#[test]
fn counts_that_find_no_room_wait_for_the_next_tick() {
    let mut source = Synthetic::new("t");
    for port in 0..2000_u16 {
        let mut packet = syn(7, 0).ip();
        packet[22..24].copy_from_slice(&(1000 + port).to_be_bytes());
        source.push(T0 + u64::from(port) * MS / 10, &packet, LinkType::Raw);
    }
    (1..100).for_each(|tenth| source.idle(T0 + tenth * 100 * MS));
    let reads = "rule \"s\" on tick when service.syns(60) + service.unanswered(60) > 9000
        then { incident(\"info\", `x`); }";
    let run = run_every(source, &WorkerConfig { messages: 1, ..config() }, rules(reads), 1);
    let mut sums = [0, 0];
    let mut in_one_tick = 0;
    for message in &run.messages {
        match message {
            Message::Service { counts, .. } => {
                sums[0] += counts.syns;
                sums[1] += counts.syn_unanswered;
                in_one_tick += 1;
            }
            Message::Tick(_) => {
                assert!(in_one_tick < 512, "{in_one_tick}");
                in_one_tick = 0;
            }
            _ => {}
        }
    }
    assert_eq!((sums, run.account.events.dropped, run.account.events.activity_lost), ([2000, 2000], 0, 0));
}

#[test]
fn a_five_tuple_used_again_is_another_flow() {
    let reuse =
        |rows: &[EndedFlow]| rows.iter().map(|r| r.flow.has(flow_flag::PORT_REUSE)).collect::<Vec<_>>();
    let mut source = Synthetic::new("t");
    handshake(&mut source, T0, 1);
    push(&mut source, T0 + S, &syn(1, 0));
    push(&mut source, T0 + 2 * S, &syn(1, 77));
    push(&mut source, T0 + 3 * S, &syn(1, 77));
    let run1 = run(source, THREE_SECONDS);
    assert_eq!(reuse(&run1.rows), [false, true]);
    assert_eq!((run1.rows[0].flow.senders[0].syn, run1.rows[1].flow.senders[0].syn), (2, 2));
    assert_ne!(run1.rows[0].flow.id(), run1.rows[1].flow.id());
    // What an old connection's server still says is no part of the new one.
    let mut source = Synthetic::new("t");
    push(&mut source, T0, &Seg::new(false, ACK, 5, 5).port(1).data(9));
    handshake(&mut source, T0 + S, 1);
    let run2 = run(source, THREE_SECONDS);
    let new = &run2.rows[1].flow;
    assert_eq!((run2.rows.len(), new.orig(), new.dirs[1].packets), (2, 0, 1));
    assert!(new.has(flow_flag::HANDSHAKE) && new.dirs[0].has(dir_flag::SYN));
    // The answer seen first is.
    let mut source = Synthetic::new("t");
    push(&mut source, T0, &Seg::new(false, SYN | ACK, 0, 1).port(1));
    push(&mut source, T0 + MS, &syn(1, 0));
    let run3 = run(source, THREE_SECONDS);
    assert_eq!((run3.rows.len(), run3.rows[0].flow.orig(), reuse(&run3.rows)), (1, 0, vec![false]));
}

#[test]
fn a_syn_flood_pushes_out_half_open_flows_only() {
    let mut source = Synthetic::new("t");
    for port in 1..=60 {
        handshake(&mut source, T0 + u64::from(port) * MS, port);
    }
    for n in 0..20_000_u32 {
        push(&mut source, T0 + S + u64::from(n) * 1000, &syn(1000 + n as u16, n));
    }
    for port in 1..=60 {
        push(&mut source, T0 + 2 * S, &Seg::new(true, FIN | ACK, 1, 1).port(port));
    }
    let small = WorkerConfig { flows: 64, half_open: 64, ..config() };
    let run = run_every(source, &small, rules(THREE_SECONDS), 1);
    assert_eq!((run.account.flows_evicted, run.account.half_open_evicted), (0, 20_000 - 64));
    assert_eq!(run.account.flows_created, 20_060);
    let whole = run.rows.iter().filter(|r| r.flow.has(flow_flag::HANDSHAKE) && r.flow.senders[0].fin == 1);
    assert_eq!(whole.count(), 60);
}

#[test]
fn an_icmp_error_joins_the_flow_it_quotes_in_facts_and_in_its_capture() {
    let text = "rule \"t\" on icmp_too_big then { incident(\"info\", `x`); capture(flow); }";
    let data = Seg::new(true, ACK, 1, 1).data(1400);
    let mut source = Synthetic::new("t");
    handshake(&mut source, T0, 40_000);
    push(&mut source, T0 + 10 * MS, &data);
    source.push(T0 + 11 * MS, &too_big(&data.ip(), 1280), LinkType::Raw);
    source.push(T0 + 11 * MS, &too_big(&data.clone().port(7).ip(), 1280), LinkType::Raw);
    source.idle(T0 + 20 * MS);
    push(&mut source, T0 + 30 * MS, &data);
    let queues = Queues::new(1, false);
    let (recorder, _port) = recorder(&RecordConfig { chunks: 4, ..RecordConfig::default() }, 0);
    let mut worker = Worker::new(source, &config(), rules(text), queues.clone(), Some(recorder), 0);
    while worker.step() != Step::Idle(T0 + 20 * MS) {}
    let hit = std::iter::from_fn(|| queues.message()).find_map(|m| match m {
        Message::Hit(hit) => Some(hit),
        _ => None,
    });
    let hit = hit.expect("the rule waits for it");
    assert_eq!(
        (hit.held, hit.packet, hit.facts.icmp_mtu, hit.facts.sport),
        (true, Some(4), Some(1280), 40_000)
    );
    let limits = CaptureLimits { packets: 9, bytes: 1 << 20, nanos: S };
    queues.commands.push(Command::Keep { flow_id: hit.facts.flow_id, limits }).unwrap();
    while worker.step() != Step::Done {}
    while !worker.finish() {}
    let account = worker.account();
    // Handshake, data, ICMP, and the data that came after.
    assert_eq!((account.kept.kept, account.kept.unwritten, account.icmp_unmatched), (6, [0; 6], 1));
    assert_eq!((account.holds_taken, account.holds_unanswered), (1, 0));
}

#[test]
fn a_packet_of_a_kept_flow_is_in_a_chunk_when_its_step_is_done() {
    let text = "rule \"t\" on syn then { capture(flow); }";
    let mut source = Synthetic::new("t");
    handshake(&mut source, T0, 40_000);
    (20..24).for_each(|ms| source.idle(T0 + ms * MS));
    push(&mut source, T0 + 30 * MS, &Seg::new(true, ACK, 1, 1).data(10));
    let queues = Queues::new(1, false);
    let (recorder, _port) = recorder(&RecordConfig { chunks: 4, ..RecordConfig::default() }, 0);
    let mut worker = Worker::new(source, &config(), rules(text), queues.clone(), Some(recorder), 0);
    while worker.step() != Step::Idle(T0 + 20 * MS) {}
    let flow_id = std::iter::from_fn(|| queues.message()).find_map(|m| match m {
        Message::Hit(hit) => Some(hit.facts.flow_id),
        _ => None,
    });
    let limits = CaptureLimits { packets: 9, bytes: 1 << 20, nanos: S };
    queues.commands.push(Command::Keep { flow_id: flow_id.unwrap(), limits }).unwrap();
    while worker.step() != Step::Idle(T0 + 23 * MS) {}
    assert_eq!(worker.account().kept.kept, 3, "what led up to it");
    worker.recorder().unwrap().flush();
    let free = worker.recorder().unwrap().free_chunks();
    assert_eq!((worker.step(), worker.now()), (Step::Worked, T0 + 30 * MS));
    assert_eq!((worker.account().kept.kept, worker.account().kept.unwritten), (4, [0; 6]));
    assert_eq!(worker.recorder().unwrap().free_chunks(), free - 1, "it is in a chunk that was begun for it");
}

#[test]
fn only_live_conversations_are_rescued_from_the_ring() {
    let mut source = Synthetic::new("t");
    for port in 1..=20 {
        handshake(&mut source, T0, port);
        push(&mut source, T0, &syn(100 + port, 0));
        // Reused at once: the first is over, its slot is noted all the same.
        handshake(&mut source, T0, 200 + port);
        push(&mut source, T0 + MS, &syn(200 + port, 5));
    }
    for n in 0..800 {
        push(&mut source, T0 + S, &Seg::new(true, ACK, 1 + n * 1400, 1).port(999).data(1400));
    }
    let config = WorkerConfig { cutoff_bytes: u64::MAX, ..config() };
    let run = run_every(source, &config, rules(THREE_SECONDS), 1);
    assert_eq!((run.account.tails_rescued, run.account.tails_forgotten), (20, 0));
}

/// Seconds after `T0` at which a rule on `idle` matched, and what it saw of the silence.
fn idle_at(source: Synthetic, rule: &str) -> Vec<(u64, u64)> {
    let text = format!("rule \"quiet\" on idle {rule} then {{ }}");
    let hits = run(source, &text).messages.into_iter().filter_map(|message| match message {
        Message::Hit(hit) => Some(((hit.facts.now_ns - T0) / S, hit.facts.silent_ms / 1000)),
        _ => None,
    });
    hits.collect()
}

#[test]
fn a_silent_connection_is_told_of_after_10_20_40_seconds_and_anew_when_it_has_spoken() {
    let quiet = || {
        let mut source = Synthetic::new("t");
        handshake(&mut source, T0, 1);
        source.idle(T0 + 50 * S);
        push(&mut source, T0 + 50 * S, &Seg::new(true, ACK, 1, 1).port(1).data(10));
        push(&mut source, T0 + 55 * S, &Seg::new(false, ACK, 1, 11).port(1));
        source.idle(T0 + 70 * S);
        // Not ended by both sides: from here on it is closed.
        push(&mut source, T0 + 71 * S, &Seg::new(true, RST, 11, 1).port(1));
        source.idle(T0 + 400 * S);
        source
    };
    assert_eq!(idle_at(quiet(), ""), [(10, 10), (20, 20), (40, 40), (65, 10)]);
    assert_eq!(idle_at(quiet(), "when flow.silent_ms >= 15_000"), [(20, 20), (40, 40)]);
    assert_eq!(idle_at(quiet(), "when flow.by_orig"), [], "nobody speaks");
}

#[test]
fn silence_is_noticed_of_connections_picked_up_mid_stream_and_not_of_unanswered_ones() {
    let mut source = Synthetic::new("t");
    push(&mut source, T0, &syn(1, 0));
    push(&mut source, T0, &Seg::new(true, ACK, 100, 900).port(2).data(10));
    push(&mut source, T0 + MS, &Seg::new(false, ACK, 900, 110).port(2).data(10));
    push(&mut source, T0 + 2 * MS, &Seg::new(true, ACK, 110, 910).port(2));
    source.idle(T0 + 30 * S);
    assert_eq!(idle_at(source, "when flow.sport == 2"), [(10, 10), (20, 20)]);
}

#[test]
fn who_asks_about_silence_changes_nothing_else() {
    let source = || {
        let mut source = Synthetic::new("t");
        handshake(&mut source, T0, 1);
        handshake(&mut source, T0 + S, 2);
        source.idle(T0 + 90 * S);
        push(&mut source, T0 + 100 * S, &Seg::new(true, RST, 1, 1).port(1));
        source.idle(T0 + 1000 * S);
        source
    };
    let reset = "rule \"r\" on rst when flow.idle_before_ms > 90_000 then { }\n";
    let ended =
        |run: &Run| run.rows.iter().map(|row| (row.flow.key.low_port, row.flow.last_ns)).collect::<Vec<_>>();
    let without = run(source(), reset);
    let with = run(source(), &format!("{reset}rule \"i\" on idle when flow.dport == 1 then {{ }}"));
    assert_eq!((with.hits(), ended(&with)), (without.hits(), ended(&without)));
    assert_eq!(with.hits().len(), 1);
}

/// The first bytes of a TLS connection: a ClientHello without extensions.
fn hello() -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    let len = body.len() as u8;
    [&[22, 3, 1, 0, len + 4, 1, 0, 0, len][..], &body].concat()
}

#[test]
fn a_client_hello_is_told_of_once() {
    let mut source = Synthetic::new("t");
    for (port, payload) in [(1, hello()), (2, vec![0x55; 60])] {
        handshake(&mut source, T0, port);
        let segment = Seg::new(true, ACK, 1, 1).port(port).data(payload.len()).ip();
        let bytes = [&segment[..segment.len() - payload.len()], &payload].concat();
        for again in 0..2 {
            source.push(T0 + 10 * MS + again * S, &bytes, LinkType::Raw);
        }
    }
    let run = run(source, "rule \"t\" on tls_hello when flow.established && flow.tls_hello_ms == 0 then { }");
    assert_eq!(run.hits(), [(T0 + 10 * MS, 1)]);
}

/// A rule is asked once about what happened, whatever else matches, and its fault counts once.
#[test]
fn a_condition_that_faults_is_counted_once() {
    let mut source = Synthetic::new("t");
    handshake(&mut source, T0, 1);
    let rules = rules(
        "rule \"f\" on established when flow.sport / flow.orig.payload > 0 then { }
        rule \"m\" on established then { }
        rule \"g\" on established when flow.orig.mss == 3 || flow.syns / flow.orig.retransmissions > 0 then { }",
    );
    let run = run_every(source, &config(), Arc::clone(&rules), 1);
    assert_eq!(run.hits().len(), 1);
    assert_eq!([0, 1, 2].map(|rule| rules.guard_faults(rule)), [1, 0, 1]);
}

#[test]
fn guards_are_timed_now_and_then_and_only_if_asked_for() {
    let asked = |time_guards| {
        let mut source = Synthetic::new("t");
        for port in 1..=3000 {
            push(&mut source, T0 + Nanos::from(port) * MS, &syn(port, 0));
        }
        let rules = rules("rule \"t\" on syn when flow.dport == 80 && flow.orig.mss == 9 then { }");
        run_every(source, &WorkerConfig { time_guards, ..config() }, Arc::clone(&rules), 1);
        rules.counters(0).map(|counters| counters.cost().samples)
    };
    assert_eq!((asked(false), asked(true)), (Some(0), Some(2)));
}

/// xorshift64: the same seed, the same run.
fn dice(state: &mut u64, sides: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % sides
}

#[test]
fn any_bytes_at_any_time_leave_the_books_balanced() {
    let noisy = "rule \"t\" on syn, syn_timeout, established, rst, retransmission, idle, close then { incident(\"info\", `x`); }";
    let all = rules(noisy);
    for seed in 1..=60_u64 {
        let mut s = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut source = Synthetic::new("t");
        let mut now = [T0, 0, u64::MAX - 1000 * S, u64::MAX][dice(&mut s, 4) as usize];
        for _ in 0..600 {
            let step = [0, MS, 40 * MS, 5 * S, 200 * S, 5000 * S, u64::MAX / 3][dice(&mut s, 7) as usize];
            let step = if dice(&mut s, 60) == 0 { step } else { step.min(S) };
            now = if dice(&mut s, 4) == 0 { now.saturating_sub(step) } else { now.saturating_add(step) };
            let flags = [SYN, SYN | ACK, ACK, RST, FIN | ACK, ACK, 255, 0][dice(&mut s, 8) as usize];
            let numbers = [0, 1, 2, 500, u32::MAX, 0x8000_0000];
            let (seq, ack) = (numbers[dice(&mut s, 6) as usize], numbers[dice(&mut s, 6) as usize]);
            let seg = Seg::new(dice(&mut s, 2) == 0, flags, seq, ack).port(dice(&mut s, 40) as u16);
            let seg = seg
                .data([0, 0, 1, 1400][dice(&mut s, 4) as usize])
                .window([0, 1, 900][dice(&mut s, 3) as usize]);
            let mut bytes = if dice(&mut s, 20) == 0 { too_big(&seg.ip(), 576) } else { seg.ip() };
            if dice(&mut s, 5) == 0 {
                let at = dice(&mut s, bytes.len() as u64) as usize;
                bytes[at] = dice(&mut s, 256) as u8;
            }
            let orig_len = [bytes.len() as u32, u32::MAX][usize::from(dice(&mut s, 30) == 0)];
            source.push_cut(now, &bytes, orig_len, LinkType::Raw);
            if dice(&mut s, 15) == 0 {
                source.idle(now);
            }
        }
        let tiny = WorkerConfig {
            flows: 1 + dice(&mut s, 20) as u32,
            half_open: 1 + dice(&mut s, 20) as u32,
            troubled: dice(&mut s, 5) as u32,
            tails: dice(&mut s, 3) as u32,
            lossless: dice(&mut s, 2) == 0,
            hash_secret: seed,
            messages: 1,
            ..config()
        };
        let run = run_every(source, &tiny, Arc::clone(&all), 1 + dice(&mut s, 30) as usize);
        assert_eq!(run.account.received, 600);
        assert_eq!(run.account.events.rows, run.rows.len() as u64);
    }
}
