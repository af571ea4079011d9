//! After its start a worker never allocates: stepped through mixes, floods, full tables, captures and damaged
//! files, `Worker::step` takes nothing from the allocator and gives nothing back.
//!
//! Counts only between [`counted`]'s two ends and only on the calling thread; judge and writer work outside.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]
#![allow(
    unsafe_code,
    reason = "a counting allocator can't be written without; it only forwards to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::thread;

use dataplane::config::WorkerConfig;
use dataplane::demand::{Counts, Demand, Over};
use dataplane::filter::Selection;
use dataplane::hold::HoldConfig;
use dataplane::record::RecordConfig;
use dataplane::source::afxdp::{BusyPoll, CaptureClock, ClockChoice, Tap, TapSettings, ZeroCopy};
use dataplane::source::dispatch::ends;
use dataplane::source::file::FileSource;
use dataplane::source::lane::{Lane, Numbered};
use dataplane::source::nic::Nic;
use dataplane::source::rss::Choice;
use dataplane::source::synthetic::Synthetic;
use dataplane::source::{LinkType, Source};
use dataplane::worker::Step;
use tests::captures::{self, NG};
use tests::disk::MemDisk;
use tests::live::{Namespace, Shape, VethPair, need_root};
use tests::{Outcome, Pipeline, Setup};
use wiregen::packet::{self, Ethernet, Ip, SYN, TcpHeader, TcpOptions};
use wiregen::rng::Rng;
use wiregen::scenario::{NAMES, Options, Packet, START};

struct Counting;

thread_local! {
    static ARMED: Cell<bool> = const { Cell::new(false) };
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

fn note(size: usize) {
    // A thread that is ending has no thread-locals left; it isn't one that counts.
    let armed = ARMED.try_with(Cell::get).unwrap_or(false);
    if armed {
        CALLS.with(|calls| calls.set(calls.get() + 1));
        BYTES.with(|bytes| bytes.set(bytes.get() + size));
        trace(size);
    }
}

/// Shows where the first call of a step came from, if asked to by the environment.
#[cold]
#[allow(clippy::print_stderr, reason = "asked for by whoever looks for an allocation")]
fn trace(size: usize) {
    ARMED.with(|armed| armed.set(false));
    let wanted = std::env::var_os("NO_ALLOC_TRACE").is_some();
    if wanted {
        eprintln!("{size} bytes:\n{}", std::backtrace::Backtrace::force_capture());
    }
    ARMED.with(|armed| armed.set(!wanted));
}

// SAFETY: every call goes to `System` with the arguments it came with; counting touches only thread-locals.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promised us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(layout.size());
        // SAFETY: as the caller promised us.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` gave, and how many times it allocated or freed, and of how many bytes.
fn counted<T>(work: impl FnOnce() -> T) -> (T, u64, usize) {
    CALLS.with(|calls| calls.set(0));
    BYTES.with(|bytes| bytes.set(0));
    ARMED.with(|armed| armed.set(true));
    let result = work();
    ARMED.with(|armed| armed.set(false));
    (result, CALLS.with(Cell::get), BYTES.with(Cell::get))
}

/// Runs everything, counting what the worker's steps allocate. `allowed` says whether a source may have
/// allocated in the step just made.
fn steps<S: Source>(what: &str, source: S, setup: Setup, allowed: impl Fn(&S, usize) -> bool) -> Outcome {
    let mut pipeline = Pipeline::new(source, setup);
    let mut number = 0;
    loop {
        let known = pipeline.worker.source().interfaces().len();
        let (step, calls, bytes) = counted(|| pipeline.worker.step());
        let fine = calls == 0 || allowed(pipeline.worker.source(), known);
        let account = pipeline.worker.account();
        assert!(fine, "{what}: step {number} allocated {calls} times, {bytes} bytes; {account:#?}");
        number += 1;
        pipeline.hear(usize::MAX);
        pipeline.write();
        if step == Step::Done {
            return pipeline.finish();
        }
    }
}

fn never<S>(_: &S, _: usize) -> bool {
    false
}

fn recording(config: WorkerConfig) -> Setup {
    let record = RecordConfig { chunk_bytes: 32 << 10, chunks: 6, ..RecordConfig::default() };
    Setup::with(config, tests::shipped_rules()).recording(record, MemDisk::new())
}

#[test]
fn the_counter_counts() {
    let (_, calls, bytes) = counted(|| drop(std::hint::black_box(vec![0_u8; 100])));
    assert_eq!((calls, bytes), (2, 200));
    assert_eq!(counted(|| std::hint::black_box(1 + 1)).1, 0);
}

#[test]
fn a_mix_from_a_file_recorded_or_not() {
    let (packets, _) = captures::mix_of(3000, 21);
    let file = captures::file(&packets, NG);
    // The window goes back when the file ends: the only release there is.
    let at_end = |source: &FileSource, _| source.report().complete;
    let plain = steps("mix", captures::opened(file.clone()), Setup::small(), at_end);
    assert!(!plain.incidents.is_empty());
    let kept = steps("mix, recorded", captures::opened(file), recording(WorkerConfig::small()), at_end);
    assert!(kept.account.kept.kept > 100 && kept.account.holds_taken > 10, "{:#?}", kept.account);
}

#[test]
fn every_scenario_recorded_through_tiny_pools() {
    let hold = HoldConfig { holds: 4, pool_bytes: 64 << 10, per_rule_per_second: 64 };
    // A history of 1 MiB, the least there is, so that tails are rescued.
    let tiny =
        WorkerConfig { hold, history_bytes: 1 << 20, tails: 16, troubled: 64, ..WorkerConfig::small() };
    for name in NAMES {
        let (packets, _) = captures::scenario(name, &Options { seed: 6, ..Options::default() });
        steps(name, captures::synthetic(&packets), recording(tiny), never);
    }
}

/// One of each thing a condition can do.
const OPERATORS: &str = r#"
const HOUR_MS = 3_600_000;
param ours = "10.0.0.0/8";
fn named(name) { name.ends_with(".example.com") || name in ["example.com", "example.org"] }
rule "op_hello" on tls_hello when named(flow.sni) || flow.sni.contains("e") then { incident("info", `${flow.sni}`); }
rule "op_dns" on dns_answer, dns_timeout when flow.dns_name.starts_with("a") && flow.dns_wait_ms > 100 then { }
rule "op_idle" on idle when flow.silent_ms in 10_000..HOUR_MS && flow.src in [ours, "2001:db8::/32"] then { }
rule "op_rate" on close, retransmission
when flow.orig.payload / 1.5 in 0.5..1e9 && flow.orig.packets / flow.resp.packets % 3 == 1 then { }
rule "op_port" on established, syn, rst when flow.dport in [80, 443] && flow.orig.mss - flow.resp.mss != 0 then { }
"#;

#[test]
fn conditions_of_every_kind_timed_or_not() {
    let mut files = rules::library();
    files.push(rules::SourceFile { name: "operators.rhai".to_owned(), text: OPERATORS.to_owned() });
    let (mut samples, mut matched) = (0, 0);
    for name in NAMES {
        let (packets, _) = captures::scenario(name, &Options { seed: 8, ..Options::default() });
        let run = |time_guards| {
            let rules = tests::run::load(&files, &[]);
            let config = WorkerConfig { time_guards, ..WorkerConfig::small() };
            let outcome =
                steps(name, captures::synthetic(&packets), Setup::with(config, rules.clone()), never);
            let counters = || (0..rules.rules().len() as u16).filter_map(|rule| rules.counters(rule));
            samples += counters().map(|c| c.cost().samples).sum::<u64>();
            let own = rules.rules().iter().zip(counters()).filter(|(meta, _)| meta.name.starts_with("op_"));
            matched += own.filter(|(_, counters)| counters.matched() > 0).count();
            outcome.reports()
        };
        let [plain, timed] = [false, true].map(run);
        assert_eq!(plain, timed, "{name}: who looks at the clock changes nothing");
    }
    assert!(samples > 10 && matched > 20, "{samples} {matched}");
}

#[test]
fn a_syn_flood_into_a_small_half_open_region() {
    let mut packets = Vec::new();
    let mut rng = Rng::new(9);
    let options = TcpOptions::default().mss(1460).sack_permitted().nop().window_scale(7);
    for n in 0..100_000_u64 {
        let bits = rng.next_u32();
        let src = std::net::Ipv4Addr::from_bits(0xc612_0000 | bits & 0x0001_ffff).into();
        let dst = std::net::Ipv4Addr::new(10, 50, 0, 10).into();
        let ip = Ip { src, dst, ttl: 52, id: n as u16, dont_fragment: true };
        let sport = 1024 + rng.below(64_000) as u16;
        let tcp = TcpHeader {
            sport,
            dport: 443,
            seq: rng.next_u32(),
            ack: 0,
            flags: SYN,
            window: 64_240,
            options: options.as_bytes(),
        };
        let mut bytes = Vec::new();
        packet::tcp(&mut bytes, &Ethernet::default(), &ip, &tcp, &[]);
        packets.push(Packet { ts: START + n * 100_000, bytes });
    }
    let config = WorkerConfig { half_open: 1000, flows: 1000, troubled: 500, ..WorkerConfig::small() };
    let outcome = steps("flood", captures::synthetic(&packets), recording(config), never);
    assert!(outcome.account.half_open_evicted > 50_000, "{:#?}", outcome.account);
}

#[test]
fn rules_that_change_all_the_time() {
    let (packets, _) = captures::mix_of(1000, 23);
    let mut pipeline = Pipeline::new(captures::synthetic(&packets), recording(WorkerConfig::small()));
    let all = rules::library();
    for number in 0.. {
        // The worker frees none of them: whoever made them still has them.
        if number % 5 == 0 {
            pipeline.reload(&all[..(number / 5) % all.len()]);
        }
        let (step, calls, bytes) = counted(|| pipeline.worker.step());
        assert_eq!((calls, bytes), (0, 0), "step {number}");
        pipeline.hear(usize::MAX);
        pipeline.write();
        if step == Step::Done {
            break;
        }
    }
    assert!(pipeline.live() > 10, "{}", pipeline.live());
    pipeline.finish();
}

#[test]
fn captures_on_demand() {
    let (packets, _) = captures::mix_of(2000, 26);
    let config = WorkerConfig { history_bytes: 1 << 20, payload_bytes: Some(64), ..WorkerConfig::small() };
    let mut pipeline = Pipeline::new(captures::synthetic(&packets), recording(config));
    let mut demands = Vec::new();
    for number in 0..u64::MAX {
        // Some from long ago on, some until much later; some end for want of room, some are ended.
        if number % 10 == 3
            && let Ok(selection) = Selection::new("tcp port 443 or udp or icmp", &[1])
        {
            let now = pipeline.worker.now();
            let time = (now.saturating_sub(number * 20_000_000), now + number % 7 * 1_000_000_000);
            let demand = Arc::new(Demand::new(number, selection, time, (1000, 200_000), 1));
            if pipeline.demand(&demand) {
                demands.push(demand);
            }
        }
        if number % 50 == 49 {
            demands.iter().for_each(|demand: &Arc<Demand>| demand.end(Over::Ended));
        }
        let (step, calls, bytes) = counted(|| pipeline.worker.step());
        assert_eq!((calls, bytes), (0, 0), "step {number}");
        pipeline.hear(usize::MAX);
        if number % 3 == 0 {
            pipeline.write();
        }
        if step == Step::Done {
            break;
        }
    }
    pipeline.write();
    pipeline.finish();
    let counts: Vec<_> = demands.iter().map(|demand| demand.counts()).collect();
    let sum = |of: fn(&Counts) -> u64| counts.iter().map(of).sum::<u64>();
    let enough = sum(|c| c.kept) > 1000 && sum(|c| u64::from(c.scanned)) > 5;
    assert!(enough || demands.is_empty(), "{counts:?}");
}

#[test]
fn a_full_table() {
    let (packets, _) = captures::mix_of(3000, 22);
    let config = WorkerConfig {
        flows: 60,
        half_open: 20,
        troubled: 10,
        activity: 64,
        apps: 20,
        questions: 4,
        ..WorkerConfig::small()
    };
    let outcome = steps("full table", captures::synthetic(&packets), recording(config), never);
    assert!(outcome.account.flows_evicted > 500, "{:#?}", outcome.account);
}

/// A file source may allocate for a new interface or compressed frame, and at its end (report, window).
fn file_may(source: &FileSource, known: usize) -> bool {
    let report = source.report();
    source.interfaces().len() > known || report.complete || report.damage.is_some()
}

#[test]
fn damaged_files() {
    let (packets, _) = captures::scenario("retransmission", &Options::default());
    let files =
        [captures::NG, captures::NG_BIG, captures::MICROS].map(|style| captures::file(&packets[..80], style));
    let mut rng = Rng::new(4);
    let config = WorkerConfig { flows: 256, half_open: 64, history_bytes: 1 << 20, ..WorkerConfig::small() };
    let mut opened = 0;
    for round in 0..400 {
        let bytes = captures::mutate(&files[round % 3], &mut rng);
        if let Ok(source) = captures::open("damaged", bytes) {
            opened += 1;
            steps(&format!("damaged, round {round}"), source, recording(config), file_may);
        }
    }
    assert!(opened > 100, "{opened} opened");
}

/// Two workers with two queues each, whose flows reach any queue: their packets change hands.
#[test]
fn workers_that_hand_each_other_packets() {
    let (packets, _) = captures::mix_of(2000, 24);
    let mut queues: [Synthetic; 4] = std::array::from_fn(|_| Synthetic::new("tap"));
    packets.iter().enumerate().for_each(|(number, packet)| {
        queues[number * 7 % 4].push(packet.ts, &packet.bytes, LinkType::Ethernet);
    });
    let all: Arc<[_]> = queues[0].interfaces().into();
    let mut queues =
        queues.map(|source| Numbered { source, interface: 0, all: Arc::clone(&all) }).into_iter();
    let mut workers: Vec<_> = ends(2, |_, work| work())
        .unwrap()
        .into_iter()
        .map(|ends| Lane::new(queues.by_ref().take(2).collect(), Some(ends), None, &all))
        .map(|lane| Pipeline::new(lane, recording(WorkerConfig::small())))
        .collect();
    let mut done = [false; 2];
    while done != [true; 2] {
        for (pipeline, done) in workers.iter_mut().zip(&mut done) {
            let (step, calls, bytes) = counted(|| pipeline.worker.step());
            assert_eq!((calls, bytes), (0, 0));
            pipeline.hear(usize::MAX);
            pipeline.write();
            *done |= step == Step::Done;
        }
    }
    let mut given = dataplane::ledger::WorkerAccount::default();
    workers.iter().for_each(|pipeline| pipeline.worker.source().add_to(&mut given));
    let ended = workers.into_iter().map(Pipeline::finish);
    let received: u64 = ended.map(|outcome| outcome.account.received).sum();
    assert_eq!((received, given.received), (packets.len() as u64, 0));
    assert!(given.handed_over > received / 4, "{given:?}");
}

/// Captures from a veth pair what is sent into its other end, in both frame formats.
#[test]
fn a_live_interface() {
    if !need_root("a live interface") {
        return;
    }
    let (packets, _) = captures::mix_of(300, 23);
    let large = vec![0xAB_u8; 8000];
    for mtu in [1500, 9000] {
        let namespace = Namespace::new();
        let pair = VethPair::new(&namespace, Shape { queues: 1, mtu });
        let sent = packets.iter().map(|packet| &packet.bytes[..]);
        let sent: Vec<&[u8]> = sent.chain((mtu == 9000).then_some(&large[..])).collect();
        namespace.run(|| {
            let clock = Arc::new(CaptureClock::sampled());
            let settings = TapSettings {
                zero_copy: ZeroCopy::Off,
                ring: 1024,
                busy_poll: BusyPoll::Off,
                steal: false,
                filter: None,
                rss: Choice::Verify,
                clock: ClockChoice::Kernel,
            };
            let nic = Nic::find(&pair.tap.name).unwrap();
            let (mut tap, mut sources) = Tap::open(nic, &settings, &clock).unwrap();
            tap.begin().unwrap();
            let mut wire = File::from(dataplane_sys::packet::sender(pair.wire.index).unwrap());
            let source = sources.pop().unwrap();
            let outcome = thread::scope(|scope| {
                scope.spawn(|| {
                    for (number, bytes) in sent.iter().enumerate() {
                        wire.write_all(bytes).unwrap();
                        // Not more than the ring holds on their way: nothing is to be lost here.
                        while tap.report().unwrap().taken() + 256 < number as u64 {
                            thread::yield_now();
                        }
                    }
                    tap.detach();
                    tap.stop();
                });
                steps("an interface", source, recording(WorkerConfig::small()), never)
            });
            assert_eq!(outcome.account.received, sent.len() as u64);
            assert!(tap.report().unwrap().settled());
        });
    }
}

fn sections(file: &[u8]) -> usize {
    file.windows(4).filter(|word| *word == [0x0a, 0x0d, 0x0d, 0x0a]).count()
}

#[test]
fn the_corpus_of_malformed_files() {
    for path in captures::corpus_files("malformed") {
        if let Ok(source) = FileSource::open(&path) {
            let name = path.display().to_string();
            let compressed = name.ends_with(".gz") || name.ends_with(".zst") || name.ends_with(".lz4");
            // A second section describes its interfaces again: they are read before they prove to be known.
            let again = sections(&std::fs::read(&path).unwrap()) > 1;
            let may = |source: &FileSource, known| compressed || again || file_may(source, known);
            steps(&name, source, recording(WorkerConfig::small()), may);
        }
    }
}
