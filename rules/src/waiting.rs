//! Which flow rules wait for an event. Rules that can only match at certain destination ports are found by the port, so
//! that a packet of another service never asks them.
//!
//! Built at load time; read on workers, where nothing is allocated.

const BUCKETS: usize = 256;

/// A rule that waits for flows to this port only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct AtPort {
    port: u16,
    rule: u16,
}

/// The flow rules that wait for one event, by their places in the set.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    at_any: Vec<u16>,
    /// By bucket, port and place.
    at_port: Vec<AtPort>,
    /// Where each bucket begins in `at_port`, and where the last ends; empty if there are none.
    starts: Vec<u32>,
}

fn bucket(port: u16) -> usize {
    usize::from((port ^ port >> 8) as u8)
}

impl Waiting {
    /// Adds a rule behind those already there; `ports` if it can match at no others.
    pub(crate) fn add(&mut self, rule: u16, ports: Option<&[i64]>) {
        let Some(ports) = ports else { return self.at_any.push(rule) };
        for port in ports.iter().filter_map(|port| u16::try_from(*port).ok()) {
            let (new, key) = (AtPort { port, rule }, |at: &AtPort| (bucket(at.port), *at));
            if let Err(place) = self.at_port.binary_search_by_key(&key(&new), key) {
                self.at_port.insert(place, new);
            }
        }
        let begins = |b| self.at_port.partition_point(|at| bucket(at.port) < b) as u32;
        self.starts = (0..=BUCKETS).map(begins).collect();
    }

    /// Rules that may be asked about one flow, at most.
    pub(crate) fn most(&self) -> usize {
        self.at_any.len() + self.at_port.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at_any.is_empty() && self.at_port.is_empty()
    }

    /// Calls `ask` for each rule that can match at this port, in their order.
    #[inline]
    pub(crate) fn each(&self, port: u16, mut ask: impl FnMut(u16)) {
        let mut own = self.at(port).iter().filter(|at| at.port == port).map(|at| at.rule);
        let mut next = own.next();
        for &rule in &self.at_any {
            while let Some(before) = next.filter(|next| *next < rule) {
                ask(before);
                next = own.next();
            }
            ask(rule);
        }
        while let Some(rule) = next {
            ask(rule);
            next = own.next();
        }
    }

    #[inline]
    fn at(&self, port: u16) -> &[AtPort] {
        let of = bucket(port);
        let (Some(start), Some(end)) = (self.starts.get(of), self.starts.get(of + 1)) else { return &[] };
        self.at_port.get(*start as usize..*end as usize).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(waiting: &Waiting, port: u16) -> Vec<u16> {
        let mut rules = Vec::new();
        waiting.each(port, |rule| rules.push(rule));
        rules
    }

    #[test]
    fn only_those_at_the_port_are_asked_and_in_order() {
        let mut waiting = Waiting::default();
        assert!(waiting.is_empty());
        waiting.add(0, Some(&[443, 80, 443]));
        waiting.add(1, None);
        waiting.add(2, Some(&[443]));
        // The same bucket as 443, and no port at all.
        waiting.add(3, Some(&[443 ^ 0x0101, 70_000, -1]));
        waiting.add(4, None);
        waiting.add(5, Some(&[443]));
        assert_eq!(asked(&waiting, 443), [0, 1, 2, 4, 5]);
        assert_eq!(asked(&waiting, 80), [0, 1, 4]);
        assert_eq!(asked(&waiting, 443 ^ 0x0101), [1, 3, 4]);
        assert_eq!(asked(&waiting, 22), [1, 4]);
        let mut one = Waiting::default();
        one.add(7, Some(&[1]));
        assert!(!one.is_empty());
        assert_eq!((asked(&one, 1), asked(&one, 2)), (vec![7], vec![]));
    }
}
