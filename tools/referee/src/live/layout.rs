//! How many workers there are, which queues are whose, and on which CPU each runs.
//!
//! Main thread, before any interface is touched: a queue's memory is taken near the CPU that will poll it.

use std::fs;
use std::path::Path;

use crate::config::{Config, Redispatch};
use crate::error::Failure;
use crate::term;

/// What is known of an interface beforehand.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Receive queues.
    pub queues: usize,
    /// CPUs of the memory it is attached to; none if nobody says.
    pub local: Vec<usize>,
}

/// Who does what where.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    pub workers: usize,
    /// By worker; empty if they are not kept on CPUs of their own.
    cores: Vec<usize>,
    /// The other CPUs.
    rest: Vec<usize>,
}

impl Layout {
    /// # Errors
    /// Usage: a CPU that was asked for is not to be had.
    pub fn new(config: &Config, ports: &[Wanted]) -> Result<Layout, Failure> {
        Layout::among(dataplane_sys::allowed_cores().unwrap_or_default(), config, ports)
    }

    /// Main, and the threads that are its children, keep to the CPUs that no worker has.
    pub fn settle(&self) {
        if self.cores.is_empty() {
            let cores = self.rest.len();
            term::note(&format!(
                "{} workers and {cores} CPUs: the workers are not kept on CPUs of their own",
                self.workers
            ));
        } else if !self.rest.is_empty() {
            // What the scheduler makes of it otherwise is slower, not wrong.
            let _ = dataplane_sys::pin_to_cores(&self.rest);
        }
    }

    fn among(allowed: Vec<usize>, config: &Config, ports: &[Wanted]) -> Result<Layout, Failure> {
        let queues = ports.iter().map(|port| port.queues).sum::<usize>().max(1);
        let most = match config.cores.len() {
            0 => allowed.len().saturating_sub(1).max(1),
            named => named,
        };
        let workers = match config.workers as usize {
            0 => queues.min(most),
            // Without a queue, and given nothing by others, one has nothing to do.
            asked if config.redispatch == Redispatch::Off => asked.min(queues),
            asked => asked,
        };
        if let Some(refused) = refused_core(&allowed, config) {
            return Err(refused);
        }
        let cores = match config.cores.is_empty() {
            true => chosen(&allowed, workers, ports),
            false => config.cores.iter().copied().take(workers).collect(),
        };
        let rest = allowed.into_iter().filter(|core| !cores.contains(core)).collect();
        Ok(Layout { workers, cores, rest })
    }

    /// The worker of a queue, by its number among those of all interfaces.
    pub fn worker_of(&self, queue: usize) -> usize {
        queue % self.workers
    }

    pub fn core_of(&self, worker: usize) -> Option<usize> {
        self.cores.get(worker).copied()
    }
}

/// Why these settings' CPUs are not to be had here.
pub fn without_core(config: &Config) -> Option<Failure> {
    refused_core(&dataplane_sys::allowed_cores().unwrap_or_default(), config)
}

fn refused_core(allowed: &[usize], config: &Config) -> Option<Failure> {
    let core = config.cores.iter().find(|core| !allowed.contains(core))?;
    let what = format!(
        "{}: `cores` names CPU {core}, which this program can't have on this host",
        config.cores_place
    );
    Some(Failure::usage(what).help(format!("it can have {allowed:?}")))
}

/// A CPU for each worker: of those near its first queue's interface if there are any left, from the highest down, since
/// the lowest is where the kernel does most of its work. With more workers than CPUs, none.
fn chosen(allowed: &[usize], workers: usize, ports: &[Wanted]) -> Vec<usize> {
    if workers > allowed.len() {
        return Vec::new();
    }
    let local = |worker: usize| {
        let mut first = worker;
        ports.iter().find_map(|port| {
            let here = (first < port.queues).then_some(&port.local);
            first = first.saturating_sub(port.queues);
            here
        })
    };
    let mut free = allowed.to_vec();
    let mut cores = Vec::new();
    for worker in 0..workers {
        let near = local(worker).and_then(|local| free.iter().rposition(|core| local.contains(core)));
        if let Some(index) = near.or(free.len().checked_sub(1)) {
            cores.push(free.remove(index));
        }
    }
    cores
}

/// CPUs near an interface, as the kernel says; empty if it says nothing, as of one that is no device.
pub fn local_cores(interface: &str) -> Vec<usize> {
    let path = Path::new("/sys/class/net").join(interface).join("device/local_cpulist");
    fs::read_to_string(path).map(|list| listed(list.trim())).unwrap_or_default()
}

/// "0-3,8" as the kernel writes it.
fn listed(list: &str) -> Vec<usize> {
    let mut cores = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cores.extend(first..=last.min(first.saturating_add(1 << 16)));
        }
    }
    cores
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(queues: &[usize]) -> Vec<Wanted> {
        queues.iter().map(|&queues| Wanted { queues, local: Vec::new() }).collect()
    }

    fn layout(allowed: usize, config: &Config, queues: &[usize]) -> Layout {
        Layout::among((0..allowed).collect(), config, &ports(queues)).unwrap()
    }

    #[test]
    fn one_core_stays_free_if_there_is_another() {
        let config = Config::default();
        let one = layout(1, &config, &[4]);
        assert_eq!(one, Layout { workers: 1, cores: vec![0], rest: vec![] });
        let two = layout(2, &config, &[1, 1]);
        assert_eq!(two, Layout { workers: 1, cores: vec![1], rest: vec![0] });
        let eight = layout(8, &config, &[4]);
        assert_eq!(eight, Layout { workers: 4, cores: vec![7, 6, 5, 4], rest: vec![0, 1, 2, 3] });
        assert_eq!((eight.worker_of(5), eight.core_of(1), eight.core_of(4)), (1, Some(6), None));
        assert_eq!(layout(4, &config, &[16]).workers, 3);
    }

    #[test]
    fn what_was_asked_for_is_given_or_refused() {
        let asked = |workers, cores: &[usize], redispatch| Config {
            workers,
            cores: cores.to_vec(),
            redispatch,
            ..Config::default()
        };
        let more = layout(4, &asked(3, &[], Redispatch::Auto), &[1]);
        assert_eq!((more.workers, more.cores), (3, vec![3, 2, 1]), "one queue's packets for three");
        assert_eq!(layout(4, &asked(3, &[], Redispatch::Off), &[1]).workers, 1, "two would have nothing");
        let crowded = layout(2, &asked(3, &[], Redispatch::Auto), &[1]);
        assert_eq!((crowded.core_of(0), crowded.rest), (None, vec![0, 1]));
        let named = layout(8, &asked(0, &[2, 5], Redispatch::Auto), &[4]);
        assert_eq!(named, Layout { workers: 2, cores: vec![2, 5], rest: vec![0, 1, 3, 4, 6, 7] });
        let refused = Layout::among(vec![0, 1], &asked(0, &[4], Redispatch::Auto), &ports(&[1]));
        assert!(refused.unwrap_err().to_string().contains("`cores` names CPU 4, which"));
    }

    #[test]
    fn cores_near_an_interface_come_first() {
        assert_eq!(listed("0-3,8"), [0, 1, 2, 3, 8]);
        assert!(listed("").is_empty());
        let mut ports = ports(&[2, 1]);
        (ports[0].local, ports[1].local) = (listed("0-3"), listed("4-7"));
        assert_eq!(chosen(&listed("0-7"), 3, &ports), [3, 2, 7]);
        assert_eq!(chosen(&listed("4-6"), 3, &ports), [6, 5, 4], "none near: any");
    }
}
