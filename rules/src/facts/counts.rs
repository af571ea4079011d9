//! What is counted of every host and service, and which of it somebody reads. Plain data: workers count, the judge adds
//! up, guards read.

/// Counts kept per host or per service, in one interval or summed over a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// SYNs without ACK (host: sent by it; service: sent to it), repeats not counted.
    pub syns: u32,
    /// Handshakes completed.
    pub established: u32,
    /// SYNs left without any answer for 3 s.
    pub syn_unanswered: u32,
    /// SYNs answered by RST.
    pub refused: u32,
    /// RST segments (host: sent by it; service: sent by its server side).
    pub rsts: u32,
    /// Flows that one of those RSTs was the first for.
    pub flows_reset: u32,
    /// Handshakes neither completed nor refused 3 s after the SYN, or given up before.
    pub unfinished: u32,
    /// Of these, those whose SYN was repeated: a client that means it tries again after a second.
    pub unfinished_repeated: u32,
    /// Handshakes of which the first SYN went unanswered and a repeat got through.
    pub recovered: u32,
    /// Connections closed by both sides.
    pub closed: u32,
    /// RSTs sent that cut a connection off or refuse one; see `host.cuts`.
    pub cuts: u32,
    /// Of these, answers to SYNs; and those sent as the client.
    pub refusals: u32,
    pub client_cuts: u32,
    /// When in its 100 ms the first and the last RST came, in 2 µs from 1 on; 0 for none. Not for sums.
    pub rst_at: [u16; 2],
}

/// One of the numbers in [`Counts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Count {
    Syns,
    Established,
    SynUnanswered,
    Refused,
    Rsts,
    FlowsReset,
    Unfinished,
    UnfinishedRepeated,
    Recovered,
    Closed,
    Cuts,
    Refusals,
    ClientCuts,
}

/// Which of them some rule reads; nobody counts the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountSet(u16);

impl CountSet {
    pub const EMPTY: CountSet = CountSet(0);
    pub const ALL: CountSet = CountSet(0x1fff);
    /// What a healthy service has none of.
    pub const TROUBLE: CountSet =
        CountSet(Self::ALL.0 & !Self::EMPTY.with(Count::Syns).with(Count::Established).with(Count::Closed).0);

    pub const fn with(self, count: Count) -> CountSet {
        CountSet(self.0 | 1 << count as u8)
    }

    pub const fn union(self, other: CountSet) -> CountSet {
        CountSet(self.0 | other.0)
    }

    #[inline]
    pub const fn contains(self, count: Count) -> bool {
        self.0 & 1 << count as u8 != 0
    }

    /// What a windowed fact is made of, by its name behind `host.` or `service.`.
    pub(crate) fn of_fact(name: &str) -> CountSet {
        let of = |counts: &[Count]| counts.iter().fold(CountSet::EMPTY, |set, count| set.with(*count));
        match name {
            "syns" | "syn_rate" => of(&[Count::Syns]),
            "established" | "established_rate" => of(&[Count::Established]),
            "unanswered" | "unanswered_rate" => of(&[Count::SynUnanswered]),
            "refused" | "refused_rate" => of(&[Count::Refused]),
            "rsts" | "rst_rate" => of(&[Count::Rsts, Count::FlowsReset]),
            "syn_unanswered_ratio" => of(&[Count::SynUnanswered, Count::Syns]),
            "unfinished" | "unfinished_rate" => of(&[Count::Unfinished]),
            "unfinished_repeated" => of(&[Count::UnfinishedRepeated]),
            "recovered" => of(&[Count::Recovered]),
            "closed" | "closed_rate" => of(&[Count::Closed]),
            "cuts" => of(&[Count::Cuts]),
            "refusals" => of(&[Count::Refusals]),
            "client_cuts" => of(&[Count::ClientCuts]),
            _ => CountSet::ALL,
        }
    }
}
