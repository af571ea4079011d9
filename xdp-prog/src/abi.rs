//! Mirror of abi.h: what the program in the kernel writes and the program that loaded it reads. Plain values,
//! used by any thread.

/// What became of a packet that the capture program saw (`enum outcome`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// Handed to the socket of its queue. Whether that took it, the socket counts.
    Redirected,
    /// No socket has this queue: left to the kernel, as if nobody were capturing.
    NoSocket,
    /// Besides: handed over without a time stamp, because the driver leaves no room before the packet.
    Unstamped,
    /// Not wanted by the filter: dropped, or left to the kernel where the host needs its packets.
    Filtered,
    /// Besides: of these, those with a VLAN tag, behind which a filter doesn't look unless told to.
    FilteredTagged,
    /// Besides: handed over though the filter doesn't name it, because it belongs to what the filter wants.
    Related,
}

impl Outcome {
    pub const ALL: [Outcome; 6] = [
        Outcome::Redirected,
        Outcome::NoSocket,
        Outcome::Unstamped,
        Outcome::Filtered,
        Outcome::FilteredTagged,
        Outcome::Related,
    ];
}

/// The programs of the filter's chain, by their place in the map of steps (`enum step`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ChainStep {
    Filter,
    Quoted,
    Second,
    Take,
    Related,
    Refuse,
}

impl ChainStep {
    pub const ALL: [ChainStep; 6] = [
        ChainStep::Filter,
        ChainStep::Quoted,
        ChainStep::Second,
        ChainStep::Take,
        ChainStep::Related,
        ChainStep::Refuse,
    ];
}

/// Packets and bytes of one outcome (`struct tally`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Tally {
    pub packets: u64,
    pub bytes: u64,
}

impl Tally {
    /// From the bytes of a map's value; `None` if they are not a tally's.
    pub fn read(value: &[u8]) -> Option<Tally> {
        let (packets, bytes) = value.split_first_chunk::<8>()?;
        let bytes = bytes.first_chunk::<8>()?;
        Some(Tally { packets: u64::from_ne_bytes(*packets), bytes: u64::from_ne_bytes(*bytes) })
    }
}

/// Bytes of `struct stamp`, which lies right before the packet's first byte: CLOCK_MONOTONIC in ns, or, with
/// [`STAMP_BY_NIC`] set, the card's clock.
pub const STAMP_BYTES: usize = 8;
pub const STAMP_BY_NIC: u64 = 1 << 63;

const _: () = assert!(size_of::<Tally>() == 16);

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use libbpf_rs::btf::{Btf, HasSize, types};

    use super::*;

    const HEADER: &str = include_str!("abi.h");

    /// The lines between `head {` and `};`, without comments.
    fn body(head: &str) -> Vec<&'static str> {
        let (_, rest) = HEADER.split_once(&format!("{head} {{\n")).unwrap();
        let lines = rest.lines().map(str::trim).take_while(|line| *line != "};");
        lines.filter(|line| !line.starts_with("/*")).collect()
    }

    #[test]
    fn outcomes_have_the_numbers_that_the_program_counts_under() {
        let here = Outcome::ALL.map(|outcome| match outcome {
            Outcome::Redirected => "OUTCOME_REDIRECTED,",
            Outcome::NoSocket => "OUTCOME_NO_SOCKET,",
            Outcome::Unstamped => "OUTCOME_UNSTAMPED,",
            Outcome::Filtered => "OUTCOME_FILTERED,",
            Outcome::FilteredTagged => "OUTCOME_FILTERED_TAGGED,",
            Outcome::Related => "OUTCOME_RELATED,",
        });
        assert!(Outcome::ALL.iter().enumerate().all(|(number, outcome)| *outcome as usize == number));
        assert_eq!(body("enum outcome"), [&here[..], &["OUTCOMES,"]].concat());
    }

    #[test]
    fn steps_are_where_the_program_looks_for_them() {
        let here = ChainStep::ALL.map(|step| match step {
            ChainStep::Filter => "STEP_FILTER,",
            ChainStep::Quoted => "STEP_QUOTED,",
            ChainStep::Second => "STEP_SECOND,",
            ChainStep::Take => "STEP_TAKE,",
            ChainStep::Related => "STEP_RELATED,",
            ChainStep::Refuse => "STEP_REFUSE,",
        });
        assert!(ChainStep::ALL.iter().enumerate().all(|(number, step)| *step as usize == number));
        assert_eq!(body("enum step"), [&here[..], &["STEPS,"]].concat());
        // The translated filter reads it by these offsets.
        assert_eq!(body("struct look"), ["__u32 shift;", "__u32 from;"]);
    }

    #[test]
    fn a_tally_is_laid_out_as_in_the_object() {
        let object = Btf::from_path(concat!(env!("OUT_DIR"), "/capture.bpf.o")).unwrap();
        let tally: types::Struct<'_> = object.type_by_name("tally").unwrap();
        let fields = tally.iter().map(|member| {
            let types::MemberAttr::Normal { offset } = member.attr else { panic!("a bit field") };
            (member.name.unwrap().to_str().unwrap(), offset as usize / 8)
        });
        let here = [("packets", offset_of!(Tally, packets)), ("bytes", offset_of!(Tally, bytes))];
        assert!(fields.eq(here));
        assert_eq!(tally.size(), size_of::<Tally>());
        assert_eq!(body("struct tally"), ["__u64 packets;", "__u64 bytes;"]);
        let bytes: Vec<u8> = [7_u64, 300].iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(Tally::read(&bytes), Some(Tally { packets: 7, bytes: 300 }));
        assert_eq!(Tally::read(&bytes[..15]), None);
    }

    #[test]
    fn a_stamp_is_one_number() {
        assert_eq!(body("struct stamp"), ["__u64 ns;"]);
        assert_eq!(STAMP_BYTES, size_of::<u64>());
        assert!(HEADER.contains("#define STAMP_BY_NIC (1ULL << 63)") && STAMP_BY_NIC == 1 << 63);
    }
}
