//! Whose packets pass this capture point, and whose don't: a mirror of one direction, or a path that differs there and
//! back, shows hosts that plainly act and are never seen. What such a host did not say, nobody knows. Worker's thread;
//! fixed in size, never allocates after start. Written once or twice a connection, read when a rule is asked about a
//! silence; the sums go to the ledger.

use crate::decode::Address;

/// Hosts known at a time.
const HOSTS: usize = 4096;
/// Cells looked at before the first of them gives way.
const PROBES: usize = 4;
/// Counts are halved here, so that the newest weigh most.
const FULL: u16 = 64;
/// A host is out of sight if so many in a hundred of its connections were.
const OUT_OF_SIGHT: u64 = 25;

#[derive(Clone, Copy, Debug, Default, bytemuck::Zeroable)]
#[repr(C)]
struct Cell {
    addr: Address,
    seen: u16,
    unseen: u16,
    spare: [u16; 2],
}

/// What a capture shows of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Both ends were seen.
    pub whole: u64,
    /// One end was never seen, though the other went on as answered.
    pub one_sided: u64,
}

/// One worker's table.
#[derive(Debug)]
pub struct Sightings {
    cells: Box<[Cell]>,
    pub connections: Shown,
}

impl Default for Sightings {
    fn default() -> Sightings {
        Sightings { cells: bytemuck::zeroed_slice_box(HOSTS), connections: Shown::default() }
    }
}

impl Sightings {
    /// A connection came about: was `host`, the end that might be missing, seen in it?
    pub fn connection(&mut self, host: Address, seen: bool) {
        let sum = if seen { &mut self.connections.whole } else { &mut self.connections.one_sided };
        *sum += 1;
        self.host(host, seen);
    }

    /// `host` said something here, or said it where this capture does not see it.
    pub fn host(&mut self, host: Address, seen: bool) {
        let at = self.find(host).unwrap_or_else(|| place(host, 0));
        let cell = &mut self.cells[at];
        if cell.addr != host {
            *cell = Cell { addr: host, ..Cell::default() };
        }
        let count = if seen { &mut cell.seen } else { &mut cell.unseen };
        *count += 1;
        if *count >= FULL {
            (cell.seen, cell.unseen) = (cell.seen / 2, cell.unseen / 2);
        }
    }

    /// Starts loading what is known of a host.
    #[inline]
    pub fn prefetch(&self, host: Address) {
        dataplane_sys::prefetch(&self.cells[place(host, 0)]);
    }

    /// Whether the host's packets pass here; `None` if nothing tells.
    pub fn passes(&self, host: Address) -> Option<bool> {
        let cell = &self.cells[self.find(host)?];
        mostly(cell.seen.into(), cell.unseen.into())
    }

    /// Whether both directions of connections do.
    pub fn both_ways(&self) -> Option<bool> {
        mostly(self.connections.whole, self.connections.one_sided)
    }

    fn find(&self, host: Address) -> Option<usize> {
        let near = (0..PROBES).map(|probe| place(host, probe));
        let mut free = None;
        for at in near {
            let cell = &self.cells[at];
            if cell.addr == host {
                return Some(at);
            }
            if free.is_none() && cell.seen == 0 && cell.unseen == 0 {
                free = Some(at);
            }
        }
        free
    }
}

fn mostly(seen: u64, unseen: u64) -> Option<bool> {
    let all = seen + unseen;
    (all > 0).then(|| unseen * 100 < all * OUT_OF_SIGHT)
}

fn place(host: Address, probe: usize) -> usize {
    let mixed = (host[0].rotate_left(32) ^ host[1]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 40) as usize).wrapping_add(probe) & (HOSTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Address = [0, 1];
    const B: Address = [0, 2];

    #[test]
    fn nothing_seen_is_nothing_known() {
        assert_eq!((Sightings::default().passes(A), Sightings::default().both_ways()), (None, None));
    }

    #[test]
    fn a_host_is_known_by_its_own_connections() {
        let mut sightings = Sightings::default();
        (0..10).for_each(|_| sightings.connection(A, true));
        assert_eq!((sightings.passes(A), sightings.passes(B)), (Some(true), None));
        sightings.connection(B, false);
        assert_eq!((sightings.passes(A), sightings.passes(B)), (Some(true), Some(false)));
        assert_eq!(sightings.both_ways(), Some(true));
        assert_eq!(sightings.connections, Shown { whole: 10, one_sided: 1 });
    }

    #[test]
    fn one_packet_missed_in_many_hides_no_host_and_a_route_that_changed_does() {
        let mut sightings = Sightings::default();
        (0..200).for_each(|_| sightings.connection(A, true));
        sightings.connection(A, false);
        assert_eq!(sightings.passes(A), Some(true));
        (0..30).for_each(|_| sightings.connection(A, false));
        assert_eq!(sightings.passes(A), Some(false), "the newest weigh most");
    }

    #[test]
    fn a_full_table_forgets() {
        let mut sightings = Sightings::default();
        (0..100_000).for_each(|n| sightings.host([0, n + 10], true));
        let known = (0..100_000).filter(|n| sightings.passes([0, n + 10]).is_some()).count();
        assert!((HOSTS / 2..=HOSTS).contains(&known), "{known}");
    }
}
