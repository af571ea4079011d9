//! What a rule can wait for. Plain values, used by every thread; no allocation.
//! Analysis raises them on workers; the loader turns their names into an [`EventSet`] for each rule.

/// One thing that can happen to a flow, or a tick of packet time. A rule names the ones it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Event {
    /// A SYN without ACK was seen, first or repeated.
    Syn,
    /// A SYN-ACK was seen, first or repeated.
    SynAck,
    /// A SYN is still without SYN-ACK and RST; raised 1, 2, 3 … seconds after the first SYN.
    SynTimeout,
    /// The handshake was completed by the client's ACK.
    Established,
    /// A segment with the RST flag was seen.
    Rst,
    /// A segment repeated sequence space already sent.
    Retransmission,
    /// A segment advertised a zero receive window.
    ZeroWindow,
    /// A segment filled the receiver's window to its edge (tcp.analysis.window_full).
    WindowFull,
    /// A selective acknowledgement names bytes outside the sequence space.
    SackGarbled,
    /// A segment other than a SYN had the ECN echo flag.
    CongestionEcho,
    /// A TCP keepalive probe was seen.
    Keepalive,
    /// ICMP "fragmentation needed" (3/4) or ICMPv6 "packet too big" (2) quoting this flow.
    IcmpTooBig,
    /// A DNS question got its answer.
    DnsAnswer,
    /// A DNS question is without answer; raised 1, 2, 3 … 10 seconds after it was first asked.
    DnsTimeout,
    /// A DNS question without answer was asked again by the same client.
    DnsRetry,
    /// A TLS ClientHello is without answer; raised 1, 2, 3 … 10 seconds after it, and when an alert or a FIN came.
    TlsTimeout,
    /// A TLS ClientHello was seen.
    TlsHello,
    /// An HTTP/1 answer in clear text has a status of 500 to 599.
    HttpError,
    /// The first byte of an answer came a second or more after its request.
    FirstByte,
    /// ICMP "destination unreachable" or "time exceeded" quoting this flow.
    IcmpUnreachable,
    /// A packet followed from a side in whose name a RST was seen; raised for the 1st, 2nd, 4th, 8th …
    AfterRst,
    /// One side sends and nothing at all comes back, or advertises a closed window: raised 5, 10, 20, 40 … s
    /// after that began, and when it ends after 5 s or more.
    Stalled,
    /// What a rule has said of the flow may be wrong after all: a segment that was stuck has arrived, or a repeat
    /// proved needless. Only rules that matched on the flow before are asked.
    Disproved,
    /// A SYN was answered by an ACK that does not acknowledge it: of an old connection (RFC 5961 §4.2).
    ChallengeAck,
    /// An established connection is silent: raised 10, 20, 40 … seconds after its last packet.
    Idle,
    /// The flow ended: closed by both sides, reset, timed out, or the input ended.
    Close,
    /// 100 ms of packet time passed; scope is host or service, as the rule's guard and body say.
    Tick,
}

impl Event {
    pub const ALL: [Event; 27] = [
        Event::Syn,
        Event::SynAck,
        Event::SynTimeout,
        Event::Established,
        Event::Rst,
        Event::Retransmission,
        Event::ZeroWindow,
        Event::WindowFull,
        Event::SackGarbled,
        Event::CongestionEcho,
        Event::Keepalive,
        Event::IcmpTooBig,
        Event::DnsAnswer,
        Event::DnsTimeout,
        Event::DnsRetry,
        Event::TlsTimeout,
        Event::TlsHello,
        Event::HttpError,
        Event::FirstByte,
        Event::IcmpUnreachable,
        Event::AfterRst,
        Event::Stalled,
        Event::Disproved,
        Event::ChallengeAck,
        Event::Idle,
        Event::Close,
        Event::Tick,
    ];

    /// The name rules use.
    pub const fn name(self) -> &'static str {
        match self {
            Event::Syn => "syn",
            Event::SynAck => "syn_ack",
            Event::SynTimeout => "syn_timeout",
            Event::Established => "established",
            Event::Rst => "rst",
            Event::Retransmission => "retransmission",
            Event::ZeroWindow => "zero_window",
            Event::WindowFull => "window_full",
            Event::SackGarbled => "sack_garbled",
            Event::CongestionEcho => "congestion_echo",
            Event::Keepalive => "keepalive",
            Event::IcmpTooBig => "icmp_too_big",
            Event::DnsAnswer => "dns_answer",
            Event::DnsTimeout => "dns_timeout",
            Event::DnsRetry => "dns_retry",
            Event::TlsTimeout => "tls_timeout",
            Event::TlsHello => "tls_hello",
            Event::HttpError => "http_error",
            Event::FirstByte => "first_byte",
            Event::IcmpUnreachable => "icmp_unreachable",
            Event::AfterRst => "after_rst",
            Event::Stalled => "stalled",
            Event::Disproved => "disproved",
            Event::ChallengeAck => "challenge_ack",
            Event::Idle => "idle",
            Event::Close => "close",
            Event::Tick => "tick",
        }
    }

    /// It tells how something goes on that was told of before: a rule that waits for it is asked again, and its
    /// newer words replace the older ones.
    pub const fn goes_on(self) -> bool {
        matches!(self, Event::AfterRst | Event::Stalled | Event::Idle | Event::Disproved)
    }

    /// Each one is another of its kind, even to a rule that is asked again.
    pub const fn recurs(self) -> bool {
        matches!(self, Event::Retransmission)
    }

    pub fn from_name(name: &str) -> Option<Event> {
        Event::ALL.into_iter().find(|e| e.name() == name)
    }
}

/// A set of events, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventSet(u32);

impl EventSet {
    pub const EMPTY: EventSet = EventSet(0);

    pub const fn with(self, event: Event) -> EventSet {
        EventSet(self.0 | 1 << event as u8)
    }

    pub const fn without(self, event: Event) -> EventSet {
        EventSet(self.0 & !(1 << event as u8))
    }

    pub const fn contains(self, event: Event) -> bool {
        self.0 & 1 << event as u8 != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn and(self, other: EventSet) -> EventSet {
        EventSet(self.0 & other.0)
    }

    pub const fn union(self, other: EventSet) -> EventSet {
        EventSet(self.0 | other.0)
    }

    pub fn insert(&mut self, event: Event) {
        *self = self.with(event);
    }

    pub fn iter(self) -> impl Iterator<Item = Event> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let event = Event::ALL.get(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(*event)
        })
    }
}
