//! A source of which only what a filter wants goes on: files, and packet sockets.
//!
//! Worker's thread. Refused packets are counted and their time is told, so that what waits for an answer knows that
//! it did not come. Allocates only for a new interface.

use std::sync::Arc;

use xdp_prog::filter::Program;

use super::related::{Relations, Second, is_tagged};
use super::vm::{Shift, View, wants};
use super::{Filter, FilterError};
use crate::ledger::WorkerAccount;
use crate::source::{Batch, Descriptor, Interface, LinkType, Nanos, Poll, Source, packets_of};

/// Batches of which nothing is wanted, after which the worker is told the time and may look around.
const ROUNDS: usize = 64;

/// What became of the packets that a filter has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    pub packets: u64,
    /// Of these, those with a VLAN tag.
    pub tagged: u64,
    /// Of these, those of interfaces for whose link type the expression means nothing.
    pub unjudged: u64,
    /// Packets not named by the expression that passed because they belong to what is.
    pub related: u64,
}

/// The filter at work.
#[derive(Debug)]
struct Gate {
    filter: Filter,
    /// For each interface; `None` where the expression can't be compiled for its link type.
    programs: Vec<Option<Arc<Program>>>,
    links: Vec<u16>,
    /// Without it, only the expression counts.
    relations: Option<Relations>,
    refused: Refused,
    /// Latest time seen, and told.
    latest: Nanos,
    told: Nanos,
    over: bool,
}

/// A source behind a filter, or behind none.
#[derive(Debug)]
pub struct Filtered<S> {
    inner: S,
    gate: Option<Gate>,
}

impl<S: Source> Filtered<S> {
    /// Behind no filter.
    pub fn none(inner: S) -> Filtered<S> {
        Filtered { inner, gate: None }
    }

    /// Behind this filter, if there is one. Compiles it for all interfaces known.
    ///
    /// # Errors
    /// It can't be for any of them.
    pub fn new(inner: S, filter: Option<&Filter>) -> Result<Filtered<S>, FilterError> {
        let Some(filter) = filter else { return Ok(Filtered::none(inner)) };
        let mut gate = Gate {
            filter: filter.clone(),
            programs: Vec::new(),
            links: Vec::new(),
            relations: (!filter.exact()).then(Relations::new),
            refused: Refused::default(),
            latest: 0,
            told: 0,
            over: false,
        };
        if inner.interfaces().is_empty() {
            // What is wrong is to be said now, whatever comes.
            gate.filter.program(super::ETHERNET)?;
        }
        let learnt: Vec<_> = inner.interfaces().iter().map(|interface| gate.learn(interface)).collect();
        if !learnt.is_empty() && learnt.iter().all(Result::is_err) {
            learnt.into_iter().collect::<Result<(), FilterError>>()?;
        }
        Ok(Filtered { inner, gate: Some(gate) })
    }

    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The filter, and what it refused.
    pub fn refused(&self) -> Option<(&Filter, Refused)> {
        self.gate.as_ref().map(|gate| (&gate.filter, gate.refused))
    }

    /// Adds what it refused to what its worker received.
    pub fn account(&self, account: &mut WorkerAccount) {
        let refused = self.refused().map_or(0, |(_, refused)| refused.packets);
        account.received += refused;
        account.filtered += refused;
    }

    /// What is not wanted leaves the batch.
    fn sift(&mut self, batch: &mut Batch) {
        let Some(gate) = &mut self.gate else { return };
        for interface in self.inner.interfaces().iter().skip(gate.programs.len()) {
            // One that comes in the middle of a file; if the filter means nothing for it, nothing of it is wanted.
            let _ = gate.learn(interface);
        }
        gate.latest = gate.latest.max(batch.watermark);
        for packet in &batch.packets {
            gate.latest = gate.latest.max(packet.ts);
        }
        let inner = &self.inner;
        batch.packets.retain(|packet| gate.lets(packet, inner.bytes(packet)));
        if let Some(last) = batch.packets.last() {
            gate.told = gate.told.max(last.ts);
        }
    }
}

impl Gate {
    fn learn(&mut self, interface: &Interface) -> Result<(), FilterError> {
        let known = self.links.iter().position(|link| *link == interface.link_number);
        let program = match known.and_then(|at| self.programs.get(at).cloned().flatten()) {
            Some(program) => Ok(program),
            None => self.filter.program(interface.link_number).map(Arc::new),
        };
        self.links.push(interface.link_number);
        self.programs.push(program.as_ref().ok().cloned());
        program.map(drop)
    }

    fn lets(&mut self, packet: &Descriptor, bytes: &[u8]) -> bool {
        let program = self.programs.get(usize::from(packet.interface)).and_then(Option::as_deref);
        let Some(program) = program else {
            self.refused.packets += 1;
            self.refused.unjudged += 1;
            return false;
        };
        let (link, ts) = (packet.link, packet.ts);
        let view = View { bytes, wire_len: packet.orig_len, shift: Shift::default() };
        if wants(program, view) {
            if let Some(relations) = &mut self.relations {
                relations.wanted(link, bytes, ts);
            }
            return true;
        }
        let related = self.relations.as_mut().is_some_and(|relations| {
            let related = match relations.second(link, bytes, ts) {
                Second::Nothing => false,
                Second::Related => true,
                Second::Quotes(shift) => wants(program, View { shift, ..view }),
            };
            if related {
                relations.wanted(link, bytes, ts);
            }
            related
        });
        match related {
            true => self.refused.related += 1,
            false => self.refuse(link, bytes),
        }
        related
    }

    fn refuse(&mut self, link: LinkType, bytes: &[u8]) {
        self.refused.packets += 1;
        self.refused.tagged += u64::from(is_tagged(link, bytes));
    }

    /// Tells the time that packets nobody wanted came at.
    fn tell(&mut self) -> Option<Poll> {
        (self.latest > self.told).then(|| {
            self.told = self.latest;
            Poll::Idle(self.latest)
        })
    }
}

impl<S: Source> Source for Filtered<S> {
    fn poll(&mut self, batch: &mut Batch) -> Poll {
        if self.gate.is_none() {
            return self.inner.poll(batch);
        }
        for _ in 0..ROUNDS {
            let over = self.gate.as_ref().is_some_and(|gate| gate.over);
            let poll = if over { Poll::End } else { self.inner.poll(batch) };
            match poll {
                Poll::Packets => {
                    self.sift(batch);
                    if !batch.packets.is_empty() {
                        return Poll::Packets;
                    }
                    self.inner.release(batch);
                }
                Poll::Idle(now) => {
                    if let Some(gate) = &mut self.gate {
                        gate.told = gate.told.max(now);
                    }
                    return poll;
                }
                Poll::End => {
                    let gate = self.gate.as_mut();
                    let told = gate.and_then(|gate| {
                        gate.over = true;
                        gate.tell()
                    });
                    return told.unwrap_or(Poll::End);
                }
            }
        }
        let told = self.gate.as_mut().and_then(|gate| gate.tell().or(Some(Poll::Idle(gate.told))));
        told.unwrap_or(Poll::End)
    }

    packets_of!(inner);

    fn interfaces(&self) -> &[Interface] {
        self.inner.interfaces()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::synthetic::Synthetic;

    /// Wants packets of 20 bytes.
    fn filtered(source: Synthetic) -> Option<Filtered<Synthetic>> {
        match Filtered::new(source, Some(&Filter::new("len = 20", true))) {
            Err(error) if error.is_library() => {
                println!("skipped: no libpcap on this host");
                None
            }
            filtered => Some(filtered.unwrap()),
        }
    }

    fn polls(mut source: Filtered<Synthetic>) -> (Vec<(Poll, Vec<Nanos>)>, Filtered<Synthetic>) {
        let mut batch = Batch::new();
        let mut polls = Vec::new();
        loop {
            let poll = source.poll(&mut batch);
            polls.push((poll, batch.packets.iter().map(|packet| packet.ts).collect()));
            source.release(&mut batch);
            if poll == Poll::End {
                return (polls, source);
            }
        }
    }

    #[test]
    fn packets_that_nobody_wants_tell_the_time() {
        let mut source = Synthetic::new("memory");
        for (ts, len) in [(1, 20), (2, 30), (3, 20), (9, 30)] {
            source.push(ts, &vec![0; len], LinkType::Ethernet);
        }
        source.idle(20);
        source.push(30, &[0; 30], LinkType::Ethernet);
        let Some(source) = filtered(source) else { return };
        let (polls, source) = polls(source);
        let wanted = [
            (Poll::Packets, vec![1, 3]),
            (Poll::Idle(20), vec![]),
            (Poll::Idle(30), vec![]),
            (Poll::End, vec![]),
        ];
        assert_eq!(polls, wanted);
        let mut account = WorkerAccount { received: 2, analysed: 2, ..WorkerAccount::default() };
        source.account(&mut account);
        assert_eq!((account.received, account.filtered), (5, 3));
    }

    #[test]
    fn a_worker_is_not_kept_by_what_nobody_wants() {
        let mut source = Synthetic::new("memory");
        (1..10_000).for_each(|ts| source.push(ts, &[0; 30], LinkType::Ethernet));
        let Some(source) = filtered(source) else { return };
        let (polls, _) = polls(source);
        let times: Vec<Poll> = polls.into_iter().map(|(poll, _)| poll).collect();
        assert_eq!(times, [Poll::Idle(4096), Poll::Idle(8192), Poll::Idle(9999), Poll::End]);
    }

    #[test]
    fn an_interface_the_filter_means_nothing_for_brings_nothing() {
        let behind = |links: &[LinkType]| {
            let mut source = Synthetic::new("memory");
            links.iter().for_each(|link| source.push(1, &[0xff; 60], *link));
            // Raw IP has no addresses of Ethernet.
            Filtered::new(source, Some(&Filter::new("ether multicast", false)))
        };
        let source = match behind(&[LinkType::Raw, LinkType::Ethernet]) {
            Err(error) if error.is_library() => return println!("skipped: no libpcap on this host"),
            source => source.unwrap(),
        };
        let (polls, source) = polls(source);
        assert_eq!(polls[0], (Poll::Packets, vec![1]));
        let wanted = Refused { packets: 1, unjudged: 1, ..Refused::default() };
        assert_eq!(source.refused().unwrap().1, wanted);
        assert!(behind(&[LinkType::Raw]).is_err());
    }
}
