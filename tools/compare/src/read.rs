//! A capture into records: polls a source to its end, decodes, keeps what comparison needs of each packet.
//!
//! Main thread. The only part that sees packet bytes; they are gone once their record is made.

use dataplane::decode::{Class, Packet, decode};
use dataplane::source::{Batch, Nanos, Poll, Source};

use crate::flows::Flows;
use crate::raw;
use crate::record::{Extra, Record};
use crate::steps::Step;

/// DNS, also multicast.
const DNS_PORTS: [u16; 2] = [53, 5353];

/// One capture, read.
#[derive(Default)]
pub struct Tap {
    pub(crate) records: Vec<Record>,
    pub(crate) extras: Vec<Extra>,
    /// Packets read, of every kind.
    pub packets: u64,
    pub not_ip: u64,
    pub malformed: u64,
    /// Earliest and latest time stamp, by its own clock.
    pub span: Option<(Nanos, Nanos)>,
    /// Taken out of the records' stamps.
    pub(crate) steps: Vec<Step>,
    /// Earliest and latest stamp without them.
    level: Option<(Nanos, Nanos)>,
}

/// A capture being read.
pub struct Reading<'f> {
    flows: &'f mut Flows,
    batch: Batch,
    tap: Tap,
}

impl<'f> Reading<'f> {
    pub fn new(flows: &'f mut Flows) -> Reading<'f> {
        Reading { flows, batch: Batch::new(), tap: Tap::default() }
    }

    /// Reads one batch; false at the end.
    pub fn step<S: Source>(&mut self, source: &mut S) -> bool {
        match source.poll(&mut self.batch) {
            Poll::End => return false,
            Poll::Idle(_) => return true,
            Poll::Packets => {}
        }
        for descriptor in &self.batch.packets {
            let bytes = source.bytes(descriptor);
            let packet = decode(descriptor.link, bytes, descriptor.orig_len);
            self.tap.add(self.flows, descriptor.ts, bytes, &packet);
        }
        source.release(&mut self.batch);
        true
    }

    /// Packets so far.
    pub fn packets(&self) -> u64 {
        self.tap.packets
    }

    pub fn finish(self) -> Tap {
        self.tap
    }
}

impl Tap {
    fn add(&mut self, flows: &mut Flows, ts: Nanos, bytes: &[u8], packet: &Packet) {
        self.packets += 1;
        let (first, last) = self.span.unwrap_or((ts, ts));
        self.span = Some((first.min(ts), last.max(ts)));
        match packet.class {
            Class::NonIp => self.not_ip += 1,
            Class::Malformed => self.malformed += 1,
            _ => {
                let record = self.record(flows, ts, bytes, packet);
                self.records.push(record);
            }
        }
    }

    fn record(&mut self, flows: &mut Flows, ts: Nanos, bytes: &[u8], packet: &Packet) -> Record {
        let mut record = Record {
            ts,
            len: packet.ip_len,
            flow: flows.number(&packet.key),
            number: u32::try_from(self.packets).unwrap_or(u32::MAX),
            ip_id: packet.ip_id.unwrap_or(0),
            ttl: packet.ttl,
            ecn: packet.ecn,
            dscp: packet.dscp,
            from_low: packet.from_low,
            ..Record::default()
        };
        let end = usize::from(packet.headers);
        match packet.class {
            Class::Tcp => self.tcp(bytes, packet, &mut record),
            Class::Udp => {
                (record.head, record.body) = raw::payload_hashes(bytes, end, raw::udp_payload(bytes, end));
                let ports = [packet.key.low_port, packet.key.high_port];
                if ports.iter().any(|port| DNS_PORTS.contains(port)) {
                    record.ack = raw::dns_token(bytes, end);
                }
            }
            Class::Icmp => icmp(flows, bytes, packet, &mut record),
            // Fragments and what is not decoded further: without an IP-ID, its bytes must tell it apart.
            _ if record.ip_id == 0 => (record.head, _) = raw::payload_hashes(bytes, end, 16),
            _ => {}
        }
        record
    }

    fn tcp(&mut self, bytes: &[u8], packet: &Packet, record: &mut Record) {
        let tcp = &packet.tcp;
        (record.seq, record.ack, record.flags, record.len) = (tcp.seq, tcp.ack, tcp.flags, tcp.payload);
        let end = usize::from(packet.headers);
        (record.head, record.body) = raw::payload_hashes(bytes, end, tcp.payload as usize);
        let (tsval, extra) = raw::tcp_options(bytes, packet);
        record.tsval = tsval;
        if let Some(extra) = extra {
            self.extras.push(extra);
            record.extra = self.extras.len() as u32;
        }
    }

    /// As if its clock had not been set.
    pub(crate) fn without_steps(&self, steps: &[Step]) -> Tap {
        let mut records = self.records.clone();
        for step in steps {
            let from = records.get_mut(step.place as usize..).unwrap_or_default();
            from.iter_mut().for_each(|r| r.ts = r.ts.wrapping_add_signed(step.by.saturating_neg()));
        }
        let stamps = || records.iter().map(|r| r.ts);
        let level = stamps().min().zip(stamps().max());
        Tap { records, extras: self.extras.clone(), steps: steps.to_vec(), level, ..*self }
    }

    /// Earliest and latest time of a record.
    pub(crate) fn level_span(&self) -> Option<(Nanos, Nanos)> {
        if self.steps.is_empty() { self.span } else { self.level }
    }

    /// A time of a record as its clock gave it.
    pub(crate) fn stamp(&self, r: &Record) -> Nanos {
        if self.steps.is_empty() {
            return r.ts;
        }
        let place = self.records.partition_point(|other| other.number < r.number) as u32;
        let steps = self.steps.iter().filter(|step| step.place <= place);
        steps.fold(r.ts, |ts, step| ts.wrapping_add_signed(step.by))
    }

    pub(crate) fn extra(&self, record: &Record) -> Option<&Extra> {
        self.extras.get((record.extra as usize).checked_sub(1)?)
    }
}

fn icmp(flows: &mut Flows, bytes: &[u8], packet: &Packet, record: &mut Record) {
    let icmp = &packet.icmp;
    record.seq = u32::from(icmp.kind) << 8 | u32::from(icmp.code);
    let v6 = packet.key.v6;
    let kind = icmp.kind;
    record.is_error = if v6 { (1..=4).contains(&kind) } else { matches!(kind, 3 | 4 | 5 | 11 | 12) };
    let end = usize::from(packet.headers);
    if let Some(quote) = icmp.quote {
        // What an error quotes has another TTL and checksum at each hop; who and which segment stay.
        let hash = raw::mix(quote.key.hash(1), u64::from(quote.seq.unwrap_or(0)));
        record.head = ((hash >> 32) as u32 ^ hash as u32).max(1);
        if record.is_error {
            record.body = flows.number(&quote.key).saturating_add(1);
        }
    } else if !record.is_error {
        let header = if v6 { 40 } else { 20 };
        let len = (packet.ip_len as usize).saturating_sub(header + 8);
        (record.head, record.body) = raw::payload_hashes(bytes, end, len);
    }
    let echo = if v6 { kind == 128 || kind == 129 } else { kind == 0 || kind == 8 };
    if echo {
        record.ack = raw::echo_token(bytes, end, kind == 0 || kind == 129);
    }
}
