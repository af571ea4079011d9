//! What makes hits belong together: the rule and the service, and the host that brought them about. Runs on the judge's
//! thread; plain values.

use std::net::IpAddr;

use rules::event::Event;
use rules::facts::Side;

use super::message::Hit;

/// What hits have in common that belong to one incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey {
    pub rule: u16,
    pub responder: IpAddr,
    pub port: u16,
    pub proto: u8,
}

impl GroupKey {
    pub const fn of(hit: &Hit) -> GroupKey {
        GroupKey { rule: hit.rule, responder: hit.facts.dst, port: hit.facts.dport, proto: hit.facts.proto }
    }
}

/// The host that did it, where the event tells, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// It sent the RST.
    Reset(IpAddr),
    /// It sent the SYN that nobody answered.
    Attempt(IpAddr),
}

impl Cause {
    pub const fn of(hit: &Hit) -> Option<Cause> {
        match (hit.event, hit.facts.by) {
            (Event::Rst | Event::AfterRst, Some(Side::Orig)) => Some(Cause::Reset(hit.facts.src)),
            (Event::Rst | Event::AfterRst, Some(Side::Resp)) => Some(Cause::Reset(hit.facts.dst)),
            (Event::SynTimeout, _) => Some(Cause::Attempt(hit.facts.src)),
            _ => None,
        }
    }
}

/// Which unsettled parts a storm takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    Nothing,
    /// What this cause brought about.
    Of(Cause),
    /// Unanswered attempts at this service.
    AttemptsAt(IpAddr, u16, u8),
}

impl Takes {
    pub fn takes(&self, key: &GroupKey, cause: Option<Cause>) -> bool {
        match (self, cause) {
            (Takes::Of(ours), Some(theirs)) => *ours == theirs,
            (Takes::AttemptsAt(addr, port, proto), Some(Cause::Attempt(_))) => {
                (*addr, *port, *proto) == (key.responder, key.port, key.proto)
            }
            _ => false,
        }
    }
}
