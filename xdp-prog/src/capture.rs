//! The capture program, loaded: sized for an interface's queues, given its sockets, asked for its counters.
//! Main thread only; attaching it is for whoever opens the interface.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::LoadError;
use crate::abi::{ChainStep, Outcome, Tally};
use crate::skeletons::capture::CaptureSkelBuilder;

/// Of every packet, exactly one of these is counted.
const SEEN: [Outcome; 3] = [Outcome::Redirected, Outcome::NoSocket, Outcome::Filtered];

/// What the program counted since it was loaded, by [`Outcome`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallies([Tally; Outcome::ALL.len()]);

impl Tallies {
    pub fn of(&self, outcome: Outcome) -> Tally {
        self.0[outcome as usize]
    }

    /// Packets seen: each was either redirected, or had no socket, or was not wanted.
    pub fn seen(&self) -> u64 {
        SEEN.map(|what| self.of(what).packets).iter().sum()
    }

    pub fn seen_bytes(&self) -> u64 {
        SEEN.map(|what| self.of(what).bytes).iter().sum()
    }

    /// The same without what sockets were given.
    pub fn not_redirected(mut self) -> Tallies {
        self.0[Outcome::Redirected as usize] = Tally::default();
        self
    }

    /// What was counted since then.
    pub fn since(&self, earlier: &Tallies) -> Tallies {
        let mut since = *self;
        for (now, then) in since.0.iter_mut().zip(&earlier.0) {
            now.packets = now.packets.saturating_sub(then.packets);
            now.bytes = now.bytes.saturating_sub(then.bytes);
        }
        since
    }
}

/// What a program with a filter does besides asking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filtering {
    /// Later fragments and ICMP errors of what is wanted pass, too.
    pub relations: bool,
    /// What is not wanted goes to the kernel.
    pub pass_refused: bool,
}

/// The loaded program with maps of its own. Dropping it unloads it, unless it is still attached.
#[derive(Debug)]
pub struct Capture {
    program: OwnedFd,
    sockets: MapHandle,
    outcomes: MapHandle,
    /// The kernel empties the map of steps when nobody has it open.
    chain: Option<Chain>,
}

/// What the steps of a filter's chain share.
#[derive(Debug)]
struct Chain {
    steps: MapHandle,
    looks: MapHandle,
}

impl Capture {
    /// Loads the program for an interface with this many receive queues: the one for `jumbo` frames, which come
    /// in several buffers, or the one for frames that fit one.
    ///
    /// # Errors
    /// The kernel refuses it: missing privilege (EPERM), or a kernel without what it uses.
    pub fn load(queues: u32, jumbo: bool) -> Result<Capture, LoadError> {
        Capture::load_for(queues, jumbo, None)
    }

    /// The same with a filter, which is still to be put into its place ([`Capture::put`]): until then, packets are
    /// left to the kernel.
    ///
    /// # Errors
    /// As for [`Capture::load`].
    pub fn load_filtered(queues: u32, jumbo: bool, filtering: Filtering) -> Result<Capture, LoadError> {
        Capture::load_for(queues, jumbo, Some(filtering))
    }

    fn load_for(queues: u32, jumbo: bool, filtering: Option<Filtering>) -> Result<Capture, LoadError> {
        let mut place = MaybeUninit::uninit();
        let mut skeleton = CaptureSkelBuilder::default().open(&mut place)?;
        skeleton.maps.sockets.set_max_entries(queues)?;
        let chained = filtering.is_some();
        let (maps, progs) = (&mut skeleton.maps, &mut skeleton.progs);
        for map in [&mut maps.steps, &mut maps.looks, &mut maps.fragmented] {
            map.set_autocreate(chained)?;
        }
        if let (Some(filtering), Some(settings)) = (filtering, maps.rodata_data.as_deref_mut()) {
            settings.relations = u8::from(filtering.relations);
            settings.pass_refused = u8::from(filtering.pass_refused);
        }
        progs.capture.set_autoload(!jumbo && !chained);
        progs.capture_jumbo.set_autoload(jumbo && !chained);
        for small in [
            &mut progs.filtered,
            &mut progs.taken,
            &mut progs.related,
            &mut progs.refused,
            &mut progs.seconded,
        ] {
            small.set_autoload(!jumbo && chained);
        }
        for large in [
            &mut progs.filtered_jumbo,
            &mut progs.taken_jumbo,
            &mut progs.related_jumbo,
            &mut progs.refused_jumbo,
            &mut progs.seconded_jumbo,
        ] {
            large.set_autoload(jumbo && chained);
        }
        let skeleton = skeleton.load()?;
        let progs = &skeleton.progs;
        let program = match (chained, jumbo) {
            (false, false) => progs.capture.as_fd(),
            (false, true) => progs.capture_jumbo.as_fd(),
            (true, false) => progs.filtered.as_fd(),
            (true, true) => progs.filtered_jumbo.as_fd(),
        };
        let mut capture = Capture {
            program: program.try_clone_to_owned().map_err(libbpf_rs::Error::from)?,
            sockets: MapHandle::try_from(&skeleton.maps.sockets)?,
            outcomes: MapHandle::try_from(&skeleton.maps.outcomes)?,
            chain: None,
        };
        if chained {
            capture.chain = Some(Chain {
                steps: MapHandle::try_from(&skeleton.maps.steps)?,
                looks: MapHandle::try_from(&skeleton.maps.looks)?,
            });
            let steps = match jumbo {
                false => [&progs.seconded, &progs.taken, &progs.related, &progs.refused],
                true => {
                    [&progs.seconded_jumbo, &progs.taken_jumbo, &progs.related_jumbo, &progs.refused_jumbo]
                }
            };
            let names = [ChainStep::Second, ChainStep::Take, ChainStep::Related, ChainStep::Refuse];
            names
                .into_iter()
                .zip(steps)
                .try_for_each(|(step, program)| capture.put(step, program.as_fd()))?;
        }
        Ok(capture)
    }

    /// The map of steps, which a program made for the chain must know; `None` without a filter.
    pub fn steps(&self) -> Option<BorrowedFd<'_>> {
        self.chain.as_ref().map(|chain| chain.steps.as_fd())
    }

    /// The map that says where a quoted packet is (`struct look`).
    pub fn looks(&self) -> Option<BorrowedFd<'_>> {
        self.chain.as_ref().map(|chain| chain.looks.as_fd())
    }

    /// Puts a program into its place in the chain.
    ///
    /// # Errors
    /// It is of another kind than the others (EINVAL). Without a filter there is no chain, and nothing to do.
    pub fn put(&self, step: ChainStep, program: BorrowedFd<'_>) -> Result<(), LoadError> {
        let Some(chain) = &self.chain else { return Ok(()) };
        let fd = u32::try_from(program.as_raw_fd()).expect("an open file's number is not negative");
        let key = (step as u32).to_ne_bytes();
        Ok(chain.steps.update(&key, &fd.to_ne_bytes(), MapFlags::ANY)?)
    }

    /// From now on packets of `queue` go to `socket`, which must be bound to that queue.
    ///
    /// # Errors
    /// Those of the map: a queue beyond those it was loaded for (E2BIG), a file that is no AF_XDP socket.
    pub fn give(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), LoadError> {
        let fd = u32::try_from(socket.as_raw_fd()).expect("an open file's number is not negative");
        Ok(self.sockets.update(&queue.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)?)
    }

    /// From now on packets of `queue` go to no socket, if any did.
    ///
    /// # Errors
    /// A queue beyond those it was loaded for (EINVAL).
    pub fn take(&self, queue: u32) -> Result<(), LoadError> {
        Ok(self.sockets.delete(&queue.to_ne_bytes())?)
    }

    /// What the program counted so far, on all CPUs.
    ///
    /// # Errors
    /// Those of reading a map.
    pub fn tallies(&self) -> Result<Tallies, LoadError> {
        let mut tallies = Tallies::default();
        for outcome in Outcome::ALL {
            let key = (outcome as u32).to_ne_bytes();
            let values = self.outcomes.lookup_percpu(&key, MapFlags::ANY)?.unwrap_or_default();
            let sum = &mut tallies.0[outcome as usize];
            for one in values.iter().filter_map(|value| Tally::read(value)) {
                sum.packets += one.packets;
                sum.bytes += one.bytes;
            }
        }
        Ok(tallies)
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_counter_for_each_outcome() {
        let mut place = MaybeUninit::uninit();
        let skeleton = CaptureSkelBuilder::default().open(&mut place).unwrap();
        assert_eq!(skeleton.maps.outcomes.max_entries() as usize, Outcome::ALL.len());
    }
}
