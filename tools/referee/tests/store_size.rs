//! How much memory an export takes, whatever its size. `REFEREE_EXPORT_MIB` sets the size.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]
#![allow(clippy::print_stdout, reason = "what was measured")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use common::Bench;
use common::running::Running;
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

/// A store of so many MiB, or of `REFEREE_EXPORT_MIB`; and its packets.
fn large_store(bench: &Bench) -> u64 {
    let mib = std::env::var("REFEREE_EXPORT_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(160u64);
    let packets = mib * (1 << 20) / FRAME as u64;
    store_of(&Store::create(&bench.path("s")).unwrap(), packets);
    packets
}

/// Reads to the end. Bytes, and the most memory the process had: while more comes than a pipe holds, it waits for us.
fn read_out(mut out: impl Read, process: u32) -> (u64, u64) {
    let (mut piece, mut total, mut peak) = (vec![0; 1 << 20], 0, 0);
    loop {
        let read = out.read(&mut piece).unwrap();
        if read == 0 {
            return (total, peak);
        }
        peak = peak.max(peak_kib(process));
        total += read as u64;
    }
}

#[test]
fn an_export_takes_less_than_64_mib_whatever_its_size() {
    let bench = Bench::new();
    let packets = large_store(&bench);
    let args = ["captures", "get", "--store", "s", "-w", "-"];
    let mut child = bench.command(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (total, peak) = read_out(child.stdout.take().unwrap(), child.id());
    assert!(child.wait().unwrap().success());
    assert!(total > packets * FRAME as u64, "{total} bytes");
    println!("{} MiB exported with {peak} KiB at most", total >> 20);
    assert!(peak > 0 && peak < 64 << 10, "{peak} KiB");
}

#[test]
fn so_does_a_download_of_it() {
    let bench = Bench::new();
    let packets = large_store(&bench);
    let mut command = bench.command(&["serve", "--store", "s", "--socket", "api.sock"]);
    let serving = Running::spawn(command.stdout(Stdio::null()));
    for (query, how) in [("?stream=true", "as it is made"), ("", "made ready before")] {
        let mut stream = UnixStream::connect(bench.path("api.sock")).unwrap();
        let path = format!("/api/v1/captures/download{query}");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200", "{how}");
        let (total, peak) = read_out(stream, serving.id());
        assert!(total > packets * FRAME as u64, "{total} bytes");
        println!("{} MiB downloaded, {how}, with {peak} KiB at most", total >> 20);
        assert!(peak > 0 && peak < 64 << 10, "{peak} KiB");
    }
    serving.stop().ran.exits(0);
}
