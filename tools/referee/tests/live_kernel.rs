//! Troubles that the kernel's own TCP gets into: real sockets in namespaces, a router between them that loses, resets
//! and forgets, and `referee run` on its mirror port. All at once, each on a port of its own. What tcpdump recorded
//! meanwhile gives the same incidents when it is replayed.
//!
//! Nothing here depends on how long something takes: an action waits for what must happen, and its silences are those
//! at which a threshold lies, or longer.

#![allow(clippy::panic, clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use common::network::{Network, SERVER, conntrack, exchange};
use common::running::{Running, bench, until};
use common::{Bench, lines};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tests::live::need_root;

/// A trouble: how it comes about, and what is to be said of it.
struct Case {
    name: &'static str,
    /// Where it happens: the server's port, or the client's address.
    mark: Mark,
    act: fn(&Network, SocketAddrV4),
    incidents: &'static [&'static str],
    /// What its flows have, beside kinds of incidents.
    findings: &'static [&'static str],
    /// Incidents that may be, as they depend on how fast this machine is.
    allowed: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mark {
    Port(u16),
    Client(u8),
}

const fn case(
    name: &'static str,
    mark: Mark,
    act: fn(&Network, SocketAddrV4),
    incidents: &'static [&'static str],
    findings: &'static [&'static str],
) -> Case {
    Case { name, mark, act, incidents, findings, allowed: &[] }
}

const CASES: [Case; 23] = [
    case("healthy", Mark::Port(1000), healthy, &[], &[]),
    case("closed port", Mark::Port(1001), refused, &["conn_refused"], &[]),
    case("SYNs dropped", Mark::Port(1002), vanished, &["syn_no_synack"], &["syn_retransmission"]),
    case("reset by the router", Mark::Port(1003), injected, &["rst_injected"], &["rst_midflow"]),
    case("forgotten by the router", Mark::Port(1004), idle, &["rst_after_idle"], &[]),
    case("PMTU black hole", Mark::Port(1005), black_hole, &["pmtu_blackhole"], &["retransmission"]),
    case("silent PMTU black hole", Mark::Port(1020), silent_hole, &["pmtu_blackhole"], &["retransmission"]),
    case("PMTU discovery", Mark::Port(1006), discovery, &[], &["icmp_frag_needed"]),
    case("reader that does not read", Mark::Port(1007), stall, &["zero_window_stall"], &["zero_window"]),
    case("last ACK lost", Mark::Port(1008), lost_ack, &["synack_retransmission"], &[]),
    case("window scale stripped", Mark::Port(1009), healthy, &[], &["wscale_missing"]),
    case("SACK stripped", Mark::Port(1010), healthy, &[], &["sack_missing"]),
    case("small MSS", Mark::Port(1011), healthy, &["mss_low"], &[]),
    case("congestion marked", Mark::Port(1012), upload, &[], &["ecn_ce"]),
    // Linux takes the offer back at its first repeat; one lost SYN is no incident.
    case("ECN-setup SYNs dropped", Mark::Port(1013), healthy, &[], &["ecn_syn_blackhole"]),
    Case {
        allowed: &["loss_limited"],
        ..case("1 in 20 lost", Mark::Port(1014), upload, &[], &["retransmission"])
    },
    case("silent DNS", Mark::Port(53), dns, &["dns_unanswered", "dns_timeout_retry"], &[]),
    case("HTTP errors", Mark::Port(80), http, &["http_server_error"], &[]),
    case("unclosed", Mark::Port(1018), unclosed, &["close_wait_pileup"], &[]),
    case("port in use", Mark::Port(1019), reused, &[], &["challenge_ack", "port_reuse"]),
    case("reset instead of an answer", Mark::Port(1021), unanswered, &["rst_midflow"], &[]),
    case("port scan", Mark::Client(66), port_scan, &["port_scan"], &[]),
    case("ports cycled", Mark::Client(68), cycled, &["port_exhaustion"], &["port_reuse"]),
];

const ROUTER: &str = "table inet router {
    # Nothing is lost twice: a segment that never arrives would be another trouble.
    set lost { typeof tcp sequence; flags dynamic; size 4096; }
    chain forward {
        type filter hook forward priority 0;
        tcp dport 1002 drop
        tcp dport 1003 meta length > 500 reject with tcp reset
        tcp dport 1004 ct state invalid reject with tcp reset
        tcp dport 1008 tcp flags == ack meta length <= 60 quota until 110 bytes drop
        tcp dport 1009 tcp flags syn reset tcp option window
        tcp dport 1010 tcp flags syn reset tcp option sack-perm
        tcp sport 1011 tcp flags & (syn | ack) == syn | ack tcp option maxseg size set 400
        tcp dport 1012 ip ecn ect0 ip ecn set ce
        tcp dport 1013 tcp flags & (syn | ecn | cwr) == syn | ecn | cwr drop
        tcp dport 1014 meta length > 500 tcp sequence != @lost numgen inc mod 20 0 add @lost { tcp sequence } drop
    }
    chain output {
        type filter hook output priority 0;
        icmp type destination-unreachable icmp code frag-needed @th,192,32 0x0a320114 drop
    }
}";

const CLIENT: &str = "table inet client {
    chain output {
        type filter hook output priority 0;
        tcp dport 1019 tcp flags & rst == rst meta length <= 60 quota until 80 bytes drop
    }
}";

fn healthy(network: &Network, at: SocketAddrV4) {
    let (mut client, mut server) = network.connected(at);
    (0..3).for_each(|_| exchange(&mut client, &mut server, 300));
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
}

fn refused(network: &Network, at: SocketAddrV4) {
    // Another host than the scanned one, which would send a storm of resets with these.
    let at = SocketAddrV4::new(Ipv4Addr::new(10, 50, 2, 1), at.port());
    for _ in 0..25 {
        network.connect(at, Duration::from_secs(30)).unwrap_err();
    }
}

fn vanished(network: &Network, at: SocketAddrV4) {
    network.connect(at, Duration::from_secs(5)).unwrap_err();
}

fn injected(network: &Network, at: SocketAddrV4) {
    let (mut client, mut server) = network.connected(at);
    (0..3).for_each(|_| exchange(&mut client, &mut server, 100));
    client.write_all(&[b'x'; 800]).unwrap();
    client.read(&mut [0]).unwrap_err();
}

fn idle(network: &Network, at: SocketAddrV4) {
    let (mut client, mut server) = network.connected(at);
    exchange(&mut client, &mut server, 100);
    thread::sleep(Duration::from_secs(13));
    client.write_all(b"still there?").unwrap();
    client.read(&mut [0]).unwrap_err();
}

fn black_hole(network: &Network, at: SocketAddrV4) {
    let (mut client, mut server) =
        network.connected(SocketAddrV4::new(Ipv4Addr::new(10, 50, 1, 20), at.port()));
    exchange(&mut client, &mut server, 100);
    client.write_all(&[b'x'; 20_000]).unwrap();
    thread::sleep(Duration::from_secs(5));
}

/// Full segments only, and a server that waits for the rest.
fn silent_hole(network: &Network, at: SocketAddrV4) {
    let (mut client, mut server) =
        network.connected(SocketAddrV4::new(Ipv4Addr::new(10, 50, 1, 20), at.port()));
    client.write_all(&[b'x'; 92]).unwrap();
    server.read_exact(&mut [0; 92]).unwrap();
    client.write_all(&[b'x'; 8 * 1448]).unwrap();
    thread::sleep(Duration::from_secs(14));
}

/// Long after its kernel has acknowledged the request.
fn unanswered(network: &Network, at: SocketAddrV4) {
    let (mut client, mut server) = network.connected(at);
    client.write_all(&[b'x'; 120]).unwrap();
    server.read_exact(&mut [0; 120]).unwrap();
    thread::sleep(Duration::from_secs(1));
    rustix::net::sockopt::set_socket_linger(&server, Some(Duration::ZERO)).unwrap();
    drop(server);
    client.read(&mut [0]).unwrap_err();
}

fn discovery(network: &Network, at: SocketAddrV4) {
    let (client, server) = network.connected(SocketAddrV4::new(Ipv4Addr::new(10, 50, 1, 21), at.port()));
    send_all(client, server, 20_000);
}

fn upload(network: &Network, at: SocketAddrV4) {
    let (client, server) = network.connected(at);
    send_all(client, server, 1 << 20);
}

fn send_all(mut client: TcpStream, mut server: TcpStream, bytes: usize) {
    let sender = thread::spawn(move || client.write_all(&vec![b'x'; bytes]).map(|()| client).unwrap());
    server.read_exact(&mut vec![0; bytes]).unwrap();
    drop(sender.join().unwrap());
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
}

fn stall(network: &Network, at: SocketAddrV4) {
    let (mut client, mut server) = network.connected(at);
    client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    client.write_all(&vec![b'x'; 64 << 20]).unwrap_err();
    thread::sleep(Duration::from_secs(8));
    let reader = thread::spawn(move || std::io::copy(&mut server, &mut std::io::sink()).unwrap());
    drop(client);
    reader.join().unwrap();
}

fn lost_ack(network: &Network, at: SocketAddrV4) {
    let listener = network.listen(at);
    let mut client = network.connect(at, Duration::from_secs(30)).unwrap();
    let mut server = listener.accept().unwrap().0;
    exchange(&mut client, &mut server, 100);
}

fn dns(network: &Network, at: SocketAddrV4) {
    let _silent = network.server.run(|| UdpSocket::bind(at).unwrap());
    let client = network.client.run(|| UdpSocket::bind("10.20.0.10:0").unwrap());
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(b"\x03www\x07example\x03com\0\0\x01\0\x01");
    client.send_to(&query, at).unwrap();
    thread::sleep(Duration::from_secs(2));
    client.send_to(&query, at).unwrap();
    thread::sleep(Duration::from_secs(5));
}

fn http(network: &Network, at: SocketAddrV4) {
    let (mut client, mut server) = network.connected(at);
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
    for _ in 0..6 {
        client.write_all(request).unwrap();
        server.read_exact(&mut [0; 27]).unwrap();
        server.write_all(answer).unwrap();
        client.read_exact(&mut [0; 57]).unwrap();
    }
}

fn unclosed(network: &Network, at: SocketAddrV4) {
    let listener = network.listen(at);
    let open = |_| {
        drop(network.connect(at, Duration::from_secs(30)).unwrap());
        listener.accept().unwrap().0
    };
    let servers: Vec<TcpStream> = (0..210).map(open).collect();
    thread::sleep(Duration::from_secs(2));
    drop(servers);
}

/// The client's reset never leaves it, and it comes back with the same port.
fn reused(network: &Network, at: SocketAddrV4) {
    let listener = network.listen(at);
    let from = SocketAddrV4::new(Ipv4Addr::new(10, 20, 0, 10), 4000);
    let mut client = network.connect_from(from, at).unwrap();
    let mut server = listener.accept().unwrap().0;
    exchange(&mut client, &mut server, 100);
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    let mut client = network.connect_from(from, at).unwrap();
    let mut server = listener.accept().unwrap().0;
    exchange(&mut client, &mut server, 100);
}

fn port_scan(network: &Network, at: SocketAddrV4) {
    let from = SocketAddrV4::new(Ipv4Addr::new(10, 20, 0, 66), 0);
    for port in 2000..2030 {
        network.connect_from(from, SocketAddrV4::new(*at.ip(), port)).unwrap_err();
    }
}

/// Forty connections from four ports; the server closes first, so that the client may use its port again.
fn cycled(network: &Network, at: SocketAddrV4) {
    let to = SocketAddrV4::new(*at.ip(), 1017);
    let listener = network.listen(to);
    for n in 0..40 {
        let from = SocketAddrV4::new(Ipv4Addr::new(10, 20, 0, 68), 5000 + n % 4);
        let mut client = network.connect_from(from, to).unwrap();
        drop(listener.accept().unwrap());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
}

/// tcpdump beside the mirror port.
struct Dump(Child);

impl Dump {
    /// `None` if there is no tcpdump.
    fn start(network: &Network, bench: &Bench) -> Option<Dump> {
        let mut command = network.router.command("tcpdump");
        command
            .args(["-i", "wire0", "-w", "wire0.pcap", "-U", "-B", "65536", "-Z", "root"])
            .current_dir(bench.dir.path());
        let mut child = command.stderr(Stdio::piped()).spawn().ok()?;
        let mut said = BufReader::new(child.stderr.take()?).lines().map_while(Result::ok);
        let listens = said.any(|line| line.contains("listening on"));
        let dump = Dump(child);
        thread::spawn(move || said.for_each(drop));
        listens.then_some(dump)
    }

    /// Once all that passed is in the file: tcpdump leaves behind what it has not read when it is told to stop.
    fn stop(mut self, network: &Network, bench: &Bench) {
        let last = b"the last packet of all";
        let at = SocketAddrV4::new(SERVER, 9);
        let _taker = network.server.run(|| UdpSocket::bind(at).unwrap());
        let client = network.client.run(|| UdpSocket::bind("10.20.0.10:0").unwrap());
        client.send_to(last, at).unwrap();
        until("the last packet in the recording", || {
            let recorded = fs::read(bench.path("wire0.pcap")).ok()?;
            recorded.windows(last.len()).rev().take(4096).any(|bytes| bytes == last).then_some(())
        });
        kill_process(Pid::from_child(&self.0), Signal::INT).unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// Which case an incident or a flow belongs to.
fn mark(subject: &Value) -> Mark {
    let host = |value: &Value| value.as_str()?.strip_prefix("10.20.0.")?.parse::<u8>().ok();
    let client = host(&subject["host"]).or_else(|| host(&subject["src"]));
    match (client, subject["dport"].as_u64()) {
        (Some(host @ (66 | 68)), _) => Mark::Client(host),
        // Only one client uses it.
        (_, Some(1017)) => Mark::Client(68),
        (_, port) => Mark::Port(port.unwrap_or(0) as u16),
    }
}

/// Kinds of incidents by case.
fn told(incidents: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for incident in incidents {
        let kind = incident["kind"].as_str().unwrap().to_owned();
        told.entry(format!("{:?}", mark(&incident["subject"]))).or_default().insert(kind);
    }
    told
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that skips says why")]
fn what_real_stacks_get_into_is_told_and_nothing_else() {
    if !need_root("troubles of real stacks") {
        return;
    }
    let made = Network::new(ROUTER, CLIENT).and_then(|network| {
        conntrack(&network.router, "tcp_loose", "0")?;
        conntrack(&network.router, "tcp_timeout_established", "11").map(|()| network)
    });
    let network = match made {
        Ok(network) => network,
        Err(missing) => return eprintln!("skipped: troubles of real stacks: {missing}"),
    };
    let bench = bench();
    let running =
        Running::start(&network.tap, &bench, &["-i", "tap2", "--incidents", "live", "--flows", "flows"]);
    let dump = Dump::start(&network, &bench);
    thread::scope(|scope| {
        for case in &CASES {
            let port = if let Mark::Port(port) = case.mark { port } else { 0 };
            let network = &network;
            let act = move || (case.act)(network, SocketAddrV4::new(SERVER, port));
            thread::Builder::new().name(case.name.to_owned()).spawn_scoped(scope, act).unwrap();
        }
    });
    let recorded = dump.map(|dump| dump.stop(&network, &bench)).is_some();
    let ended = running.stop();
    ended.books();
    ended.ran.exits(0);
    let (incidents, flows) = (lines(&bench.read("live")), lines(&bench.read("flows")));
    let mut complaints = Vec::new();
    let told_live = told(&incidents);
    for case in &CASES {
        let told = told_live.get(&format!("{:?}", case.mark)).cloned().unwrap_or_default();
        let missing = case.incidents.iter().filter(|kind| !told.contains(**kind));
        complaints.extend(missing.map(|kind| format!("{}: no incident {kind}", case.name)));
        let stray = told.iter().filter(|kind| !case.incidents.iter().chain(case.allowed).any(|k| k == kind));
        complaints.extend(stray.map(|kind| format!("{}: an incident {kind}", case.name)));
        let own: Vec<&Value> = flows.iter().filter(|row| mark(&row["flow"]) == case.mark).collect();
        let found = |kind: &str| own.iter().any(|row| row["findings"][kind].as_u64() > Some(0));
        let missing = case.findings.iter().filter(|kind| !found(kind));
        let of = |row: &&Value| format!("{} {}", row["history"], row["findings"]);
        let rows: Vec<String> = own.iter().map(of).collect();
        complaints.extend(missing.map(|kind| format!("{}: no finding {kind} in {rows:?}", case.name)));
    }
    let marks: Vec<String> = CASES.iter().map(|case| format!("{:?}", case.mark)).collect();
    complaints.extend(
        told_live.iter().filter(|(mark, _)| !marks.contains(mark)).map(|nobody| format!("{nobody:?}")),
    );
    assert!(complaints.is_empty(), "{}\n{incidents:#?}", complaints.join("\n"));
    if recorded {
        let args = ["replay", "--config", "live.toml", "--incidents", "-", "wire0.pcap"];
        assert_eq!(told(&bench.run(&args).exits(0).json()), told_live, "replayed");
    }
}
