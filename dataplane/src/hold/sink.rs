//! The way from a hold to the recorder, with the account of what was to be kept. Worker's thread; borrows what
//! it needs for one call, never allocates. A packet the recorder refuses is counted under its reason.

use super::slot::Raise;
use crate::flow::keeper::Stamp;
use crate::ledger::{KeptAccount, UnwrittenReason};
use crate::record::{Recorder, StoredPacket};

/// Where kept packets go, and the account of them.
#[derive(Debug)]
pub struct Sink<'a> {
    pub recorder: &'a mut Recorder,
    pub account: &'a mut KeptAccount,
    /// The text of a rule's comment for an event.
    pub comments: &'a rules::RuleSet,
}

impl Sink<'_> {
    pub(super) fn write(&mut self, flow_id: u64, stamp: &Stamp, bytes: &[u8], raise: Option<Raise>) {
        let comment = raise.map(|r| self.comments.rules()[usize::from(r.rule)].comment(r.event));
        let packet = StoredPacket {
            ts: stamp.ts,
            number: stamp.number,
            flow_id,
            interface: stamp.interface,
            orig_len: stamp.orig_len,
            bytes,
            comment,
        };
        if let Err(reason) = self.recorder.write(&packet) {
            self.lost(reason);
        }
    }

    pub(super) fn lost(&mut self, reason: UnwrittenReason) {
        self.lost_many(reason, 1);
    }

    pub(super) fn lost_many(&mut self, reason: UnwrittenReason, count: u64) {
        self.account.unwritten[reason as usize] += count;
    }
}
