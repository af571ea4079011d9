//! An expression as classic BPF. A long list of hosts or nets is compiled in pieces, since libpcap's optimiser takes a time
//! that grows with the cube of an expression's length (1,000 hosts: a minute), and the pieces are joined. They are also
//! shorter than the whole (2,144 instructions instead of 5,759), which has few jumps that reach.
//!
//! Main thread, before packets come; a file's worker, where a file brings another link type. Pure but for what libpcap does.

use std::collections::BTreeSet;

use dataplane_sys::pcap;
use xdp_prog::filter::Instruction;

use super::FilterError;

/// Terms of a list that are compiled together.
const PIECE: usize = 128;

/// libpcap's instructions that end a program with a refusal, and that jump.
const RETURN: u16 = 0x06;
const RETURN_A: u16 = 0x16;
const JUMP: u16 = 0x05;

/// For packets of this link type (a LINKTYPE_ number).
///
/// # Errors
/// libpcap's, in its own words.
pub(super) fn compile(expression: &str, link: u16) -> Result<Vec<Instruction>, FilterError> {
    let Some(pieces) = pieces(expression) else { return whole(expression, link) };
    let codes: Option<Vec<_>> = pieces.iter().map(|piece| whole(piece, link).ok()).collect();
    match codes.and_then(any_of) {
        Some(code) => Ok(code),
        // What is wrong is said of the whole.
        None => whole(expression, link),
    }
}

fn whole(expression: &str, link: u16) -> Result<Vec<Instruction>, FilterError> {
    let code = pcap::compile(expression, dlt(link))?.into_iter();
    Ok(code.map(|pcap::Instruction { code, jt, jf, k }| Instruction { code, jt, jf, k }).collect())
}

/// libpcap's own number (DLT_) for a link type of files, on Linux.
fn dlt(link: u16) -> i32 {
    match link {
        // Raw IP has had several.
        12 | 14 | 101 => 12,
        same => same.into(),
    }
}

/// A program that wants what any of these wants: where one refuses, the next begins. What reaches beyond a packet's end
/// refuses it for all, as it does where they are alternatives of one expression. `None` if one's end can't be told.
pub(super) fn any_of(codes: Vec<Vec<Instruction>>) -> Option<Vec<Instruction>> {
    let mut all = Vec::new();
    let last = codes.len().checked_sub(1)?;
    for (number, mut code) in codes.into_iter().enumerate() {
        let length = code.len();
        for (at, insn) in code.iter_mut().enumerate().filter(|_| number < last) {
            match (insn.code, insn.k) {
                (RETURN, 0) => {
                    *insn = Instruction { code: JUMP, k: u32::try_from(length - at - 1).ok()?, ..*insn }
                }
                (RETURN_A, _) => return None,
                _ => {}
            }
        }
        all.append(&mut code);
    }
    Some(all)
}

/// The parts of a list of IPv4 hosts and nets, if the expression is nothing else and long. All sources come before all
/// destinations, as libpcap's optimiser has them: of a packet that is cut between the two, only those can decide.
fn pieces(expression: &str) -> Option<Vec<String>> {
    let mut words = expression.split_whitespace();
    let (mut sources, mut destinations, mut known) = (Vec::new(), Vec::new(), BTreeSet::new());
    loop {
        let Term { side, what } = Term::read(&mut words)?;
        for (one, terms) in [("src", &mut sources), ("dst", &mut destinations)] {
            let term = format!("{one} {what}");
            if side.is_none_or(|side| side == one) && known.insert(term.clone()) {
                terms.push(term);
            }
        }
        match words.next() {
            None => break,
            Some("or" | "||") => {}
            Some(_) => return None,
        }
    }
    let long = sources.len().max(destinations.len()) > PIECE;
    let pieces = sources.chunks(PIECE).chain(destinations.chunks(PIECE));
    long.then(|| pieces.map(|terms| terms.join(" or ")).collect())
}

/// Such as `host 10.0.0.1` or `src net 10.0.0.0/8`: whole in itself, and without a say in how the next are read.
struct Term<'a> {
    side: Option<&'a str>,
    what: String,
}

impl<'a> Term<'a> {
    fn read(words: &mut impl Iterator<Item = &'a str>) -> Option<Term<'a>> {
        let first = words.next()?;
        let side = Some(first).filter(|word| ["src", "dst"].contains(word));
        let kind = if side.is_some() { words.next()? } else { first };
        let value = words.next().filter(|_| ["host", "net"].contains(&kind))?;
        let plain = value.bytes().all(|byte| byte.is_ascii_digit() || b"./".contains(&byte));
        plain.then(|| Term { side, what: format!("{kind} {value}") })
    }
}

#[cfg(test)]
mod tests {
    use xdp_prog::filter::Program;

    use super::super::vm::{Shift, View, wants};
    use super::*;

    const ETHERNET: u16 = 1;

    fn hosts(count: u32) -> String {
        let host = |n: u32| {
            let [.., b, c, d] = n.wrapping_mul(2_654_435_761).to_be_bytes();
            format!("host 10.{b}.{c}.{d}")
        };
        (0..count).map(host).collect::<Vec<_>>().join(" or ")
    }

    #[test]
    fn only_plain_lists_are_taken_apart() {
        let long = hosts(300);
        let pieces_of = |expression: &str| pieces(expression).map(|pieces| pieces.len());
        assert_eq!(pieces_of(&long), Some(6));
        assert_eq!(pieces_of(&hosts(PIECE as u32)), None, "libpcap is quick enough");
        assert_eq!(pieces_of(&format!("{long} or {long}")), Some(6), "once is enough");
        assert_eq!(pieces_of(&format!("{long} || dst net 10.0.0.0/8")), Some(6));
        assert_eq!(pieces_of(&long.replace("host", "src host")), Some(3));
        for more in [
            " and port 80",
            " or 10.0.0.1",
            " or not host 10.0.0.1",
            " or host a.example",
            " or host ::1",
            " or net 10.0.0.0 mask 255.0.0.0",
            " or src port 80",
            " or vlan",
            " or",
            ") or host 1.1.1.1",
        ] {
            assert_eq!(pieces_of(&format!("{long}{more}")), None, "{more}");
        }
    }

    /// A frame with these words of its addresses, of this kind, cut after so many bytes.
    fn frame(kind: [u8; 2], src: &[u8], dst: &[u8], len: usize) -> Vec<u8> {
        let mut frame = vec![0; 64];
        frame[12..14].copy_from_slice(&kind);
        let at = if kind == [8, 6] { [28, 38] } else { [26, 30] };
        frame[at[0]..at[0] + 4].copy_from_slice(src);
        frame[at[1]..at[1] + 4].copy_from_slice(dst);
        frame.truncate(len);
        frame
    }

    #[test]
    fn a_list_in_pieces_decides_as_the_whole() {
        /// EtherTypes, and bytes there are of a frame: all, cut between the addresses, cut before them.
        const KINDS: [([u8; 2], usize); 7] = [
            ([8, 0], 64),
            ([8, 6], 64),
            ([0x86, 0xdd], 64),
            ([0x81, 0], 64),
            ([8, 0], 30),
            ([8, 6], 36),
            ([8, 0], 13),
        ];
        let text = hosts(200);
        let alone = match whole(&text, ETHERNET) {
            Err(error) if error.is_library() => return println!("skipped: no libpcap on this host"),
            code => Program::check(&code.unwrap()).unwrap(),
        };
        let joined = Program::check(&compile(&text, ETHERNET).unwrap()).unwrap();
        assert!(joined != alone && !joined.loops());
        let (mut wanted, mut seen) = (0, 0);
        for n in 0..400_u32 {
            let [.., b, c, d] = n.wrapping_mul(2_654_435_761).to_be_bytes();
            let (here, there) = ([10, b, c, d], [192, 0, 2, n as u8]);
            for (kind, len) in KINDS {
                for bytes in [frame(kind, &here, &there, len), frame(kind, &there, &here, len)] {
                    let view = View { bytes: &bytes, wire_len: bytes.len() as u32, shift: Shift::default() };
                    assert_eq!(wants(&joined, view), wants(&alone, view), "{bytes:?}");
                    wanted += u32::from(wants(&alone, view));
                    seen += 1;
                }
            }
        }
        assert!(wanted > 400 && wanted < seen / 2, "{wanted} of {seen}");
    }

    #[test]
    fn what_is_wrong_in_a_list_is_said_in_libpcaps_words() {
        let error = compile(&format!("{} or host 10.0.0.999", hosts(200)), ETHERNET).unwrap_err();
        assert!(error.is_library() || error.to_string().contains("999"), "{error}");
    }
}
