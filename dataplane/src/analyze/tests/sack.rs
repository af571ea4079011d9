//! Selective acknowledgements: what well-behaved receivers say, however odd it looks from here, and what none would.

use super::*;

impl Talk {
    /// B acknowledges `ack` and has this block; tells whether that can't be.
    fn garbled(&mut self, ack: u32, window: u16, (left, right): (u32, u32)) -> bool {
        let edge = |edge: u32| edge.wrapping_add(self.isn).to_be_bytes();
        let options = [&[1, 1, 5, 10], &edge(left)[..], &edge(right)].concat();
        self.take(MS, Seg::new(false, ACK, 1, ack).window(window).options(&options));
        self.out.events.contains(Event::SackGarbled)
    }

    /// A sends so many segments of 1,000 bytes from its first one on.
    fn upload(&mut self, segments: u32) -> &mut Talk {
        self.handshake();
        (0..segments).for_each(|n| self.take(MS, Seg::new(true, ACK, 1 + n * 1000, 1).data(1000)).done());
        self
    }
}

#[test]
fn blocks_of_healthy_receivers() {
    twice(|t| {
        assert!(!t.upload(300).garbled(1, 1000, (1001, 2001)), "the first segment is missing");
        t.take(MS, Seg::new(false, ACK, 1, 300_001).window(0));
        assert!(!t.garbled(300_001, 0, (1, 1001)), "it came twice, and the window is full of what followed");
        assert!(!t.garbled(300_001, 0, (0, 1)), "the SYN came twice");
        assert!(!t.garbled(299_001, 500, (300_001, 300_002)), "an old acknowledgement, late; of a FIN");
        assert!(!t.garbled(300_001, 500, (1001, 1001)), "of nothing");
    });
    twice(|t| {
        t.upload(1).take(MS, Seg::new(false, ACK, 1, 1001).window(500));
        assert!(
            !t.garbled(1001, 60_000, (200_001, 201_001)),
            "the tap missed what the wider window let through"
        );
    });
    twice(|t| {
        let picked_up = t.take(MS, Seg::new(true, ACK, 1, 1).data(1000));
        assert!(!picked_up.garbled(1, 501, (2_000_001, 2_001_001)), "a repeat was the first that was seen");
        assert!(!picked_up.garbled(
            2_001_001,
            501,
            (0_u32.wrapping_sub(9_000_000), 0_u32.wrapping_sub(8_999_000))
        ));
    });
}

#[test]
fn blocks_that_were_left_behind() {
    for shift in [1 << 20, 1 << 25, 0x7fff_ffff, 0x8000_0000, 0xff00_0000, 0xffff_fc00] {
        twice(|t| {
            let block = (1001_u32.wrapping_add(shift), 2001_u32.wrapping_add(shift));
            assert!(t.upload(3).garbled(1, 1000, block), "moved on by {shift:#x}");
            assert!(t.garbled(1, 1000, block));
            assert_eq!(t.flow.rare.sack_garbled, [0, 2]);
        });
    }
    twice(|t| {
        assert!(t.upload(3).garbled(1, 1000, (2001, 1001)), "it ends before it begins");
        assert!(t.garbled(1, 1000, (1001, 0x4000_0000)));
    });
}
