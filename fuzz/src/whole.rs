//! Bytes through the whole pipeline: worker, judge with the shipped rules, writer. libFuzzer's thread; the pipeline's
//! own books are checked by whoever runs it, what came in is checked here.

use std::sync::{Arc, OnceLock};

use dataplane::config::WorkerConfig;
use dataplane::hold::HoldConfig;
use dataplane::record::RecordConfig;
use dataplane::source::synthetic::Synthetic;
use dataplane::source::{LinkType, Source};
use tests::disk::MemDisk;
use tests::{Pipeline, Setup, captures, shipped_rules, talk};

pub fn pipeline(data: &[u8]) {
    if talk::is_capture(data) {
        let Ok(source) = captures::open("input", data.to_vec()) else { return };
        run(source, data.len() % 2 == 1);
        return;
    }
    let talk = talk::talk(data);
    let mut source = Synthetic::new("talk");
    for (packet, kept) in talk.packets.iter().zip(&talk.kept) {
        let bytes = &packet.bytes[..(*kept).min(packet.bytes.len())];
        source.push_cut(packet.ts, bytes, packet.bytes.len() as u32, LinkType::Ethernet);
    }
    let received = run(source, talk.record);
    assert_eq!(received, talk.packets.len() as u64, "a packet is missing");
}

/// Runs a source to its end; gives the packets received. Their accounts are checked on the way.
fn run(source: impl Source, record: bool) -> u64 {
    static RULES: OnceLock<Arc<rules::RuleSet>> = OnceLock::new();
    let rules = Arc::clone(RULES.get_or_init(shipped_rules));
    let mut setup = Setup::with(tiny(), rules);
    if record {
        let config = RecordConfig { chunk_bytes: 8 << 10, chunks: 3, ..RecordConfig::default() };
        setup = setup.recording(config, MemDisk::new());
    }
    let outcome = Pipeline::new(source, setup).run();
    // What is shown must be something that can be shown.
    assert!(!outcome.reports().is_empty());
    outcome.account.received
}

/// Small enough that tables fill, and to be made anew thousands of times.
fn tiny() -> WorkerConfig {
    WorkerConfig {
        flows: 48,
        half_open: 16,
        troubled: 16,
        apps: 24,
        questions: 16,
        history_bytes: 256 << 10,
        tails: 4,
        hold: HoldConfig { holds: 4, pool_bytes: 64 << 10, per_rule_per_second: 8 },
        messages: 256,
        activity: 64,
        siblings: 8,
        fragmented: 8,
        copies: 32,
        ..WorkerConfig::small()
    }
}
