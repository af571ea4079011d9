//! Whether both directions of a connection reach the same receive queue: asked of the driver, and made so where that is
//! wanted. Main thread, before an interface is attached to.
//!
//! A queue is chosen by a hash of addresses and ports, for which source and destination are two different things. It is
//! symmetric if the driver mixes them first, or if its key makes Toeplitz's sum the same for both orders: one that
//! repeats every 16 bits does.

use std::fmt;
use std::io;

use dataplane_sys::rss::{self, Flow, Hash};

/// `[capture] rss`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Look and say, and change nothing.
    #[default]
    Verify,
    /// Make it symmetric where it isn't.
    Set,
}

/// What is known of an interface's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    OneQueue,
    /// Both directions meet, by the driver's own transformation of the input or by the key.
    ByTransform,
    ByKey,
    Asymmetric,
    /// The driver doesn't say.
    Unknown,
}

const ADDRESSES: u64 = rss::SOURCE | rss::DESTINATION;
const PORTS: u64 = rss::SOURCE_PORT | rss::DESTINATION_PORT;
/// Repeated, it spreads well: an odd number of bits, not in a row.
const REPEATED: [u8; 2] = [0x6d, 0x5a];

/// What an interface's hash does, and how many bytes its key has, as its driver says.
///
/// # Errors
/// EOPNOTSUPP: it says nothing. ENODEV: no such interface.
pub fn look(interface: &str) -> io::Result<(Spread, usize)> {
    let settings = Settings::read(interface)?;
    Ok((settings.spread(), settings.hash.key.len()))
}

/// The key by which both directions of a connection meet, as ethtool takes it.
pub fn symmetric_key(bytes: usize) -> String {
    hex(&repeated(bytes))
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

impl Spread {
    pub fn symmetric(self) -> Option<bool> {
        match self {
            Spread::OneQueue | Spread::ByTransform | Spread::ByKey => Some(true),
            Spread::Asymmetric => Some(false),
            Spread::Unknown => None,
        }
    }
}

/// As the driver says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Settings {
    hash: Hash,
    /// By [`Flow::ALL`]; `None` where the driver doesn't say.
    fields: [Option<u64>; Flow::ALL.len()],
}

impl Settings {
    fn read(interface: &str) -> io::Result<Settings> {
        let hash = rss::hash(interface)?;
        Ok(Settings { hash, fields: Flow::ALL.map(|flow| rss::fields(interface, flow).ok()) })
    }

    fn spread(&self) -> Spread {
        // One of a pair without the other differs for the two directions whatever the hash makes of it.
        let paired = |fields: u64| {
            [ADDRESSES, PORTS].iter().all(|pair| matches!(fields & pair, 0) || fields & pair == *pair)
        };
        if !self.fields.iter().flatten().all(|&fields| paired(fields)) {
            return Spread::Asymmetric;
        }
        if self.hash.transform & (rss::SYMMETRIC_XOR | rss::SYMMETRIC_OR_XOR) != 0 {
            return Spread::ByTransform;
        }
        match self.hash.function {
            rss::TOEPLITZ if self.hash.key.is_empty() => Spread::Unknown,
            rss::TOEPLITZ if repeats(&self.hash.key) => Spread::ByKey,
            rss::TOEPLITZ => Spread::Asymmetric,
            _ => Spread::Unknown,
        }
    }

    /// Fragments have no ports but for the first, and stay together only if ports don't count for UDP.
    fn keeps_fragments(&self) -> bool {
        let udp = Flow::ALL.iter().zip(self.fields).filter(|(flow, _)| is_udp(**flow));
        udp.filter_map(|(_, fields)| fields).all(|fields| fields & PORTS == 0)
    }
}

fn is_udp(flow: Flow) -> bool {
    matches!(flow, Flow::Udp4 | Flow::Udp6)
}

fn repeats(key: &[u8]) -> bool {
    key.iter().zip(key.iter().skip(REPEATED.len())).all(|(one, next)| one == next)
}

fn repeated(bytes: usize) -> Vec<u8> {
    REPEATED.iter().copied().cycle().take(bytes).collect()
}

/// An interface's hash, as it is and as it was. If it was changed, dropping this puts it back, as long as there is
/// the privilege to do so.
#[derive(Debug)]
pub struct Rss {
    interface: String,
    spread: Spread,
    /// What it was, if it was changed.
    before: Option<Settings>,
    /// Why it couldn't be made symmetric.
    refused: Option<String>,
}

impl Rss {
    /// Looks at an interface's hash and, if asked to, makes it symmetric.
    pub fn prepare(interface: &str, queues: u32, choice: Choice) -> Rss {
        let mut rss =
            Rss { interface: interface.to_owned(), spread: Spread::OneQueue, before: None, refused: None };
        if queues <= 1 {
            return rss;
        }
        match Settings::read(interface) {
            Ok(now) => {
                rss.spread = now.spread();
                if choice == Choice::Set && (rss.spread.symmetric() != Some(true) || !now.keeps_fragments()) {
                    rss.set(now);
                }
            }
            Err(error) => {
                rss.spread = Spread::Unknown;
                rss.refused = (choice == Choice::Set).then(|| error.to_string());
            }
        }
        rss
    }

    /// Whether both directions of a connection reach the same queue. `None`: not known.
    pub fn symmetric(&self) -> Option<bool> {
        self.spread.symmetric()
    }

    fn set(&mut self, before: Settings) {
        let mut refused = self.set_fields(&before);
        if before.spread().symmetric() != Some(true) {
            let Hash { function, transform, ref key } = before.hash;
            // The transformations spread better, the key is older. What is 0 or empty stays as it is.
            let wanted = [
                Hash { function: 0, transform: rss::SYMMETRIC_XOR, key: Vec::new() },
                Hash { function: 0, transform: rss::SYMMETRIC_OR_XOR, key: Vec::new() },
                Hash {
                    function: if function == rss::TOEPLITZ { 0 } else { rss::TOEPLITZ },
                    transform,
                    key: repeated(key.len()),
                },
            ];
            for to in wanted {
                let done = rss::set_hash(&self.interface, &to);
                refused = done.err().map(|error| error.to_string());
                if refused.is_none() {
                    break;
                }
            }
        }
        // What counts is what the driver says afterwards.
        let now = Settings::read(&self.interface).unwrap_or_default();
        self.spread = now.spread();
        self.refused = refused.filter(|_| self.spread.symmetric() != Some(true));
        self.before = (now != before).then_some(before);
    }

    /// Addresses alone for UDP, so that fragments stay together.
    fn set_fields(&self, before: &Settings) -> Option<String> {
        let mut refused = None;
        for (&flow, fields) in Flow::ALL.iter().zip(before.fields) {
            if is_udp(flow)
                && fields.is_some_and(|fields| fields & PORTS != 0)
                && let Err(error) = rss::set_fields(&self.interface, flow, ADDRESSES)
            {
                refused = Some(error.to_string());
            }
        }
        refused
    }

    /// What to type to have it as it was, if it was changed.
    pub fn undo_words(&self) -> Option<String> {
        let before = self.before.as_ref()?;
        let mut words = match self.spread {
            Spread::ByTransform => format!("ethtool -X {} xfrm none", self.interface),
            _ => format!("ethtool -X {} hkey {}", self.interface, hex(&before.hash.key)),
        };
        for (&flow, fields) in Flow::ALL.iter().zip(before.fields) {
            if is_udp(flow) && fields.is_some_and(|fields| fields & PORTS != 0) {
                words += &format!("; ethtool -N {} rx-flow-hash {} sdfn", self.interface, flow.name());
            }
        }
        Some(words)
    }
}

impl Drop for Rss {
    fn drop(&mut self) {
        let Some(before) = &self.before else { return };
        // Without the privilege, which a run gives up once all is set up, it stays, as was said at the start.
        let _ = rss::set_hash(&self.interface, &before.hash);
        for (&flow, fields) in Flow::ALL.iter().zip(before.fields) {
            if let Some(fields) = fields.filter(|_| is_udp(flow)) {
                let _ = rss::set_fields(&self.interface, flow, fields);
            }
        }
    }
}

/// Whether both directions of a connection meet, in words.
impl fmt::Display for Rss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.spread {
            Spread::OneQueue => f.write_str("both directions of a connection come to its one queue"),
            Spread::ByTransform => f.write_str(
                "symmetric by the driver's transformation (verified): both directions of a connection meet",
            ),
            Spread::ByKey => f.write_str("symmetric by key (verified): both directions of a connection meet"),
            Spread::Asymmetric => f.write_str("hash not symmetric: the directions of a connection part"),
            Spread::Unknown => {
                f.write_str("its driver doesn't say whether both directions of a connection meet in one")
            }
        }?;
        self.refused.iter().try_for_each(|why| write!(f, "; it can't be set ({why})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Toeplitz's sum as Microsoft describes it: of the key, the 32 bits beside each bit of the input that is set.
    fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
        let bit = |bytes: &[u8], at: usize| u32::from(bytes[at / 8] >> (7 - at % 8) & 1);
        let window = |at: usize| (0..32).fold(0, |sum, next| sum << 1 | bit(key, at + next));
        (0..input.len() * 8).filter(|&at| bit(input, at) == 1).fold(0, |hash, at| hash ^ window(at))
    }

    #[test]
    fn the_sum_is_toeplitzs() {
        // From Microsoft's "Verifying the RSS Hash Calculation": 66.9.149.187:2794 to 161.142.100.80:1766.
        let key = [
            0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
            0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
            0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
        ];
        let input = [66, 9, 149, 187, 161, 142, 100, 80, 0x0a, 0xea, 0x06, 0xe6];
        assert_eq!(toeplitz(&key, &input), 0x51cc_c178);
        assert!(!repeats(&key));
    }

    #[test]
    fn the_repeated_key_gives_both_directions_one_sum_and_spreads() {
        let key = repeated(40);
        assert!(repeats(&key) && key.len() == 40);
        let mut lowest = [0_u32; 8];
        for n in 0..512_u32 {
            let (client, server) = (n.wrapping_mul(2_654_435_761).to_be_bytes(), (n / 7 + 99).to_be_bytes());
            let (port, service) = ((n as u16).wrapping_mul(40_503).to_be_bytes(), 443_u16.to_be_bytes());
            let there = [&client[..], &server, &port, &service].concat();
            let back = [&server[..], &client, &service, &port].concat();
            assert_eq!(toeplitz(&key, &there), toeplitz(&key, &back));
            lowest[toeplitz(&key, &there) as usize % 8] += 1;
            // IPv6 without ports: the windows are 128 bits apart.
            let long = |one: [u8; 4], other: [u8; 4]| [[one; 4].concat(), [other; 4].concat()].concat();
            assert_eq!(toeplitz(&key, &long(client, server)), toeplitz(&key, &long(server, client)));
        }
        assert!(lowest.iter().all(|&count| count > 32), "{lowest:?}");
    }

    fn settings(function: u8, transform: u8, key: &[u8], fields: u64) -> Settings {
        let hash = Hash { function, transform, key: key.to_vec() };
        Settings { hash, fields: [Some(fields), Some(ADDRESSES), None, None] }
    }

    #[test]
    fn a_hash_is_symmetric_by_transform_or_by_key_and_only_with_fields_in_pairs() {
        let (all, random) = (ADDRESSES | PORTS, [1, 2, 3, 4, 5, 6]);
        let cases = [
            (settings(rss::TOEPLITZ, 0, &random, all), Spread::Asymmetric),
            (settings(rss::TOEPLITZ, 0, &repeated(52), all), Spread::ByKey),
            (settings(rss::TOEPLITZ, 0, &repeated(52), ADDRESSES | rss::SOURCE_PORT), Spread::Asymmetric),
            (settings(rss::TOEPLITZ, 0, &[], all), Spread::Unknown),
            (settings(rss::TOEPLITZ, rss::SYMMETRIC_XOR, &random, all), Spread::ByTransform),
            (settings(rss::TOEPLITZ, rss::SYMMETRIC_OR_XOR, &random, all), Spread::ByTransform),
            (settings(rss::TOEPLITZ, rss::SYMMETRIC_XOR, &random, rss::SOURCE), Spread::Asymmetric),
            (settings(1 << 1, 0, &random, all), Spread::Unknown),
        ];
        for (settings, spread) in cases {
            assert_eq!(settings.spread(), spread, "{settings:?}");
        }
    }

    #[test]
    fn fragments_stay_together_without_ports() {
        let mut settings = settings(rss::TOEPLITZ, 0, &[], ADDRESSES | PORTS);
        assert!(settings.keeps_fragments());
        settings.fields[1] = Some(ADDRESSES | PORTS);
        assert!(!settings.keeps_fragments());
    }

    #[test]
    fn what_has_no_hash_is_unknown_and_one_queue_needs_none() {
        assert_eq!(look("lo").unwrap_err().kind(), io::ErrorKind::Unsupported);
        let rss = Rss::prepare("lo", 2, Choice::Set);
        assert_eq!((rss.symmetric(), rss.undo_words()), (None, None));
        assert!(rss.to_string().contains("can't be set"), "{rss}");
        assert_eq!(Rss::prepare("lo", 1, Choice::Set).symmetric(), Some(true));
    }

    #[test]
    fn how_to_undo_it_is_said() {
        let before = settings(rss::TOEPLITZ, 0, &[0xad, 0xd6], ADDRESSES);
        let mut rss = Rss {
            interface: "no-such-if".to_owned(),
            spread: Spread::ByKey,
            before: Some(before),
            refused: None,
        };
        assert_eq!(rss.undo_words().unwrap(), "ethtool -X no-such-if hkey ad:d6");
        rss.before.as_mut().unwrap().fields[3] = Some(ADDRESSES | PORTS);
        rss.spread = Spread::ByTransform;
        let words = "ethtool -X no-such-if xfrm none; ethtool -N no-such-if rx-flow-hash udp6 sdfn";
        assert_eq!(rss.undo_words().unwrap(), words);
    }
}
