//! Rows and marks of hand-made flows.

use dataplane::decode::flags::{ACK, FIN, PSH, RST, SYN};
use dataplane::source::{Interface, LinkType};

use super::*;

const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 1], 40_000);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 2], 443);

/// One segment of a made-up flow; what is not said is as usual.
#[derive(Clone, Default)]
struct Segment {
    at_ms: u64,
    from_server: bool,
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    len: u16,
    ttl: u8,
    options: Vec<u8>,
    comment: Option<&'static str>,
}

fn tcp(at_ms: u64, from_server: bool, flags: u8, seq: u32, ack: u32, len: u16) -> Segment {
    let ttl = if from_server { 61 } else { 64 };
    Segment { at_ms, from_server, flags, seq, ack, len, ttl, window: 1000, ..Segment::default() }
}

impl Segment {
    /// A bare IPv4 packet.
    fn bytes(&self) -> Vec<u8> {
        let (src, dst) = if self.from_server { (SERVER, CLIENT) } else { (CLIENT, SERVER) };
        let header = 20 + self.options.len() as u16;
        let mut bytes = vec![0x45, 0];
        bytes.extend((20 + header + self.len).to_be_bytes());
        bytes.extend([0, 7, 0x40, 0, self.ttl, 6, 0, 0]);
        bytes.extend(src.0.iter().chain(&dst.0));
        bytes.extend(src.1.to_be_bytes().iter().chain(&dst.1.to_be_bytes()));
        bytes.extend(self.seq.to_be_bytes().iter().chain(&self.ack.to_be_bytes()));
        bytes.extend([(header / 4 * 16) as u8, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.options);
        bytes.resize(bytes.len() + usize::from(self.len), b'x');
        bytes
    }
}

/// A large payload is cut by the capture, as by a snap length.
fn looked_at(packets: &[(u64, Vec<u8>, u32, Option<&str>)]) -> (Survey, Vec<Row>) {
    let interface = Interface {
        name: "tap0".to_owned(),
        description: String::new(),
        link: LinkType::from_number(101),
        link_number: 101,
        snap_len: 0,
    };
    let recorded: Vec<_> = packets
        .iter()
        .map(|(ts, bytes, orig_len, comment)| Recorded {
            ts: *ts,
            packet_id: 0,
            flow_id: 1,
            interface: &interface,
            index: 0,
            orig_len: *orig_len,
            bytes,
            comments: comment.iter().copied().collect(),
        })
        .collect();
    let decoded = |r: &Recorded<'_>| decode(r.interface.link, r.bytes, r.orig_len);
    let mut survey = Survey::default();
    recorded.iter().for_each(|r| survey.take(r, &decoded(r)));
    let mut sketch = Sketch::new(&survey);
    let rows = (1..).zip(&recorded).map(|(number, r)| sketch.row(number, r, &decoded(r))).collect();
    (survey.clone(), rows)
}

fn rows(segments: &[Segment]) -> (Survey, Vec<Row>) {
    let packets: Vec<_> = segments
        .iter()
        .map(|s| {
            let bytes = s.bytes();
            let length = bytes.len() as u32;
            (s.at_ms * 1_000_000, bytes, length, s.comment)
        })
        .collect();
    looked_at(&packets)
}

fn handshake(client: u32, server: u32) -> Vec<Segment> {
    let syn = Segment { options: vec![2, 4, 5, 180, 3, 3, 7, 1], ..tcp(0, false, SYN, client, 0, 0) };
    let answer = tcp(20, true, SYN | ACK, server, client.wrapping_add(1), 0);
    vec![syn, answer, tcp(40, false, ACK, client.wrapping_add(1), server.wrapping_add(1), 0)]
}

fn marks(row: &Row) -> Vec<&str> {
    row.marks.iter().map(String::as_str).collect()
}

#[test]
fn numbers_are_relative_and_go_on_over_the_wrap() {
    let (client, server) = (u32::MAX - 10, 5000);
    let mut flow = handshake(client, server);
    let mut seq = client.wrapping_add(1);
    for n in 0..4 {
        flow.push(tcp(50 + n, false, PSH | ACK, seq, server + 1, 100));
        seq = seq.wrapping_add(100);
    }
    flow.push(tcp(80, true, ACK, server + 1, seq, 0));
    let (survey, rows) = rows(&flow);
    assert_eq!(survey.base(), Base { orig: Some(client), resp: Some(server) });
    let numbers: Vec<_> = rows.iter().map(|row| (row.seq.unwrap(), row.ack)).collect();
    assert_eq!(numbers[..3], [(0, None), (0, Some(1)), (1, Some(1))]);
    assert_eq!(numbers[3..], [(1, Some(1)), (101, Some(1)), (201, Some(1)), (301, Some(1)), (1, Some(401))]);
    assert_eq!((rows[0].mss, rows[0].wscale, rows[1].wscale), (Some(1460), Some(7), None));
    assert!(rows[..3].iter().all(|row| marks(row) == ["handshake"]), "{rows:?}");
    assert!(rows[3..].iter().all(|row| row.marks.is_empty()), "{rows:?}");
    assert_eq!((rows[0].dir, rows[1].dir, rows[3].flags.as_str()), ("orig", "resp", "P."));
}

#[test]
fn a_reset_is_shown_beside_its_senders_usual_ttl() {
    let mut flow = handshake(1, 1);
    flow.push(Segment {
        ttl: 253,
        comment: Some("referee: rst_after_idle (rst), rst_injected (rst)"),
        ..tcp(60, true, RST, 2, 0, 0)
    });
    let (survey, rows) = rows(&flow);
    let rst = rows.last().unwrap();
    assert_eq!((rst.ttl, rst.expected_ttl, rst.ack), (Some(253), Some(61), None));
    assert_eq!(rst.raised.as_deref(), Some("rst_after_idle, rst_injected"));
    assert_eq!((survey.first_raised(), survey.taps()), (Some(4), &["tap0".to_owned()][..]));
    assert_eq!(rows[1].expected_ttl, None);
}

#[test]
fn a_flow_without_handshake_begins_at_one() {
    let first = tcp(0, true, ACK, 7000, 300, 50);
    let (survey, rows) = rows(&[first, tcp(1, false, RST, 300, 0, 0)]);
    assert_eq!((rows[0].dir, rows[0].seq, rows[0].ack), ("orig", Some(1), Some(1)));
    assert_eq!((rows[1].dir, rows[1].seq, rows[1].expected_ttl), ("resp", Some(1), None));
    let ends = survey.ends().unwrap();
    assert_eq!((ends.sport, ends.dport), (443, 40_000), "the first sender seen, without a SYN");
}

#[test]
fn what_comes_twice_late_or_after_a_gap_is_marked() {
    let mut flow = handshake(0, 0);
    flow.extend([
        tcp(50, true, ACK, 1, 1, 100),
        tcp(51, true, ACK, 301, 1, 100),
        tcp(52, true, ACK, 101, 1, 100),
        tcp(53, false, ACK, 1, 201, 0),
        tcp(54, false, ACK, 1, 201, 0),
        tcp(250, true, ACK, 201, 1, 100),
        tcp(400, true, ACK, 301, 1, 100),
        tcp(500, true, ACK, 400, 1, 1),
        Segment { window: 0, ..tcp(501, false, ACK, 1, 401, 0) },
        tcp(900, true, ACK, 400, 1, 0),
        tcp(950, true, FIN | ACK, 401, 1, 0),
    ]);
    let (_, rows) = rows(&flow);
    let found: Vec<_> = rows[3..].iter().map(|row| marks(row).join(" ")).collect();
    let expected = [
        "",
        "lost_before",
        "out_of_order",
        "",
        "duplicate_ack",
        "retransmission",
        "retransmission",
        "keepalive",
        "zero_window",
        "zero_window_probe",
        "",
    ];
    assert_eq!(found, expected);
}

#[test]
fn all_sack_blocks_are_told() {
    let mut flow = handshake(0, 0);
    let mut options = vec![1, 1, 5, 18];
    [501u32, 601, 301, 401].iter().for_each(|edge| options.extend(edge.to_be_bytes()));
    flow.push(tcp(50, true, ACK, 1, 1, 100));
    flow.push(Segment { options, ..tcp(51, false, ACK, 1, 101, 0) });
    let (_, rows) = rows(&flow);
    assert_eq!(rows[4].sack, [[501, 601], [301, 401]]);
}

#[test]
fn any_bytes_are_a_row() {
    let whole = handshake(0, 0)[0].bytes();
    let mut packets: Vec<_> = (0..whole.len()).map(|n| (n as u64, whole[..n].to_vec(), 60, None)).collect();
    packets.push((99, vec![0xff; 90], 90, None));
    let (survey, rows) = looked_at(&packets);
    assert_eq!((survey.packets(), rows.len()), (packets.len() as u64, packets.len()));
    let (none, _) = looked_at(&[]);
    assert_eq!((none.packets(), none.ends(), none.base()), (0, None, Base::default()));
}

#[test]
fn of_a_long_flow_its_beginning_and_the_event_are_chosen() {
    let mut segments: Vec<_> = (0..100).map(|n| tcp(n, false, ACK, 1, 1, 0)).collect();
    segments[59].comment = Some("referee: half_open (keepalive)");
    let (survey, _) = rows(&segments);
    let chosen = Chosen::of(&survey, 20);
    let held: Vec<u64> = (1..=100).filter(|&n| chosen.holds(n)).collect();
    assert_eq!(held.len(), 20);
    assert_eq!((held[..5].to_vec(), held[5] < 60, held[19] >= 60), (vec![1, 2, 3, 4, 5], true, true));
    assert_eq!((1..=100).filter(|&n| Chosen::of(&survey, 5000).holds(n)).count(), 100);
    assert_eq!((1..=100).filter(|&n| Chosen::of(&survey, 1).holds(n)).count(), 1);
}

#[tokio::test]
async fn an_incidents_flow_is_read_out_of_the_store() {
    use super::super::testing::tried;
    let tried = tried(true, |_| {});
    for (id, query) in [("00000000000000aa", ""), ("00000000000000aa", "?flow=00000000000000ff&limit=5")] {
        let answered = tried.get(&format!("/api/v1/incidents/{id}/packets{query}")).await;
        assert_eq!(answered.status, 200, "{}", answered.text());
        let told = answered.json();
        assert_eq!((&told["flow_id"], &told["total"]), (&"00000000000000ff".into(), &20.into()));
        assert_eq!((&told["tap"][0], &told["flow"]["dport"]), (&"tap0".into(), &443.into()));
        let shown = told["packets"].as_array().unwrap();
        assert_eq!(
            (shown.len(), told["cut"].as_bool()),
            if query.is_empty() { (20, Some(false)) } else { (5, Some(true)) }
        );
        assert_eq!((&shown[0]["seq"], &shown[0]["len"]), (&1.into(), &100.into()));
        assert!(!answered.text().contains("payload"));
    }
    for (path, kind) in [
        ("00000000000000aa/packets?flow=0000000000000001", "no-such-flow"),
        ("nope/packets", "no-such-incident"),
        ("00000000000000aa/packets?limit=5001", "bad-parameter"),
    ] {
        let answered = tried.get(&format!("/api/v1/incidents/{path}")).await;
        assert!(answered.text().contains(kind), "{path}: {}", answered.text());
    }
}
