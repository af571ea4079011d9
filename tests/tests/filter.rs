//! Filters: files are filtered as tcpdump filters them, and the XDP program and socket filters decide as files' filter does.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]
#![allow(clippy::print_stdout, reason = "a test that skips says why")]

use std::fs::File;
use std::io::Write as _;
use std::num::NonZero;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use dataplane::filter::{Filter, FilterError, Filtered};
use dataplane::ledger::WorkerAccount;
use dataplane::source::file::FileSource;
use dataplane::source::synthetic::Synthetic;
use dataplane::source::{Batch, LinkType, Poll, Source};
use dataplane_sys::bpf::{Arrival, Kind, classify_once, load, run_once};
use dataplane_sys::packet;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};
use tests::captures;
use tests::live::{Namespace, Shape, VethPair, need_root};
use wiregen::rng::Rng;
use wiregen::scenario::Packet;
use xdp_prog::abi::Outcome;
use xdp_prog::filter::{Refusals, Target, translate};
use xdp_prog::{Capture, Filtering};

/// Verdicts of the XDP chain that has no socket: it would hand over, or it refuses.
const PASS: u32 = 2;
const DROP: u32 = 1;

const EXPRESSIONS: [&str; 47] = [
    "",
    "ip",
    "ip6",
    "arp",
    "tcp",
    "udp",
    "icmp",
    "icmp6",
    "vlan",
    "vlan 5",
    "vlan and host 10.0.0.1",
    "vlan and vlan and tcp",
    "vlan 5 and vlan 6 and udp port 53",
    "not vlan",
    "port 80",
    "tcp port 80 or udp port 53",
    "host 10.0.0.1 and port 8080",
    "src host 10.0.0.2",
    "dst port 443",
    "ip6 host 2001:db8::1",
    "host 10.0.0.1 or host 2001:db8::2",
    "net 10.0.0.0/30 and not port 22",
    "portrange 50-90",
    "src portrange 1000-9000 and tcp",
    "tcp[tcpflags] & (tcp-syn|tcp-rst) != 0",
    "tcp[13] = 2",
    "icmp[icmptype] = icmp-unreach",
    "icmp6 and ip6[40] = 2",
    "greater 100",
    "less 80",
    "len > 60 and len <= 200",
    "ip[6:2] & 0x1fff != 0",
    "ip[6:2] & 0x2000 != 0 and udp",
    "(ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2) != 0",
    "ether host 02:00:00:00:00:01",
    "ether[0] & 1 = 0 and ip[16] >= 10",
    "ether proto 0x88a8",
    "ether broadcast or ether multicast",
    "ip proto 17 and ip[8] > 10",
    "ip[ip[0] & 0xf] = 0",
    "ip[2:2] / (ip[8] - 64) > 0",
    "ip[2:2] % (ip[8] & 3) = 1",
    "(ip[8] << (ip[9] & 0x3f)) > 64 or (ip[8] >> ip[1]) = 64",
    "tcp[(ip[2:2] & 3) : 4] > 0x80000000",
    "port 80 or (vlan and port 80)",
    "icmp or (vlan and icmp) or (vlan and icmp)",
    "ip host 10.0.0.1 and not (tcp port 80 or tcp port 443) and ip[8] ^ 3 != 5",
];

/// Internet packets that differ in all that filters look at. Of few hosts and ports, so that they often meet.
struct Frames {
    rng: Rng,
    recent: Vec<Vec<u8>>,
}

impl Frames {
    fn new(seed: u64) -> Frames {
        Frames { rng: Rng::new(seed), recent: Vec::new() }
    }

    fn many(seed: u64, count: usize) -> Vec<Packet> {
        let mut frames = Frames::new(seed);
        (0..count).map(|n| Packet { ts: 1_000_000 * (n as u64 + 1), bytes: frames.frame() }).collect()
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.rng.percent(percent)
    }

    fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[self.rng.below(choice.len() as u64) as usize]
    }

    /// What IP carries, and its number.
    fn content(&mut self, v6: bool) -> (u8, Vec<u8>) {
        let ports = [22, 53, 80, 443, 8080, 5000];
        let (sport, dport): (u16, u16) = (self.of(&ports), self.of(&ports));
        let mut body = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
        let more = self.rng.below(120) as usize;
        match self.rng.below(10) {
            0..=3 => {
                let flags = self.of(&[2, 16, 18, 4, 24]);
                body.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0]);
                body.resize(20 + more, 7);
                (6, body)
            }
            4..=6 => {
                body.extend([0, 40, 0, 0]);
                body.resize(8 + more, 9);
                (17, body)
            }
            7 => (if v6 { 58 } else { 1 }, vec![8, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4]),
            _ => {
                let kind = if v6 { self.of(&[1, 2, 3, 4, 135]) } else { self.of(&[3, 4, 5, 11, 12, 13]) };
                let mut body = vec![kind, 4, 0, 0, 0, 0, 5, 0];
                let quoted = match self.recent.is_empty() {
                    true => Vec::new(),
                    false => self.of(&(0..self.recent.len()).collect::<Vec<_>>()).to_le_bytes().to_vec(),
                };
                let index = quoted.first_chunk::<8>().map(|index| usize::from_le_bytes(*index));
                let same = index.map(|index| self.recent[index].clone()).unwrap_or_default();
                let length = self.of(&[28, 48, 68, 20, 10]);
                body.extend(same.iter().take(length));
                (if v6 { 58 } else { 1 }, body)
            }
        }
    }

    fn ip(&mut self, v6: bool) -> Vec<u8> {
        let (proto, body) = self.content(v6);
        let (src, dst) = (self.of(&[1_u8, 2, 3, 130]), self.of(&[1_u8, 2, 3, 130]));
        // Of the same packet now and then.
        let id = self.of(&[1_u16, 2, 3]);
        let (offset, more) =
            self.of(&[(0_u16, false), (0, false), (0, false), (0, true), (3, true), (100, false)]);
        let ttl = self.of(&[1, 5, 63, 64, 128]);
        let mut ip = Vec::new();
        if v6 {
            let mut chain = Vec::new();
            let mut next = proto;
            if offset > 0 || more || self.chance(5) {
                let field = (offset << 3 | u16::from(more)).to_be_bytes();
                chain = [&[next, 0, field[0], field[1], 0, 0, 0], &[id as u8][..], &chain].concat();
                next = 44;
            }
            for _ in 0..self.of(&[0, 0, 0, 0, 1, 2, 5]) {
                let length = self.of(&[0_u8, 1]);
                let mut header = vec![next, length];
                header.resize(8 * (usize::from(length) + 1), 0);
                chain = [header, chain].concat();
                next = self.of(&[0, 43, 60]);
            }
            let length = ((chain.len() + body.len()) as u16).to_be_bytes();
            ip.extend([0x60, 0, 0, 0, length[0], length[1], next, ttl]);
            for host in [src, dst] {
                ip.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
            }
            ip.extend(chain);
        } else {
            let options = self.of(&[0_usize, 0, 0, 4, 8]);
            let length = ((20 + options + body.len()) as u16).to_be_bytes();
            let field = (offset | u16::from(more) << 13).to_be_bytes();
            ip.extend([0x45 + (options / 4) as u8, self.of(&[0, 2]), length[0], length[1], 0, id as u8]);
            ip.extend([field[0], field[1], ttl, proto, 0, 0, 10, 0, 0, src, 10, 0, 0, dst]);
            ip.resize(20 + options, 1);
        }
        ip.extend(body);
        if self.recent.len() == 32 {
            self.recent.remove(0);
        }
        self.recent.push(ip.clone());
        ip
    }

    fn frame(&mut self) -> Vec<u8> {
        let host = self.of(&[1, 2]);
        let mut frame = vec![2, 0, 0, 0, 0, host, 2, 0, 0, 0, 0, 3 - host];
        if self.chance(3) {
            frame[0] = 0xff;
        }
        for _ in 0..self.of(&[0, 0, 0, 1, 1, 2, 3]) {
            let tag: [u8; 2] = self.of(&[[0x81, 0], [0x88, 0xa8], [0x91, 0]]);
            frame.extend([tag[0], tag[1], 0, self.of(&[5, 6])]);
        }
        let v6 = self.chance(40);
        let ip = self.ip(v6);
        frame.extend(if self.chance(2) {
            [8, 6]
        } else if v6 {
            [0x86, 0xdd]
        } else {
            [8, 0]
        });
        frame.extend(ip);
        if self.chance(6) {
            let at = self.rng.below(frame.len() as u64) as usize;
            frame[at] = self.rng.next_u32() as u8;
        }
        if self.chance(4) {
            frame.truncate((self.rng.below(frame.len() as u64) as usize).max(14));
        }
        frame
    }
}

/// What passes, whole.
fn passes<S: Source>(mut source: Filtered<S>) -> (Vec<Vec<u8>>, WorkerAccount, u64) {
    let mut batch = Batch::new();
    let mut kept = Vec::new();
    loop {
        match source.poll(&mut batch) {
            Poll::Packets => {
                assert!(!batch.packets.is_empty());
                kept.extend(batch.packets.iter().map(|packet| source.bytes(packet).to_vec()));
                source.release(&mut batch);
            }
            Poll::Idle(_) => {}
            Poll::End => break,
        }
    }
    let mut account = WorkerAccount::default();
    source.account(&mut account);
    let related = source.refused().unwrap().1.related;
    (kept, account, related)
}

/// What tcpdump makes of a file: the packets it lets through and whether it came to the end, or what it says of the
/// expression.
fn tcpdump(file: &[u8], expression: &str) -> Result<(Vec<Vec<u8>>, bool), String> {
    let mut command = Command::new("tcpdump");
    let command = command.args(["-r", "-", "-w", "-", expression]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // It may end before it has read all.
        scope.spawn(move || drop(stdin.write_all(file)));
        child.wait_with_output().unwrap()
    });
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.stdout.is_empty() {
        let line = said.lines().find_map(|line| line.strip_prefix("tcpdump: "));
        return Err(line.unwrap_or(&said).to_owned());
    }
    Ok((packets(captures::opened(output.stdout)), output.status.success()))
}

fn packets(mut source: FileSource) -> Vec<Vec<u8>> {
    let mut batch = Batch::new();
    let mut all = Vec::new();
    while source.poll(&mut batch) == Poll::Packets {
        all.extend(batch.packets.iter().map(|packet| source.bytes(packet).to_vec()));
        source.release(&mut batch);
    }
    all
}

/// tcpdump and libpcap are there; says so if not.
fn has_tcpdump(test: &str) -> bool {
    let there = Command::new("tcpdump").arg("--version").output().is_ok();
    if !there {
        println!("skipped: {test}: no tcpdump on this host");
    }
    there && has_libpcap(test)
}

fn has_libpcap(test: &str) -> bool {
    let there = !matches!(Filter::new("", true).program(1), Err(error) if error.is_library());
    if !there {
        println!("skipped: {test}: no libpcap on this host");
    }
    there
}

/// Compares on one file; returns how many packets passed.
fn assert_as_tcpdump(name: &str, file: &[u8], expression: &str) -> usize {
    let theirs = tcpdump(file, expression);
    let ours = captures::open(name, file.to_vec())
        .map(|source| Filtered::new(source, Some(&Filter::new(expression, true))).map(passes));
    match (ours, theirs) {
        (Ok(Ok((mut ours, account, related))), Ok((theirs, whole))) => {
            let passed = ours.len();
            if !whole {
                // It gives up where interfaces have other link types than the first.
                ours.truncate(theirs.len());
            }
            assert_eq!(ours.len(), theirs.len(), "{name}: {expression}");
            assert!(ours == theirs, "{name}: {expression}: other packets");
            assert_eq!((account.received, related), (account.filtered, 0));
            passed
        }
        (Ok(Err(FilterError::Compile(ours))), Err(theirs)) => {
            assert_eq!(ours.to_string(), theirs, "{name}: {expression}");
            0
        }
        (Ok(Err(error)), Ok(_)) => panic!("{name}: {expression}: {error}"),
        // What neither can read, or tcpdump can't: several link types, or formats of its own.
        (Ok(Ok(_)) | Err(_) | Ok(Err(_)), Err(_)) | (Err(_), Ok(_)) => 0,
    }
}

#[test]
fn files_are_filtered_as_tcpdump_filters_them() {
    if !has_tcpdump("filters of files") {
        return;
    }
    let made = captures::file(&Frames::many(1, 3000), captures::NANOS);
    let (mix, _) = captures::mix_of(40, 3);
    let mix = captures::file(&mix, captures::NG);
    let mut passed = 0;
    for expression in EXPRESSIONS {
        let kept = assert_as_tcpdump("made", &made, expression);
        assert!(kept > 0, "{expression}: nothing passes, so nothing is shown");
        passed += kept + assert_as_tcpdump("mix", &mix, expression);
    }
    assert!(passed > 10_000, "{passed}");
}

#[test]
fn files_of_the_corpus_are_filtered_as_tcpdump_filters_them() {
    if !has_tcpdump("filters of the corpus") {
        return;
    }
    let mut passed = 0;
    for path in captures::corpus_files("pcaps") {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let file = std::fs::read(&path).unwrap();
        if tcpdump(&file, "").is_err() {
            // Compressed, or of a format of its own.
            continue;
        }
        for expression in EXPRESSIONS {
            passed += assert_as_tcpdump(&name, &file, expression);
        }
    }
    println!("{passed} packets passed");
}

#[test]
fn a_wrong_expression_is_explained_as_tcpdump_does() {
    if !has_tcpdump("wrong expressions") {
        return;
    }
    let file = captures::file(&Frames::many(1, 2), captures::NANOS);
    for expression in
        ["hots 10.0.0.1", "port", "host 10.0.0.1 and", "port 99999", "vlan 70000", "tcp[", "net 10.0.0.1/8"]
    {
        let theirs = tcpdump(&file, expression).unwrap_err();
        let ours = Filter::new(expression, true).program(1).unwrap_err();
        assert_eq!(ours.to_string(), theirs, "{expression}");
    }
    let error = Filter::new("inbound", true).program(1).unwrap_err();
    assert!(error.to_string().contains("what packets don't show"), "{error}");
}

fn memory(packets: &[Packet]) -> Synthetic {
    let mut source = Synthetic::new("memory");
    packets.iter().for_each(|packet| source.push(packet.ts, &packet.bytes, LinkType::Ethernet));
    source
}

/// The XDP program with this filter.
fn chain(filter: &Filter, jumbo: bool) -> Capture {
    let filtering = Filtering { relations: !filter.exact(), pass_refused: false };
    let capture = Capture::load_filtered(1, jumbo, filtering).unwrap();
    filter.complete(&capture, jumbo).unwrap_or_else(|error| panic!("{}: {error}", filter.expression()));
    capture
}

/// What of these the XDP program would hand over.
fn handed_over(capture: &Capture, packets: &[Packet], what: &str) -> Vec<Vec<u8>> {
    let mut kept = Vec::new();
    for packet in packets {
        let run = run_once(capture.as_fd(), &packet.bytes, Arrival::default()).unwrap();
        assert!(run.data[run.meta..] == packet.bytes, "{what}: the frame is left as it was");
        match run.action {
            PASS => kept.push(packet.bytes.clone()),
            action => assert_eq!(action, DROP, "{what}"),
        }
    }
    kept
}

#[test]
fn the_xdp_program_filters_as_files_are_filtered() {
    if !need_root("filters in XDP") || !has_libpcap("filters in XDP") {
        return;
    }
    let packets = Frames::many(2, 1200);
    for exact in [true, false] {
        let mut relations = 0;
        for expression in EXPRESSIONS {
            let filter = Filter::new(expression, exact);
            let (wanted, account, related) = passes(Filtered::new(memory(&packets), Some(&filter)).unwrap());
            for jumbo in [false, true] {
                let capture = chain(&filter, jumbo);
                let kept = handed_over(&capture, &packets, expression);
                assert_eq!(kept.len(), wanted.len(), "{expression} (exact: {exact}, jumbo: {jumbo})");
                assert!(kept == wanted, "{expression} (exact: {exact}, jumbo: {jumbo}): other packets");
                let tallies = capture.tallies().unwrap();
                let counted = [Outcome::Filtered, Outcome::Related, Outcome::NoSocket]
                    .map(|what| tallies.of(what).packets);
                assert_eq!(counted, [account.filtered, related, wanted.len() as u64], "{expression}");
                assert_eq!(tallies.seen(), packets.len() as u64);
                let tagged = packets.iter().filter(|packet| {
                    packet
                        .bytes
                        .get(12..14)
                        .is_some_and(|tag| [[0x81, 0], [0x88, 0xa8], [0x91, 0]].iter().any(|t| t == tag))
                });
                assert!(tallies.of(Outcome::FilteredTagged).packets <= tagged.count() as u64);
            }
            relations += related;
        }
        assert_eq!(relations > 300, !exact, "{relations} related packets");
    }
}

#[test]
fn a_frame_of_several_buffers_is_looked_at_to_its_end() {
    if !need_root("filters of jumbo frames") || !has_libpcap("filters of jumbo frames") {
        return;
    }
    let mut frame = Frames::many(3, 1).remove(0).bytes;
    frame.truncate(14);
    frame[12..].copy_from_slice(&[8, 0]);
    frame.resize(8900, 0);
    frame[8800] = 77;
    let packets = [Packet { ts: 1, bytes: frame }];
    for (expression, wanted) in
        [("ether[8800] = 77", 1), ("ether[8800] = 78", 0), ("ether[8897:4] = 0", 0), ("len = 8900", 1)]
    {
        let capture = chain(&Filter::new(expression, true), true);
        assert_eq!(handed_over(&capture, &packets, expression).len(), wanted, "{expression}");
    }
}

#[test]
fn the_verifier_takes_long_filters_and_is_spared_impossible_ones() {
    if !need_root("long filters in XDP") || !has_libpcap("long filters in XDP") {
        return;
    }
    let hosts = |count: u32| {
        let hosts: Vec<String> = (0..count).map(|n| format!("host 10.1.{}.{}", n / 250, n % 250)).collect();
        hosts.join(" or ")
    };
    let hosts = [hosts(300), format!("ip6 or {}", hosts(100)), format!("not ({})", hosts(100))];
    let others =
        ["portrange 1-65535", "ip6 host 2001:db8::1 or portrange 8000-9000 or vlan and portrange 1-2"];
    for expression in hosts.iter().map(String::as_str).chain(others) {
        for (exact, jumbo) in [(true, false), (false, false), (false, true)] {
            chain(&Filter::new(expression, exact), jumbo);
        }
    }
    let capture =
        Capture::load_filtered(1, false, Filtering { relations: true, pass_refused: false }).unwrap();
    let error = Filter::new("ip6 protochain 6", true).complete(&capture, false).unwrap_err();
    assert!(error.to_string().contains("protochain"), "{error}");
    // A chain without a filter leaves everything to the kernel.
    let packets = Frames::many(4, 10);
    assert_eq!(handed_over(&capture, &packets, "no filter yet").len(), 10);
    assert_eq!(capture.tallies().unwrap().of(Outcome::NoSocket).packets, 10);
}

#[test]
fn what_is_refused_goes_to_the_kernel_where_the_host_needs_it() {
    if !need_root("refused packets") || !has_libpcap("refused packets") {
        return;
    }
    let filtering = Filtering { relations: true, pass_refused: true };
    let capture = Capture::load_filtered(1, false, filtering).unwrap();
    Filter::new("udp", false).complete(&capture, false).unwrap();
    let frame = Frames::many(5, 50)
        .into_iter()
        .find(|packet| packet.bytes[12..14] == [8, 0] && packet.bytes[23] == 6);
    let frame = frame.unwrap().bytes;
    let run = run_once(capture.as_fd(), &frame, Arrival::default()).unwrap();
    assert_eq!((run.action, run.meta), (PASS, 0));
    assert!(run.data == frame);
    assert_eq!(capture.tallies().unwrap().of(Outcome::Filtered).packets, 1);
}

#[test]
fn a_socket_filter_decides_as_files_are_filtered() {
    /// What a classifier answers for a packet it doesn't want: nothing of it is to be kept.
    const NOTHING: u32 = 0;
    if !need_root("socket filters") || !has_libpcap("socket filters") {
        return;
    }
    let mut packets = Frames::many(6, 600);
    // The kernel runs no classifier on what can't be a whole IP header.
    packets.retain(|packet| packet.bytes.len() >= 14 + 40);
    for expression in EXPRESSIONS {
        let filter = Filter::new(expression, true);
        let refusals = Refusals::new().unwrap();
        let target = Target::Socket { refused: Some(refusals.as_fd().as_raw_fd()) };
        let code = translate(&filter.program(1).unwrap(), target).unwrap();
        // The kernel runs a socket's filter by hand on less than a frame; the same code as a classifier gets it whole.
        let program =
            load(Kind::Classifier, c"filter", &code).unwrap_or_else(|error| panic!("{expression}: {error}"));
        load(Kind::SocketFilter, c"filter", &code).unwrap_or_else(|error| panic!("{expression}: {error}"));
        let (wanted, account, _) = passes(Filtered::new(memory(&packets), Some(&filter)).unwrap());
        let takes = |packet: &&Packet| classify_once(program.as_fd(), &packet.bytes).unwrap() != NOTHING;
        let kept: Vec<&[u8]> = packets.iter().filter(takes).map(|packet| &packet.bytes[..]).collect();
        assert_eq!(kept.len(), wanted.len(), "{expression}");
        assert!(kept == wanted, "{expression}: other packets");
        let refused = refusals.count().unwrap();
        assert_eq!(refused.packets, account.filtered, "{expression}");
        let left_out =
            packets.iter().filter(|packet| !takes(packet) && is_tagged(&packet.bytes)).count() as u64;
        assert_eq!(refused.tagged, left_out, "{expression}");
    }
}

#[test]
fn the_xdp_program_filters_the_corpus_as_files_are_filtered() {
    if !need_root("the corpus in XDP") || !has_libpcap("the corpus in XDP") {
        return;
    }
    let mut frames = Vec::new();
    for path in captures::corpus_files("pcaps") {
        let Ok(source) = FileSource::open(&path) else { continue };
        if source.interfaces().iter().all(|interface| interface.link == LinkType::Ethernet) {
            frames.extend(packets(source).into_iter().filter(|frame| (14..60_000).contains(&frame.len())));
        }
    }
    let packets: Vec<Packet> =
        frames.into_iter().enumerate().map(|(n, bytes)| Packet { ts: n as u64, bytes }).collect();
    println!("{} frames", packets.len());
    for expression in EXPRESSIONS {
        for exact in [true, false] {
            let filter = Filter::new(expression, exact);
            let (wanted, ..) = passes(Filtered::new(memory(&packets), Some(&filter)).unwrap());
            let kept = handed_over(&chain(&filter, true), &packets, expression);
            assert!(kept == wanted, "{expression} (exact: {exact}): {} are not {}", kept.len(), wanted.len());
        }
    }
}

/// The frame has a VLAN tag.
fn is_tagged(frame: &[u8]) -> bool {
    [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00]].iter().any(|tag| frame[12..14] == tag[..])
}

/// A packet socket that receives what comes to this namespace's interfaces.
fn receiver() -> OwnedFd {
    let all = Protocol::from_raw(NonZero::new(u32::from(3_u16.to_be())).unwrap());
    socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::NONBLOCK, Some(all)).unwrap()
}

#[test]
fn a_packet_socket_is_filtered_as_if_tags_were_still_in_the_frame() {
    if !need_root("filters of packet sockets") || !has_libpcap("filters of packet sockets") {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    let pair = VethPair::between(&here, &there, Shape::default());
    let mut wire = File::from(here.run(|| packet::sender(pair.wire.index)).unwrap());
    let mut frames = Frames::many(7, 150);
    // Shorter ones may end in the kernel before a socket sees them.
    frames.retain(|frame| frame.bytes.len() >= 14 + 12 + 40);
    let some = [
        "vlan",
        "vlan 5",
        "vlan and vlan 6",
        "not vlan",
        "ip",
        "port 80 or (vlan and port 80)",
        "ether[10:4] != 0",
    ];
    let more = [
        "ether[14:2] = 5",
        "ether[13] = 0",
        "len > 100",
        "vlan and ip[8] = 64",
        "ether[ether[11] + 11 : 4] & 7 != 0",
    ];
    for (expression, exact) in some.iter().chain(&more).flat_map(|text| [(text, true), (text, false)]) {
        let filter = Filter::new(expression, exact);
        let (socket, attached) = there.run(|| {
            let (socket, attached) = (receiver(), filter.for_sockets().unwrap());
            attached.attach(socket.as_fd()).unwrap();
            (socket, attached)
        });
        let (wanted, ..) = passes(Filtered::new(memory(&frames), Some(&filter)).unwrap());
        let mut wanted = wanted.iter().peekable();
        let (mut received, mut tagged) = (0, 0);
        for (n, frame) in frames.iter().enumerate() {
            wire.write_all(&frame.bytes).unwrap();
            let before = received;
            // Delivered as it is sent, if the kernel isn't busy.
            for _ in 0..5000 {
                let mut bytes = [0; 2048];
                received += u64::from(recv(&socket, &mut bytes[..], RecvFlags::empty()).is_ok());
                if received + attached.refused().unwrap().packets > n as u64 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            let is_wanted = wanted.next_if(|next| **next == frame.bytes).is_some();
            let passed = received > before;
            let refused = attached.refused().unwrap();
            assert_eq!(received + refused.packets, n as u64 + 1, "{expression}: frame {n}");
            tagged += u64::from(!passed && is_tagged(&frame.bytes));
            assert_eq!(refused.tagged, tagged, "{expression}: frame {n}");
            assert!(
                passed == is_wanted || (passed && !exact),
                "{expression} (exact: {exact}): {:02x?}",
                frame.bytes
            );
        }
        assert_eq!(wanted.next(), None);
    }
}
