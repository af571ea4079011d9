//! What the first bytes of a turn tell: TLS hellos and alerts, HTTP status lines, how late an answer came.
//! Worker's thread, on the rare packets that begin a turn or that a waiting ClientHello is about; plain values.
//!
//! `tls`, `http` and `dns` read bytes and know no flow; [`follow`] puts what they say into the flow's record.
//! Facts are read from the record, events go to the guards.

pub mod dns;
mod http;
mod tls;

use rules::event::Event;
use rules::facts::AppFacts;

use super::Outcome;
use crate::decode::{Packet, flags};
use crate::flow::Flow;
use crate::flow::app::{App, AppSlab, app_flag};
use crate::flow::record::{crowd_flag, dir_flag, flow_flag};
use crate::flow::services::{Answer, Services};
use crate::flow::waits::Waits;
use crate::source::Nanos;
use tls::Record;

/// An answer that comes sooner after its request is not late, ns.
pub const LATE: Nanos = 1_000_000_000;

/// The tables this needs.
#[derive(Debug)]
pub struct Tables<'a> {
    pub slab: &'a mut AppSlab,
    pub waits: &'a mut Waits,
    pub services: &'a mut Services,
}

/// A segment that begins its side's turn, or any while a ClientHello waits. `payload` is what the capture has
/// of it. `slot` is where the flow lies, `clock` the worker's time.
#[inline(never)]
pub fn follow(
    flow: &mut Flow,
    slot: u32,
    tables: &mut Tables,
    packet: &Packet,
    payload: &[u8],
    (now, clock): (Nanos, Nanos),
    out: &mut Outcome,
) {
    if flow.has(flow_flag::HELLO_WAITS) {
        hello_waits(flow, tables, packet, payload, now, out);
    } else if out.dir == flow.orig() {
        client_speaks(flow, slot, tables, packet, payload, (now, clock), out);
    } else {
        server_answers(flow, tables, packet, payload, now, out);
    }
}

/// The client begins a turn: only its very first bytes, right behind the SYN, can be a ClientHello that is the
/// connection's own.
fn client_speaks(
    flow: &mut Flow,
    slot: u32,
    tables: &mut Tables,
    packet: &Packet,
    payload: &[u8],
    (now, clock): (Nanos, Nanos),
    out: &mut Outcome,
) {
    let (own, other) = (&flow.dirs[flow.orig()], &flow.dirs[flow.orig() ^ 1]);
    let early = own.has(dir_flag::SYN) && other.payload == 0;
    if !early || packet.tcp.flags & (flags::SYN | flags::RST) != 0 {
        return;
    }
    let Some(name) = tls::client_hello(payload) else { return };
    if packet.tcp.seq != flow.rare.base_seq[flow.orig()].wrapping_add(1) {
        return;
    }
    out.events.insert(Event::TlsHello);
    let mut index = flow.app;
    if let Some(app) = tables.slab.get_or_take(&mut index) {
        app.flags |= app_flag::HELLO;
        (app.hello_ns, app.slot) = (now, slot);
        app.set_name(name);
        tables.waits.add(&mut tables.slab.records, index, clock);
        flow.flags |= flow_flag::HELLO_WAITS;
    }
    flow.app = index;
}

/// The server begins its answer.
fn server_answers(
    flow: &mut Flow,
    tables: &mut Tables,
    packet: &Packet,
    payload: &[u8],
    now: Nanos,
    out: &mut Outcome,
) {
    let (orig, resp) = (flow.orig(), flow.orig() ^ 1);
    let request = &flow.dirs[orig];
    if request.payload == 0 || !request.has(dir_flag::SEQ) {
        return;
    }
    let took = now.saturating_sub(request.advanced_ns());
    let status = http::status(payload);
    let first = flow.dirs[resp].payload == u64::from(packet.tcp.payload) && request.has(dir_flag::SYN);
    if !first && status.is_none() && took < LATE {
        return;
    }
    if first {
        flow.first_byte_us = micros(took);
        out.first_byte_us = flow.first_byte_us;
        if status.is_none() && took < LATE {
            return;
        }
    }
    let mut index = flow.app;
    if let Some(app) = tables.slab.get_or_take(&mut index) {
        app.answer_ms = millis(took);
        if let Some(status) = status {
            let key = &flow.key;
            let (address, port) = if resp == 0 { (key.low, key.low_port) } else { (key.high, key.high_port) };
            let failed = (500..600).contains(&status);
            let answer = Answer { error: failed, late: took >= LATE };
            app.set_service(tables.services.answer((address, port), answer, now));
            app.http_status = status;
            if failed {
                app.http_errors = app.http_errors.saturating_add(1);
                out.events.insert(Event::HttpError);
            }
        }
        // Acknowledged before it was answered: the request had arrived, and it was the server that took its time.
        if took >= LATE && out.acked {
            out.events.insert(Event::FirstByte);
        }
    }
    flow.app = index;
}

/// A ClientHello is without answer: what does this segment change?
fn hello_waits(
    flow: &mut Flow,
    tables: &mut Tables,
    packet: &Packet,
    payload: &[u8],
    now: Nanos,
    out: &mut Outcome,
) {
    let by_server = out.dir != flow.orig();
    let tcp = &packet.tcp;
    let index = flow.app;
    let Some(app) = tables.slab.get_mut(index) else { return };
    let mut over = true;
    if tcp.flags & flags::RST != 0 {
        // The wait is over, but a forged RST is often followed by what the server really said.
        app.flags |= if by_server { app_flag::SERVER_RST } else { 0 };
        tables.waits.remove(&mut tables.slab.records, index);
        over = false;
    } else if tcp.payload > 0 && by_server {
        answer(app, payload, now, out);
    } else if tcp.flags & flags::FIN != 0 && !app.has(app_flag::SERVER_RST) {
        app.flags |= app_flag::OVER;
        out.events.insert(Event::TlsTimeout);
    } else {
        over = false;
    }
    if over {
        tables.waits.remove(&mut tables.slab.records, index);
        flow.flags &= !flow_flag::HELLO_WAITS;
    }
}

/// The server's first payload after a ClientHello.
fn answer(app: &mut App, payload: &[u8], now: Nanos, out: &mut Outcome) {
    let record = tls::record(payload);
    if app.has(app_flag::SERVER_RST) {
        if record == Record::ServerHello {
            app.flags |= app_flag::HELLO_AFTER_RST;
        }
        return;
    }
    app.tls_us = micros(now.saturating_sub(app.hello_ns));
    if let Record::Alert { fatal, description } = record {
        app.flags |= app_flag::ALERT;
        app.alert = description;
        if fatal {
            app.flags |= app_flag::OVER;
            out.events.insert(Event::TlsTimeout);
            return;
        }
    }
    app.flags |= app_flag::ANSWERED;
}

/// SYN to the ACK that completed the handshake, µs.
pub fn connect_us(flow: &Flow) -> Option<u64> {
    flow.has(flow_flag::ACK_TIMED).then(|| u64::from(flow.ack_us))
}

/// What rules see of a flow's record.
pub fn facts(flow: &Flow, app: Option<&App>, now: Nanos) -> AppFacts {
    let connect_us = connect_us(flow);
    let dns_asked = flow.crowd & crowd_flag::ASKED != 0;
    let known = |value: u32| (value > 0).then(|| u64::from(value));
    let first_byte_us = known(flow.first_byte_us);
    // An early first answer has left no other trace.
    let first_answer_ms = first_byte_us.map(|us| (us / 1000).max(1));
    let Some(app) = app else {
        return AppFacts {
            connect_us,
            first_byte_us,
            answer_ms: first_answer_ms,
            dns_asked,
            ..AppFacts::default()
        };
    };
    let hello = app.has(app_flag::HELLO);
    AppFacts {
        name: app.name(),
        hello_ms: hello.then(|| now.saturating_sub(app.hello_ns) / 1_000_000),
        tls_answered: hello.then(|| app.has(app_flag::ANSWERED)),
        tls_waits: hello && !app.has(app_flag::ANSWERED) && !app.has(app_flag::OVER),
        tls_over: hello.then(|| app.has(app_flag::OVER)),
        tls_alert: app.has(app_flag::ALERT).then_some(app.alert),
        server_hello_after_rst: hello.then(|| app.has(app_flag::HELLO_AFTER_RST)),
        http_status: (app.http_status > 0).then_some(app.http_status),
        service: app.service(),
        connect_us,
        tls_us: known(app.tls_us),
        first_byte_us,
        answer_ms: known(app.answer_ms).or(first_answer_ms),
        dns: None,
        dns_asked,
    }
}

/// At least 1, so that 0 can stand for "not seen".
fn micros(ns: Nanos) -> u32 {
    (ns / 1000).clamp(1, u64::from(u32::MAX)) as u32
}

fn millis(ns: Nanos) -> u32 {
    (ns / 1_000_000).clamp(1, u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests;
