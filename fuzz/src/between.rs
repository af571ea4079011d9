//! Two captures of one path out of bytes: either two capture files, or a conversation and what became of its packets on
//! their way. libFuzzer's thread; the comparison's books must balance.

use compare::{Flows, Reading, Tap};
use dataplane::source::Source;
use tests::{captures, talk};
use wiregen::scenario::Packet;

/// Files: the first one's length (2 bytes), then both. Else: so many bytes (2 bytes) of a conversation, then edits.
pub fn compare(data: &[u8]) {
    let Some((len, rest)) = data.split_first_chunk::<2>() else { return };
    let Some((first, second)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len))) else { return };
    if talk::is_capture(first) {
        let open = |bytes: &[u8]| captures::open("input", bytes.to_vec()).ok();
        let (Some(a), Some(b)) = (open(first), open(second)) else { return };
        judge(a, b);
        return;
    }
    let sent = talk::talk(first).packets;
    let came = on_its_way(&sent, second);
    judge(captures::synthetic(&sent), captures::synthetic(&came));
    judge(captures::synthetic(&came), captures::synthetic(&sent));
}

fn judge(mut a: impl Source, mut b: impl Source) {
    let mut flows = Flows::new();
    let (a, b) = (read(&mut a, &mut flows), read(&mut b, &mut flows));
    let report = compare::compare(&a, &b, &flows);
    assert!(report.summary.balanced, "{:?}", report.summary);
}

fn read(source: &mut impl Source, flows: &mut Flows) -> Tap {
    let mut reading = Reading::new(flows);
    while reading.step(source) {}
    reading.finish()
}

/// What the other end sees: the first byte is the distance of the clocks, each further one what happens to a packet.
fn on_its_way(sent: &[Packet], edits: &[u8]) -> Vec<Packet> {
    let (first, edits) = edits.split_first().unwrap_or((&0, &[]));
    let apart = [0, 1_000_000, 37_000_000_000, 40_000_000_000_000_000][usize::from(*first) & 3];
    let mut came = Vec::new();
    for (n, packet) in sent.iter().enumerate() {
        let edit = edits.get(n % edits.len().max(1)).copied().unwrap_or(0);
        let (what, how) = (edit & 7, u64::from(edit >> 3));
        let mut packet = packet.clone();
        packet.ts = packet.ts.wrapping_add(apart + 200_000 + how * 1000);
        // One router less to live.
        if let Some(ttl) = packet.bytes.get_mut(22) {
            *ttl = ttl.wrapping_sub(u8::from(*first & 4 != 0));
        }
        match what {
            1 => continue,
            2 => came.push(packet.clone()),
            3 => packet.ts = packet.ts.wrapping_add(how * how * 1_000_000),
            4 => packet.ts = packet.ts.wrapping_sub(how * 300_000),
            5 => {
                let at = 14 + how as usize * 2;
                packet.bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 0x11);
            }
            6 => {
                let kept = 14 + how as usize * 2;
                packet.bytes.truncate(kept);
            }
            _ => {}
        }
        came.push(packet);
    }
    if *first & 8 != 0 {
        came.sort_by_key(|packet| packet.ts);
    }
    came
}
