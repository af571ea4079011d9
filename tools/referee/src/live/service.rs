//! What systemd is told of a run: that it is ready, how it goes, that it reloads or stops, and, as long as every worker,
//! the judge and the control thread move, that it is alive.
//!
//! Main thread, once a second; the control thread around a reload. Without a service manager nobody is told.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// How long a worker or the judge may take for one turn before it counts as stuck. Each takes 10 ms at most when there is
/// nothing to do.
pub const STUCK: Duration = Duration::from_secs(10);
/// The same of the control thread, which waits for files, for those who write them, for the judge and for workers.
pub const CONTROL_STUCK: Duration = Duration::from_secs(30);

/// Whoever is not there to be told misses nothing.
fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

/// Rules are read again, for as long as this lives.
pub struct Reloading(());

impl Reloading {
    pub fn begun() -> Reloading {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(_) => tell(&[NotifyState::Reloading]),
        }
        Reloading(())
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        tell(&[NotifyState::Ready]);
    }
}

/// No packet is taken any more.
pub fn stopping() {
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping: reading the rings empty, writing what is kept"),
    ]);
}

/// A thread that is supervised.
#[derive(Clone, Debug)]
pub struct Supervised {
    pub name: String,
    /// After which it counts as stuck.
    pub patience: Duration,
}

/// How far a thread had come when it was last seen to move.
#[derive(Clone, Debug)]
struct Place {
    thread: Supervised,
    turns: u64,
    moved: Instant,
    /// People know that it is stuck.
    told: bool,
}

/// The service manager's view of a run.
pub struct Service {
    watched: bool,
    places: Vec<Place>,
}

impl Service {
    /// From here on no packet is missed.
    pub fn ready(threads: impl Iterator<Item = Supervised>, now: Instant) -> Service {
        tell(&[NotifyState::Ready]);
        let place = |thread| Place { thread, turns: 0, moved: now, told: false };
        Service { watched: sd_notify::watchdog_enabled().is_some(), places: threads.map(place).collect() }
    }

    /// Once a second, with the turns that the threads have taken, in their order: how it goes, and that all is well unless
    /// one is stuck. Returns what people should know of that.
    pub fn look(&mut self, now: Instant, turns: impl Iterator<Item = u64>, status: &str) -> Vec<String> {
        for (place, turns) in self.places.iter_mut().zip(turns) {
            if place.turns != turns {
                (place.turns, place.moved, place.told) = (turns, now, false);
            }
        }
        let all_well = !self.places.iter().any(|place| place.stuck(now));
        if self.watched && all_well {
            tell(&[NotifyState::Watchdog, NotifyState::Status(status)]);
        } else {
            tell(&[NotifyState::Status(status)]);
        }
        let after = if self.watched { "; systemd will end this run if it stays so" } else { "" };
        let news = self.places.iter_mut().filter(|place| place.stuck(now) && !place.told);
        news.map(|place| {
            place.told = true;
            let Supervised { name, patience } = &place.thread;
            format!("thread {name} took no turn for {} s{after}", patience.as_secs())
        })
        .collect()
    }
}

impl Place {
    fn stuck(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.moved) >= self.thread.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_takes_no_turn_is_noticed_and_forgiven() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let thread = |(name, patience): (&str, Duration)| Supervised { name: name.to_owned(), patience };
        let threads = [("worker-0", STUCK), ("judge", STUCK), ("control", CONTROL_STUCK)];
        let mut service = Service::ready(threads.into_iter().map(thread), began);
        let mut look = |seconds, turns: [u64; 3]| service.look(after(seconds), turns.into_iter(), "");
        assert!(look(1, [1, 1, 1]).is_empty() && look(10, [2, 1, 1]).is_empty());
        assert_eq!(look(11, [3, 1, 1]), ["thread judge took no turn for 10 s"]);
        assert!(look(12, [4, 1, 1]).is_empty(), "once is enough");
        assert!(look(13, [5, 2, 1]).is_empty());
        assert!(look(22, [6, 3, 1]).is_empty());
        assert_eq!(look(31, [7, 4, 1]), ["thread control took no turn for 30 s"]);
        assert!(look(32, [8, 5, 2]).is_empty());
        assert_eq!(
            look(50, [8, 5, 3]),
            ["thread worker-0", "thread judge"].map(|t| format!("{t} took no turn for 10 s"))
        );
    }
}
