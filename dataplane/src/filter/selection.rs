//! An expression as a judge of single packets, whatever of them is remembered.
//!
//! Compiled by whoever wants a selection (main, or the control thread); asked on the worker's thread, where it allocates
//! nothing and keeps nothing in mind: a later fragment is wanted only if the expression names it.

use xdp_prog::filter::Program;

use super::related::quoted_by;
use super::vm::{Shift, View, wants};
use super::{FilterError, compile};
use crate::source::LinkType;

/// An expression for packets of certain link types.
#[derive(Clone, Debug)]
pub struct Selection {
    /// By LINKTYPE_ number.
    programs: Box<[(u16, Program)]>,
}

impl Selection {
    /// Of a link type for which the expression means nothing, no packet is wanted.
    ///
    /// # Errors
    /// It means nothing for any of them.
    pub fn new(expression: &str, links: &[u16]) -> Result<Selection, FilterError> {
        let mut programs: Vec<(u16, Program)> = Vec::new();
        let mut refused = None;
        for link in links {
            if programs.iter().any(|(known, _)| known == link) {
                continue;
            }
            match compile(expression, *link) {
                Ok(program) => programs.push((*link, program)),
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(error) if programs.is_empty() => Err(error),
            _ => Ok(Selection { programs: programs.into_boxed_slice() }),
        }
    }

    /// Whether it wants this packet, or this is an ICMP error about one that it wants. `wire_len`: its length when it was
    /// whole.
    pub fn wants(&self, link: LinkType, number: u16, bytes: &[u8], wire_len: u32) -> bool {
        let Some((_, program)) = self.programs.iter().find(|(known, _)| *known == number) else {
            return false;
        };
        let view = View { bytes, wire_len, shift: Shift::default() };
        wants(program, view)
            || quoted_by(link, bytes).is_some_and(|shift| wants(program, View { shift, ..view }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::flags::SYN;
    use crate::decode::frames::Seg;

    #[test]
    fn a_packet_is_wanted_and_so_is_an_error_about_it() {
        let raw = LinkType::Raw.number();
        let selection = match Selection::new("tcp port 81", &[1, raw, 1]) {
            Err(error) if error.is_library() => {
                println!("skipped: no libpcap on this host");
                return;
            }
            selection => selection.unwrap(),
        };
        assert_eq!(selection.programs.len(), 2);
        let wants = |bytes: &[u8]| selection.wants(LinkType::Raw, raw, bytes, 1500);
        let mut syn = Seg::new(true, SYN, 0, 0).port(5).ip();
        let other = wants(&syn);
        let at = usize::from(syn[0] & 15) * 4;
        syn[at + 2..at + 4].copy_from_slice(&81_u16.to_be_bytes());
        assert!(wants(&syn) && !other);
        let header = [0x45, 0, 0, 56, 0, 1, 0, 0, 64, 1, 0, 0, 10, 9, 9, 9, 10, 0, 0, 1];
        let error = [&header[..], &[3, 1, 0, 0, 0, 0, 0, 0], &syn[..28]].concat();
        assert!(wants(&error));
        assert!(
            !wants(&[&header[..], &[8, 0, 0, 0, 0, 0, 0, 0], &syn[..28]].concat()),
            "an echo quotes none"
        );
        assert!(!selection.wants(LinkType::Raw, 113, &syn, 1500), "a link type nobody asked for");
        (0..syn.len()).for_each(|cut| assert!(cut > 30 || !wants(&syn[..cut])));
        let refused = Selection::new("hots 1", &[1, raw]).unwrap_err();
        assert_eq!(refused.to_string(), "can't parse filter expression: syntax error");
    }
}
