//! How much memory an export takes, whatever its size. `REFEREE_EXPORT_MIB` sets the size.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]
#![allow(clippy::print_stdout, reason = "what was measured")]

mod common;

use std::fs;
use std::io::Read;
use std::process::Stdio;

use common::Bench;
use dataplane::record::{IncidentLog, RealDisk, RecordConfig, Store, StoredPacket, Writer, recorder};
use dataplane::source::{Interface, LinkType};
use serde_json::json;

const T0: u64 = 1_700_000_000_000_000_000;
const FRAME: usize = 1400;

/// Two workers' packets of ten a flow, in no order at all, and incidents that name some of the flows.
fn store_of(store: &Store, packets: u64) {
    let config = RecordConfig { compression_level: 1, store_bytes: 1 << 40, ..RecordConfig::default() };
    let (mut recorders, ports): (Vec<_>, Vec<_>) = (0..2).map(|worker| recorder(&config, worker)).unzip();
    for recorder in &mut recorders {
        recorder.announce(&Interface {
            name: "eth0".into(),
            description: String::new(),
            link: LinkType::Ethernet,
            link_number: 1,
            snap_len: 0,
        });
    }
    let mut writer = Writer::new(Box::new(RealDisk::new(&store.segments())), config, ports).unwrap();
    let mut bytes = [0x45; FRAME];
    let mut state = 88_172_645_463_325_252u64;
    for number in 0..packets {
        // Nothing that compresses.
        for piece in bytes.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            piece.copy_from_slice(&state.to_le_bytes());
        }
        let packet = StoredPacket {
            ts: T0 + number * 7919 % packets,
            number,
            flow_id: number / 10,
            interface: 0,
            orig_len: FRAME as u32,
            bytes: &bytes,
            comment: (number % 1000 == 0).then_some("referee: rst_midflow (rst)"),
        };
        recorders[(number % 2) as usize].write(&packet).unwrap();
        while writer.pump() {}
    }
    drop(recorders);
    writer.close();
    let mut log = IncidentLog::open(store).unwrap();
    for incident in 0..2000u64 {
        let flows: Vec<String> =
            (0..50).map(|nth| format!("{:016x}", (incident * 50 + nth) % packets)).collect();
        let explain = "why ".repeat(100);
        let line = json!({"id": format!("{incident:016x}"), "rule": "rst_midflow", "last_ns": T0 + packets,
            "flow_ids": flows, "explain": explain});
        log.append(&line).unwrap();
    }
}

/// Most memory the process has had, KiB.
fn peak_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[test]
fn an_export_takes_less_than_64_mib_whatever_its_size() {
    let mib = std::env::var("REFEREE_EXPORT_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(160u64);
    let bench = Bench::new();
    let store = Store::create(&bench.path("s")).unwrap();
    let packets = mib * (1 << 20) / FRAME as u64;
    store_of(&store, packets);
    let args = ["captures", "get", "--store", "s", "-w", "-"];
    let mut child = bench.command(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let (mut piece, mut total, mut peak) = (vec![0; 1 << 20], 0, 0);
    loop {
        let read = out.read(&mut piece).unwrap();
        if read == 0 {
            break;
        }
        // While more is written than the pipe holds, the writer waits for us.
        peak = peak.max(peak_kib(child.id()));
        total += read as u64;
    }
    assert!(child.wait().unwrap().success());
    assert!(total > packets * FRAME as u64, "{total} bytes");
    println!("{} MiB exported with {peak} KiB at most", total >> 20);
    assert!(peak > 0 && peak < 64 << 10, "{peak} KiB");
}
