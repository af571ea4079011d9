//! The judge's settings and its books. Plain values; read by the judge's thread, set by the program at
//! start, shown by the program at the end.

use rules::BodyLimits;

use super::message::CaptureLimits;
use super::scripts::BodyFailure;
use super::shadow::ShadowCounts;
use crate::source::Nanos;

#[derive(Clone, Debug)]
pub struct JudgeConfig {
    /// How long a flow incident waits, from its first hit, before it is shown: a storm may take it over. Ns.
    pub settle: Nanos,
    /// How much longer it waits if its client failed at several ports or hosts: that may become a scan. Ns.
    pub suspect: Nanos,
    /// An incident closes after this long without a new event. Ns.
    pub quiet: Nanos,
    /// How long before a storm's window a flow incident may have begun to be taken over. Ns.
    pub before_storm: Nanos,
    /// Flows kept for one incident.
    pub captures_per_incident: u32,
    /// What a capture may take if the rule does not say.
    pub default_limits: CaptureLimits,
    /// Flow incidents, unsettled parts of them, and host and service incidents, at most of each.
    pub max_open: usize,
    /// Hosts whose windows are kept. One takes up to 80 KiB, if it acts in every 100 ms of a minute.
    pub max_hosts: usize,
    /// Services whose windows are kept; as large as hosts.
    pub max_services: usize,
    /// Pairs of client and service whose last minute is kept; as many spreads of a client's attempts.
    pub max_pairs: usize,
    /// (Flow, rule) pairs remembered, so that a body runs once for each.
    pub max_known: usize,
    /// Flows remembered as kept within the last second.
    pub max_kept: usize,
    /// A rule whose body fails this often in a row is switched off.
    pub failures_before_off: u32,
    pub body_limits: BodyLimits,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        JudgeConfig {
            settle: 1_500_000_000,
            suspect: 30_000_000_000,
            quiet: 60_000_000_000,
            before_storm: 2_000_000_000,
            captures_per_incident: 50,
            default_limits: CaptureLimits { packets: 2000, bytes: 4 << 20, nanos: 120_000_000_000 },
            max_open: 4096,
            max_hosts: 16_384,
            max_services: 16_384,
            max_pairs: 16_384,
            max_known: 1 << 17,
            max_kept: 1 << 16,
            failures_before_off: 20,
            body_limits: BodyLimits::default(),
        }
    }
}

/// What the judge did, and everything it could not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JudgeAccount {
    /// Hits received: `hits = hits_judged + hits_repeated + hits_refused`.
    pub hits: u64,
    /// Hits that were the first of their rule and flow, and went to the body.
    pub hits_judged: u64,
    /// Further hits of a rule and flow already judged.
    pub hits_repeated: u64,
    /// Hits that would have begun an incident beyond the limit, or named a rule that does not exist.
    pub hits_refused: u64,
    /// Host and service rules that matched and found no place among the open incidents, once a tick.
    pub matches_refused: u64,
    /// Host and service rules beyond the most that can match in one tick.
    pub matches_overflowed: u64,
    pub bodies_run: u64,
    pub body_errors: u64,
    /// Body errors that were a deadline: not repeatable.
    pub body_deadlines: u64,
    pub incidents_opened: u64,
    pub incidents_closed: u64,
    /// Of those closed, incidents that later packets disproved.
    pub incidents_withdrawn: u64,
    /// Flow hits that went into a host's incident instead of one of their own.
    pub absorbed: u64,
    pub keeps: u64,
    pub releases: u64,
    /// Captures asked for and refused because the incident had had its share.
    pub captures_over_budget: u64,
    /// Hosts let go of, for want of room, while they still counted.
    pub hosts_evicted: u64,
    /// Services let go of, for want of room, while they still counted.
    pub services_evicted: u64,
    /// Pairs of client and service, and spreads of attempts, let go of for want of room.
    pub pairs_evicted: u64,
    /// Services and clients whose connections by state were let go of for want of room.
    pub gauges_evicted: u64,
    /// Most entries that all traffic took in the table of a stateful device in the path.
    pub state_entries_peak: u64,
    /// (Flow, rule) pairs forgotten for want of room: a further hit counts as a new flow.
    pub flows_forgotten: u64,
    /// Flows just kept that were forgotten for want of room: a further hit may be answered twice.
    pub kept_forgotten: u64,
    /// Reports on a service's healthy flows that found no place.
    pub siblings_refused: u64,
    /// Incidents open now, and flow incidents waiting to settle.
    pub open: u64,
    /// Rules switched off of which no incident tells, for want of room.
    pub switched_off_untold: u64,
    /// Runs of bodies left out because their rule had taken its share of a second; live only.
    pub bodies_left_out: u64,
}

/// What became of the bodies of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyBooks {
    /// Rules whose body failed, in the order of the rule set.
    pub failures: Vec<BodyFailure>,
    /// What bodies counted: rule, counter, count.
    pub counts: Vec<(String, String, u64)>,
    /// Rules in shadow that matched.
    pub shadows: Vec<(String, ShadowCounts)>,
}
