//! Payload worth a look: where a turn begins, while a ClientHello waits, and DNS over UDP. Worker's thread;
//! never allocates. Calls what reads bytes, keeps what waits, and asks the rules about what came of it.

use rules::event::Event;
use rules::facts::{AnswerCounts, DnsFacts, Name, Parts};

use super::ask::{Around, Moment};
use super::clock::SECOND;
use super::engine::Engine;
use crate::activity::Party;
use crate::analyze::Outcome;
use crate::analyze::app::{self, Tables, dns};
use crate::config::WorkerConfig;
use crate::decode::{Class, Packet};
use crate::flow::app::AppSlab;
use crate::flow::keeper::Stamp;
use crate::flow::questions::{Asked, Question, Questions};
use crate::flow::record::{NONE, crowd_flag};
use crate::flow::services::{Answer, Services};
use crate::flow::waits::{CHECKS, Due, Waits};
use crate::source::Nanos;

/// A ClientHello is not waited for any longer, ns.
const FORGET_HELLO: Nanos = (CHECKS as Nanos + 1) * 1_000_000_000;
/// The same datagram so soon again is a second copy of it, as taps and bridges make them.
const COPY: Nanos = 20_000_000;
const UDP_HEADER: usize = 8;
/// Who has not asked again by then won't, ns.
const CONTENT: Nanos = 6 * SECOND;

/// What is known of applications.
#[derive(Debug)]
pub(super) struct Apps {
    pub slab: AppSlab,
    hellos: Waits,
    pub questions: Questions,
    services: Services,
}

impl Apps {
    pub fn new(config: &WorkerConfig) -> Apps {
        Apps {
            slab: AppSlab::new(config.apps),
            hellos: Waits::new(FORGET_HELLO),
            questions: Questions::new(config.questions, config.hash_secret),
            services: Services::new(config.hash_secret),
        }
    }

    /// Somebody has waited for another second.
    #[inline(always)]
    pub fn due(&self, now: Nanos) -> bool {
        now >= self.hellos.next_due() || now >= self.questions.next_due()
    }

    pub fn give_back(&mut self, index: u32) {
        if index != NONE {
            self.hellos.remove(&mut self.slab.records, index);
            self.slab.give_back(index);
        }
    }
}

/// DNS over UDP. Multicast name resolution has ports of its own, and answers when it likes.
#[inline(always)]
pub(super) fn is_dns(packet: &Packet) -> bool {
    let port = |port: u16| port == dns::PORT;
    packet.class == Class::Udp && (port(packet.key.low_port) || port(packet.key.high_port))
}

impl Engine {
    /// A segment that begins a turn, or one of a flow whose ClientHello waits.
    #[inline(never)]
    pub(super) fn follow_app(
        &mut self,
        slot: u32,
        stamp: &Stamp,
        packet: &Packet,
        bytes: &[u8],
        outcome: &mut Outcome,
    ) {
        if self.table.is_half_open(slot) {
            return;
        }
        let flow = &mut self.table.flows[slot as usize];
        let payload = bytes.get(usize::from(packet.headers)..).unwrap_or_default();
        let payload = payload.get(..packet.tcp.payload as usize).unwrap_or(payload);
        let Apps { slab, hellos, services, .. } = &mut self.apps;
        let mut tables = Tables { slab, waits: hellos, services };
        app::follow(flow, slot, &mut tables, packet, payload, (stamp.ts, self.now), outcome);
        // Not asked of the flow, where it lies in a line that is nearly never in the cache.
        if outcome.first_byte_us > 0 {
            self.account.latency.first_byte.count(u64::from(outcome.first_byte_us) * 1000);
        }
    }

    /// Everybody who has waited for another second by `now`. False if the queues are too full to go on.
    #[cold]
    pub(super) fn app_timers(&mut self, now: Nanos) -> bool {
        loop {
            if !self.may_go_on() {
                return false;
            }
            match self.apps.hellos.pop(&mut self.apps.slab.records, now) {
                Some(Due::Check(index, due)) => self.hello_waited(index, due),
                Some(Due::Forget(_)) => {}
                None => break,
            }
        }
        loop {
            if !self.may_go_on() {
                return false;
            }
            let Some((question, due)) = self.apps.questions.due(now) else { return true };
            self.asked_once(&question, due);
            self.tell(&question, Event::DnsTimeout, None, due, None);
        }
    }

    /// Resolver libraries ask again within 5 s. Who doesn't had an answer, and if none of this server was ever seen, its
    /// answers pass elsewhere.
    fn asked_once(&mut self, question: &Question, now: Nanos) {
        let server = Party::of(&question.key, usize::from(question.from_low)).addr;
        let waited = now.saturating_sub(question.first_ns);
        if question.asks == 1
            && (CONTENT..CONTENT + SECOND).contains(&waited)
            && self.sightings.passes(server).is_none()
        {
            self.sightings.host(server, false);
        }
    }

    fn hello_waited(&mut self, index: u32, due: Nanos) {
        let Some(slot) = self.apps.slab.get(index).map(|app| app.slot) else { return };
        let mut outcome = Outcome::default();
        outcome.events.insert(Event::TlsTimeout);
        self.raise(slot, &outcome, due, None);
    }

    /// A datagram from or to port 53.
    #[inline(never)]
    pub(super) fn dns(&mut self, slot: u32, stamp: &Stamp, packet: &Packet, bytes: &[u8]) {
        let at = usize::from(packet.headers);
        let (Some(header), Some(payload)) = (bytes.get(at.wrapping_sub(UDP_HEADER)..), bytes.get(at..))
        else {
            return;
        };
        let Some([_, _, _, _, high, low]) = header.first_chunk() else { return };
        let len = usize::from(u16::from_be_bytes([*high, *low])).saturating_sub(UDP_HEADER);
        let Some(message) = dns::message(payload, len) else { return };
        let (from, to) = match packet.from_low {
            true => (packet.key.low_port, packet.key.high_port),
            false => (packet.key.high_port, packet.key.low_port),
        };
        if message.is_answer && from == dns::PORT {
            self.dns_answer(slot, stamp, packet, &message);
        } else if !message.is_answer && to == dns::PORT {
            self.table.flows[slot as usize].crowd |= crowd_flag::ASKED;
            self.dns_question(stamp, packet, &message);
        }
    }

    fn dns_question(&mut self, stamp: &Stamp, packet: &Packet, message: &dns::Message) {
        let unknown = dns::Question { hash: 0, kind: 0, name: Name::EMPTY };
        let dns::Question { hash, kind, name } = message.question.unwrap_or(unknown);
        let asked = Asked { key: packet.key, from_low: packet.from_low, id: message.id, hash, kind, name };
        let questions = &mut self.apps.questions;
        let same = questions.find(&asked.key, asked.id, hash);
        let before = same.or_else(|| questions.find_by_client(&asked));
        let repeated = before.and_then(|index| questions.get_mut(index)).filter(|question| {
            // Asked of several servers at once, or seen twice, is not asked again.
            stamp.ts.saturating_sub(question.last_ns) >= COPY
        });
        let mut asks = 1;
        let mut told = None;
        if let Some(question) = repeated {
            question.asks = question.asks.saturating_add(1);
            question.repeats += u16::from(same.is_some() && question.repeats < u16::MAX);
            asks = question.asks;
            told = Some(*question);
            if same.is_some() {
                question.last_ns = stamp.ts;
            }
        }
        if same.is_none() {
            questions.ask(&asked, asks, stamp.ts, self.now);
        }
        if let Some(question) = told {
            let here = (question.key == packet.key).then_some(stamp.number);
            self.tell(&question, Event::DnsRetry, None, stamp.ts, here);
        }
    }

    fn dns_answer(&mut self, slot: u32, stamp: &Stamp, packet: &Packet, message: &dns::Message) {
        self.sightings.host(Party::of(&packet.key, usize::from(!packet.from_low)).addr, true);
        let questions = &mut self.apps.questions;
        let index = match message.question {
            Some(question) => questions.find(&packet.key, message.id, question.hash),
            None => questions.find_by_id(&packet.key, message.id),
        };
        let Some(question) = index.and_then(|index| questions.answered(index)) else { return };
        self.account.latency.dns_answer.count(stamp.ts.saturating_sub(question.first_ns));
        let key = &packet.key;
        let (address, port) =
            if packet.from_low { (key.low, key.low_port) } else { (key.high, key.high_port) };
        let late = stamp.ts.saturating_sub(question.last_ns) >= app::LATE;
        let kind = Answer { error: message.is_error(), late };
        let service = self.apps.services.answer((address, port), kind, stamp.ts);
        if message.is_error() {
            let mut index = self.table.flows[slot as usize].app;
            if let Some(app) = self.apps.slab.get_or_take(&mut index) {
                app.dns_errors = app.dns_errors.saturating_add(1);
            }
            self.table.flows[slot as usize].app = index;
        }
        let answer = Some((message.rcode, service));
        self.tell(&question, Event::DnsAnswer, answer, stamp.ts, Some(stamp.number));
    }

    /// Asks the rules about a question, on the flow it was asked on. `answer` is a response code and how the
    /// service answers; `packet` is of that flow, or there is none.
    fn tell(
        &mut self,
        question: &Question,
        event: Event,
        answer: Option<(u8, Option<AnswerCounts>)>,
        now: Nanos,
        packet: Option<u64>,
    ) {
        if !self.subscribed.contains(event) {
            return;
        }
        let Some(slot) = self.table.find(&question.key, self.table.hash(&question.key)) else { return };
        let flow = &self.table.flows[slot as usize];
        let outcome = Outcome {
            dir: usize::from(question.from_low == (event == Event::DnsAnswer)),
            ..Outcome::default()
        };
        let by = packet.map(|_| flow.side_of(outcome.dir));
        let moment = Moment { outcome: &outcome, now, packet, around: Around::Hosts };
        self.begin(slot, &moment);
        self.gather(slot, &moment, Parts::APP);
        let snapshot = &mut self.snapshot;
        snapshot.by = by;
        snapshot.app.name = question.name();
        snapshot.app.service = answer.and_then(|(_, service)| service);
        let since = |then: Nanos| now.saturating_sub(then) / 1_000_000;
        snapshot.app.dns = Some(DnsFacts {
            kind: question.kind,
            rcode: answer.map(|(rcode, _)| rcode),
            wait_ms: since(question.first_ns),
            since_last_ms: since(question.last_ns),
            asks: question.asks,
            repeats: question.repeats.into(),
        });
        self.ask(slot, event, &moment);
    }
}
