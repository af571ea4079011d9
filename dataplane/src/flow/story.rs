//! A connection's life in Zeek's words: `conn_state` and `history`, and the congestion marks it carried. One
//! cache line of a flow, written by `analyze::story` only when something new happens. Worker's thread; read
//! by whoever writes the flow's row.

use super::record::Flow;

/// Letters kept of a history; Zeek's own have no limit, and seldom reach ten.
pub const LETTERS: usize = 18;
/// Letters that are written once, or again only for another place.
const ONCE: [u8; 8] = *b"shadfriq";
/// Set in a letter sent by the key's high end.
const FROM_HIGH: u8 = 0x80;

/// One end, as Zeek's TCP analyzer sees it (`src/packet_analysis/protocol/tcp`, 6.0).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// Nothing came from it.
    #[default]
    Inactive,
    SynSent,
    /// The first packet of a connection was its SYN-ACK.
    SynAckSent,
    /// Under way when first seen.
    Partial,
    Established,
    /// Sent a FIN.
    Closed,
    Reset,
}

impl End {
    const ALL: [End; 7] = [
        End::Inactive,
        End::SynSent,
        End::SynAckSent,
        End::Partial,
        End::Established,
        End::Closed,
        End::Reset,
    ];

    fn from_bits(bits: u8) -> End {
        End::ALL.get(usize::from(bits)).copied().unwrap_or_default()
    }
}

/// What is told of a connection beside its counts; by key order, as in the flow.
#[derive(Clone, Copy, Debug, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub struct Story {
    letters: [u8; LETTERS],
    /// Letters of a side already in the history, one bit each.
    seen: [u8; 2],
    len: u8,
    /// State in the low four bits, the one before it in the high ones.
    ends: [u8; 2],
    /// The originator turned out to be the other side.
    pub flipped: bool,
    pub last_fin: [u32; 2],
    pub last_rst: [u32; 2],
    /// Segments a router marked "congestion experienced" (RFC 3168).
    pub ce: [u32; 2],
    /// Largest window of the other side that this side filled to its edge, bytes.
    pub filled_window: [u32; 2],
    /// As far as 255: what the history counts by powers of ten.
    pub retransmissions: [u8; 2],
    pub zero_windows: [u8; 2],
    pub gaps: [u8; 2],
    /// Type and code of an ICMP conversation's first message.
    pub icmp: [u8; 2],
}

const _: () = assert!(size_of::<Story>() == 64);

impl Story {
    pub fn end(&self, dir: usize) -> End {
        End::from_bits(self.ends[dir & 1] & 0x0f)
    }

    pub fn end_before(&self, dir: usize) -> End {
        End::from_bits(self.ends[dir & 1] >> 4)
    }

    pub fn set_end(&mut self, dir: usize, end: End) {
        let slot = &mut self.ends[dir & 1];
        *slot = *slot << 4 | end as u8;
    }

    /// Adds one of [`ONCE`]; false if it is there already. What finds no room is left out.
    pub fn once(&mut self, dir: usize, letter: u8) -> bool {
        let bit = ONCE.iter().position(|known| *known == letter).map_or(0, |at| 1 << at);
        let seen = &mut self.seen[dir & 1];
        if *seen & bit != 0 {
            return false;
        }
        *seen |= bit;
        self.again(dir, letter);
        true
    }

    /// Adds a letter, whatever is there.
    pub fn again(&mut self, dir: usize, letter: u8) {
        if let Some(place) = self.letters.get_mut(usize::from(self.len)) {
            *place = letter | if dir == 0 { 0 } else { FROM_HIGH };
            self.len += 1;
        }
    }

    /// Adds what [`Unwritten`] has noted.
    pub fn write(&mut self, letters: Unwritten) {
        for at in (0..4).rev() {
            let noted = letters.0 >> (3 * at);
            if noted & Unwritten::USED != 0 {
                let dir = usize::from(noted & Unwritten::HIGH != 0);
                self.once(dir, if noted & Unwritten::DATA != 0 { b'd' } else { b'a' });
            }
        }
    }

    /// The history as Zeek writes it: the originator's letters in upper case.
    fn history(&self, originator: usize) -> String {
        let flip = self.flipped.then_some('^');
        let letters = self.letters.iter().take(usize::from(self.len)).map(|letter| {
            let letter_of = usize::from(letter & FROM_HIGH != 0);
            let plain = char::from(letter & !FROM_HIGH);
            if letter_of == originator { plain.to_ascii_uppercase() } else { plain.to_ascii_lowercase() }
        });
        flip.into_iter().chain(letters).collect()
    }
}

/// The first ACK and the first data of each side in the order they came, three bits each: letters noted in the
/// flow's first line, so that ordinary segments need not touch the story's. Written before the next one of another
/// kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Unwritten(u16);

impl Unwritten {
    const USED: u16 = 4;
    const DATA: u16 = 2;
    const HIGH: u16 = 1;

    /// Notes one that was not noted before.
    #[inline(always)]
    pub fn note(&mut self, dir: usize, data: bool) {
        let letter = Self::USED | if data { Self::DATA } else { 0 } | dir as u16 & Self::HIGH;
        self.0 = self.0 << 3 | letter;
    }
}

impl Flow {
    /// What happened so far, as Zeek writes it.
    pub fn history(&self) -> String {
        let mut story = self.story;
        story.write(self.unwritten);
        story.history(self.orig())
    }

    /// Zeek's `conn_state` (its `base/protocols/conn`).
    pub fn conn_state(&self) -> &'static str {
        const TCP: u8 = 6;
        const UDP: u8 = 17;
        let (orig, resp) = (self.orig(), self.orig() ^ 1);
        match self.key.proto {
            TCP => self.tcp_state(self.story.end(orig), self.story.end(resp)),
            UDP => match (self.dirs[orig].packets > 0, self.dirs[resp].packets > 0) {
                (true, true) => "SF",
                (true, false) => "S0",
                (false, true) => "SHR",
                (false, false) => "OTH",
            },
            _ => "OTH",
        }
    }

    fn tcp_state(&self, orig: End, resp: End) -> &'static str {
        let absent = |end| matches!(end, End::Inactive | End::Partial);
        let no_data = self.dirs.iter().all(|dir| dir.payload == 0);
        match (orig, resp) {
            (End::SynSent | End::SynAckSent, End::Reset) => "REJ",
            (End::Reset, End::Reset) if no_data => "REJ",
            (orig, End::Reset) if absent(orig) => "RSTRH",
            (_, End::Reset) => "RSTR",
            (End::Reset, resp) if !absent(resp) => "RSTO",
            (End::Reset, _) if self.reset_own_syn() => "RSTOS0",
            (End::Reset, _) => "OTH",
            (End::Closed, End::Closed) => "SF",
            (End::Closed, resp) if absent(resp) => "SH",
            (End::Closed, _) => "S2",
            (orig, End::Closed) if absent(orig) => "SHR",
            (_, End::Closed) => "S3",
            (End::SynSent, End::Inactive) => "S0",
            (End::Established, End::Established) => "S1",
            _ => "OTH",
        }
    }

    /// The history begins with the originator's SYN and has its RST before any sign of a handshake.
    fn reset_own_syn(&self) -> bool {
        let history = self.history();
        let rest = history.trim_start_matches('^').strip_prefix('S');
        let until_reset = rest.and_then(|rest| rest.split_once('R'));
        until_reset.is_some_and(|(between, _)| !between.contains(['H', 'A', 'F', 'G', 'I', 'Q']))
    }
}
