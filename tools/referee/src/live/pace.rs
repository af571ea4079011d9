//! How far one worker's packet time has come, and what it reported of the intervals since.
//! Judge's thread; what several workers saw of an interval is judged together, when the last of them is through with it.

use std::collections::VecDeque;

use dataplane::judge::message::Note;
use dataplane::source::Nanos;

/// So far behind the others a worker is not waited for, ns of packet time.
const LEFT_BEHIND: Nanos = 1_000_000_000;

/// One worker's.
#[derive(Debug, Default)]
pub struct Pace {
    /// Reports whose tick has not come from this worker.
    open: Vec<Note>,
    /// Ticks that have, each with its reports, and wait for the other workers.
    due: VecDeque<(Nanos, Vec<Note>)>,
    /// The latest tick; `None` before the first.
    reached: Option<Nanos>,
}

impl Pace {
    /// What the next tick's interval brought.
    pub fn report(&mut self, note: Note) {
        self.open.push(note);
    }

    /// The worker has come to this time.
    pub fn tick(&mut self, now: Nanos) {
        self.reached = Some(now);
        self.due.push_back((now, std::mem::take(&mut self.open)));
    }

    /// The first tick that waits.
    pub fn due(&self) -> Option<Nanos> {
        self.due.front().map(|(at, _)| *at)
    }

    /// The reports that belong to this time, or to an earlier one.
    pub fn take(&mut self, now: Nanos) -> Vec<Note> {
        let mut reports = Vec::new();
        while let Some((_, some)) = self.due.pop_front_if(|(at, _)| *at <= now) {
            if reports.is_empty() {
                reports = some;
            } else {
                reports.extend(some);
            }
        }
        reports
    }

    /// All that is left.
    pub fn rest(&mut self) -> Vec<Note> {
        let mut rest = self.take(Nanos::MAX);
        rest.append(&mut self.open);
        rest
    }

    /// The time that all these workers have come to, but for those left far behind and those that have not begun.
    pub fn slowest<'a>(paces: impl Iterator<Item = &'a Pace> + Clone) -> Nanos {
        let fastest = paces.clone().filter_map(|pace| pace.reached).max().unwrap_or(Nanos::MAX);
        let with_them = |reached: &Nanos| *reached >= fastest.saturating_sub(LEFT_BEHIND);
        paces.filter_map(|pace| pace.reached).filter(with_them).min().unwrap_or(Nanos::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use dataplane::judge::message::Message;
    use rules::facts::Counts;

    use super::*;

    fn report(syns: u32) -> Note {
        Message::Host { addr: IpAddr::V4(Ipv4Addr::LOCALHOST), counts: Counts { syns, ..Counts::default() } }
    }

    #[test]
    fn an_interval_waits_for_the_slower_one() {
        let (mut fast, mut slow) = (Pace::default(), Pace::default());
        fast.report(report(1));
        fast.tick(100);
        assert_eq!(Pace::slowest([&fast, &slow].into_iter()), 100, "nobody waits for who has not begun");
        fast.report(report(2));
        fast.tick(200);
        slow.report(report(3));
        slow.tick(100);
        slow.report(report(4));
        assert_eq!(Pace::slowest([&fast, &slow].into_iter()), 100);
        assert_eq!((fast.take(100).len(), slow.take(100).len()), (1, 1));
        assert_eq!((fast.due(), slow.due()), (Some(200), None));
        slow.tick(200);
        assert_eq!(Pace::slowest([&fast, &slow].into_iter()), 200);
        assert_eq!((fast.take(200).len(), slow.take(200).len(), slow.rest().len()), (1, 1, 0));
    }

    #[test]
    fn who_is_left_behind_is_not_waited_for_and_loses_nothing() {
        let (mut fast, mut slow) = (Pace::default(), Pace::default());
        slow.report(report(1));
        slow.tick(100);
        slow.report(report(2));
        fast.tick(100 + LEFT_BEHIND);
        assert_eq!(Pace::slowest([&fast, &slow].into_iter()), 100, "just with them");
        fast.tick(200 + LEFT_BEHIND);
        assert_eq!(Pace::slowest([&fast, &slow].into_iter()), 200 + LEFT_BEHIND);
        slow.tick(200);
        assert_eq!(slow.take(200 + LEFT_BEHIND).len(), 2, "it is told with what the others do now");
    }

    #[test]
    fn with_nobody_left_all_is_due() {
        assert_eq!(Pace::slowest(std::iter::empty()), Nanos::MAX);
        let mut pace = Pace::default();
        pace.report(report(1));
        pace.tick(100);
        pace.report(report(2));
        assert_eq!(pace.rest().len(), 2);
    }
}
