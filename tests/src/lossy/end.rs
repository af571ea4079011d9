//! One end of a connection: sends again by duplicate ACKs, selective ones and timeouts (RFC 5681, 6298, 6675),
//! receives and answers as RFC 9293, 2018 and 2883 want it, closes and opens its window as its program reads. Knows
//! no frames: positions in its streams begin at 0 with the SYN. What it sends is in `out`; `lossy` carries it.

use wiregen::packet::{ACK, FIN, RST, SYN};
use wiregen::rng::Rng;

pub const MS: u64 = 1_000_000;
const NEVER: u64 = u64::MAX;

/// From `.0` on to before `.1`.
pub type Range = (u64, u64);

#[derive(Clone, Debug)]
pub struct Segment {
    pub seq: u64,
    pub ack: u64,
    pub flags: u8,
    pub window: u16,
    /// How far `window` is scaled.
    pub scale: u8,
    pub sack: Vec<Range>,
    pub len: u64,
    pub id: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Listening,
    Opening,
    Open,
    /// There is no socket any more: a RST answers.
    Gone,
}

#[derive(Debug)]
pub struct End {
    client: bool,
    state: State,
    rng: Rng,
    pub out: Vec<Segment>,
    pub isn: u32,
    pub mss: u64,
    pub scale: u8,
    pub sack: bool,
    /// A RST ends it instead of a FIN.
    aborts: bool,
    id: u16,

    /// Sent and acknowledged, sent, ever sent, to be sent up to here, allowed by the other's window.
    una: u64,
    nxt: u64,
    max: u64,
    end: u64,
    edge: u64,
    /// What the program will write, and when.
    writes: Vec<(u64, u64)>,
    sacked: Vec<Range>,
    congestion_window: u64,
    dup_acks: u32,
    /// Sent again up to here since the last timeout.
    resent: u64,
    timeout: u64,
    tries: u32,
    resend_at: u64,

    /// Received without a gap, and out of order, newest first.
    rcv: u64,
    apart: Vec<Range>,
    again: Option<Range>,
    fin: Option<u64>,
    buffer: u64,
    unread: u64,
    right: u64,
    owed: u32,
    answer_at: u64,
    read_at: u64,
    /// How long its program does something else between two reads, at most.
    slow: u64,
}

impl End {
    pub fn new(client: bool, mut rng: Rng, start: u64, timeout: u64) -> End {
        let rng = &mut rng;
        let bytes = rng.log_uniform(100.0, 400_000.0) as u64;
        let mut writes = Vec::new();
        for n in 0..rng.range(1, 4) {
            let pause = if rng.percent(80) { rng.below(20) } else { rng.below(3000) };
            writes.push((start + n * 300 * MS + pause * MS, bytes / (n + 1)));
        }
        End {
            client,
            state: State::Listening,
            out: Vec::new(),
            // Many pass the end of the numbers.
            isn: if rng.percent(40) { u32::MAX - rng.below(1_000_000) as u32 } else { rng.next_u32() },
            mss: [1220, 1400, 1460][rng.below(3) as usize],
            scale: [0, 0, 2, 6, 7, 7, 8, 14][rng.below(8) as usize],
            sack: rng.percent(90),
            aborts: rng.percent(15),
            id: rng.next_u32() as u16,
            una: 0,
            nxt: 0,
            max: 0,
            end: 1,
            edge: 1,
            writes,
            sacked: Vec::new(),
            congestion_window: 14_600,
            dup_acks: 0,
            resent: 0,
            timeout,
            tries: 0,
            resend_at: NEVER,
            rcv: 0,
            apart: Vec::new(),
            again: None,
            fin: None,
            buffer: [8_000, 65_535, 200_000, 2_000_000][rng.below(4) as usize],
            unread: 0,
            right: 0,
            owed: 0,
            answer_at: NEVER,
            read_at: NEVER,
            slow: [MS, 20 * MS, 700 * MS][rng.below(3) as usize],
            rng: rng.clone(),
        }
    }

    pub fn open(&mut self, now: u64) {
        (self.state, self.nxt, self.max) = (State::Opening, 1, 1);
        self.resend_at = now + self.timeout.max(200 * MS);
        self.emit(0, 0, if self.client { SYN } else { SYN | ACK });
    }

    pub fn deadline(&self) -> u64 {
        let write =
            if self.state == State::Open { self.writes.first().map_or(NEVER, |w| w.0) } else { NEVER };
        self.resend_at.min(self.answer_at).min(self.read_at).min(write)
    }

    fn emit(&mut self, seq: u64, len: u64, flags: u8) {
        self.right = self.right.max(self.rcv + self.buffer.saturating_sub(self.unread));
        let shift = if flags & SYN != 0 { 0 } else { self.scale };
        let window = self.right.saturating_sub(self.rcv) >> shift;
        let mut sack = Vec::new();
        if self.sack && flags & (SYN | ACK) == ACK {
            sack.extend(self.again.take());
            sack.extend(self.apart.iter().take(3));
        }
        self.id = self.id.wrapping_add(1);
        let id = self.id;
        let (ack, window) = (self.rcv, window.min(65_535) as u16);
        self.out.push(Segment { seq, ack, flags, window, scale: shift, sack, len, id });
        (self.owed, self.answer_at) = (0, NEVER);
    }

    fn answer(&mut self) {
        self.emit(self.nxt, 0, ACK);
    }

    /// The FIN's place, once all is written.
    fn last(&self) -> Option<u64> {
        (self.writes.is_empty() && !self.aborts).then_some(self.end)
    }

    /// Sends what is at `seq`, up to `most`; returns how much that was.
    fn send_at(&mut self, seq: u64, most: u64) -> u64 {
        let len = self.end.saturating_sub(seq).min(self.mss).min(most);
        let fin = self.last() == Some(seq + len);
        if len + u64::from(fin) > 0 {
            self.emit(seq, len, if fin { FIN | ACK } else { ACK });
        }
        len + u64::from(fin)
    }

    fn pump(&mut self, now: u64) {
        while self.state == State::Open {
            let room = self.edge.min(self.una + self.congestion_window).saturating_sub(self.nxt);
            let whole = room >= self.mss || self.nxt + room >= self.end;
            if !whole && self.una < self.nxt || room == 0 && self.last() != Some(self.nxt) {
                break;
            }
            let sent = self.send_at(self.nxt, room);
            if sent == 0 {
                break;
            }
            self.nxt += sent;
            self.max = self.max.max(self.nxt);
        }
        let waits = self.una < self.max || self.nxt < self.end;
        if waits && self.resend_at == NEVER && self.state == State::Open {
            self.resend_at = now + self.timeout;
        }
        let done = self.writes.is_empty() && self.una >= self.end;
        if self.aborts && done && self.state == State::Open {
            self.emit(self.nxt, 0, RST | ACK);
            self.leave();
        }
    }

    fn leave(&mut self) {
        self.state = State::Gone;
        (self.resend_at, self.answer_at, self.read_at) = (NEVER, NEVER, NEVER);
    }

    pub fn tick(&mut self, now: u64) {
        if self.answer_at <= now {
            self.answer();
        }
        if self.read_at <= now {
            self.read(now);
        }
        if self.state == State::Open && self.writes.first().is_some_and(|write| write.0 <= now) {
            self.end += self.writes.remove(0).1;
            self.pump(now);
        }
        if self.resend_at <= now {
            self.resend(now);
        }
    }

    fn read(&mut self, now: u64) {
        let was = self.right.saturating_sub(self.rcv);
        self.unread -= self.rng.range(1, self.unread + 1).max(self.unread.min(3000));
        self.read_at = if self.unread > 0 { now + self.rng.below(self.slow) } else { NEVER };
        if was < 2 * self.mss && self.rcv + self.buffer >= self.unread + self.right + 2 * self.mss {
            self.answer();
        }
    }

    fn resend(&mut self, now: u64) {
        self.tries += 1;
        self.timeout = (self.timeout * 2).min(20_000 * MS);
        self.resend_at = now + self.timeout;
        if self.tries > 9 {
            self.leave();
        } else if self.state == State::Opening {
            self.emit(0, 0, if self.client { SYN } else { SYN | ACK });
        } else if self.una >= self.max {
            self.probe();
        } else if self.rng.percent(50) {
            (self.nxt, self.congestion_window, self.resent) = (self.una, 2 * self.mss, self.una);
            self.sacked.clear();
            self.pump(now);
        } else {
            self.resent = self.una;
            self.send_at(self.una, self.mss);
        }
    }

    /// Into a closed window: one byte of what waits, or what was acknowledged already.
    fn probe(&mut self) {
        match self.rng.percent(50) && self.nxt < self.end {
            true => self.emit(self.nxt, 1, ACK),
            false => self.emit(self.una - 1, 0, ACK),
        }
    }

    pub fn receive(&mut self, segment: &Segment, now: u64) {
        let syn = segment.flags & SYN != 0;
        match self.state {
            State::Gone if segment.flags & RST == 0 => {
                let (ack, window, scale, len, id) = (0, 0, 0, 0, 0);
                let sack = Vec::new();
                self.out.push(Segment { seq: segment.ack, ack, flags: RST, window, scale, sack, len, id });
            }
            State::Gone => {}
            _ if segment.flags & RST != 0 => self.leave(),
            State::Listening if syn => {
                self.rcv = 1;
                self.edge = 1 + u64::from(segment.window);
                self.open(now);
            }
            State::Listening => {}
            State::Opening if syn && self.client => {
                self.rcv = 1;
                self.established(segment);
                self.answer();
                self.pump(now);
            }
            State::Opening if syn => self.emit(0, 0, SYN | ACK),
            // It is open already: the segment came twice.
            _ if syn => {
                self.again = self.client.then_some((0, 1));
                self.answer();
            }
            State::Opening if self.client || segment.ack < 1 => {}
            state => {
                if state == State::Opening {
                    self.established(segment);
                }
                self.acknowledged(segment, now);
                self.take(segment, now);
                self.pump(now);
            }
        }
    }

    fn established(&mut self, segment: &Segment) {
        self.state = State::Open;
        (self.una, self.tries, self.resend_at) = (1, 0, NEVER);
        self.edge = self.edge.max(1 + (u64::from(segment.window) << segment.scale));
    }

    fn acknowledged(&mut self, segment: &Segment, now: u64) {
        self.edge = self.edge.max(segment.ack + (u64::from(segment.window) << segment.scale));
        let news = segment.ack > self.una && segment.ack <= self.max;
        for &(left, right) in &segment.sack {
            if left >= segment.ack && !self.sacked.contains(&(left, right)) {
                self.sacked.push((left, right));
            }
        }
        if news {
            self.una = segment.ack;
            self.nxt = self.nxt.max(self.una);
            (self.dup_acks, self.tries) = (0, 0);
            self.congestion_window += self.mss;
            self.timeout = self.timeout.min(400 * MS);
            self.sacked.retain(|range| range.1 > segment.ack);
            self.resend_at = if self.una < self.max { now + self.timeout } else { NEVER };
        } else if segment.ack == self.una && segment.len == 0 && self.una < self.max {
            self.dup_acks += 1;
        }
        let highest = self.sacked.iter().map(|range| range.1).max().unwrap_or(0);
        if self.dup_acks >= 3 && self.resent <= self.una {
            self.resent = self.una + self.send_at(self.una, self.mss);
            self.congestion_window = (self.congestion_window / 2).max(2 * self.mss);
        } else if self.dup_acks > 3 && self.resent < highest {
            let inside = self.sacked.iter().find(|range| range.0 <= self.resent && self.resent < range.1);
            self.resent = match inside.copied() {
                Some(range) => range.1,
                None => self.resent + self.send_at(self.resent, self.mss).max(1),
            };
        }
    }

    /// What comes beside the acknowledgement.
    fn take(&mut self, segment: &Segment, now: u64) {
        let fin = segment.flags & FIN != 0;
        let (left, right) = (segment.seq, segment.seq + segment.len + u64::from(fin));
        if left == right {
            if left < self.rcv {
                self.answer();
            }
            return;
        }
        if right > self.right + 1 {
            self.answer();
            return;
        }
        if fin {
            self.fin = Some(right);
        }
        let was = self.rcv;
        if left < was {
            self.again = Some((left, right.min(was)));
        } else if left > was {
            let mut whole = (left, right);
            let overlaps = |range: &Range| range.0 <= right && left <= range.1;
            let common = |range: &Range| (range.0.max(left), range.1.min(right));
            self.again = self.apart.iter().map(common).find(|range| range.0 < range.1);
            for range in self.apart.iter().filter(|range| overlaps(range)) {
                whole = (whole.0.min(range.0), whole.1.max(range.1));
            }
            self.apart.retain(|range| !overlaps(range));
            self.apart.insert(0, whole);
        }
        if left <= was && right > was {
            self.rcv = right;
            while let Some(at) = self.apart.iter().position(|range| range.0 <= self.rcv) {
                self.rcv = self.rcv.max(self.apart.remove(at).1);
            }
            self.unread += self.rcv - was - u64::from(self.fin == Some(self.rcv));
            if self.unread > 0 && self.read_at == NEVER {
                self.read_at = now + self.rng.below(self.slow);
            }
        }
        self.owed += 1;
        let soon = self.again.is_some() || !self.apart.is_empty() || self.rcv == was;
        if soon || self.owed >= 2 || self.fin == Some(self.rcv) {
            self.answer();
        } else {
            self.answer_at = now + 40 * MS;
        }
    }
}
