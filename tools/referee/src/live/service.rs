//! What systemd is told of a run: that it is ready, how it goes, that it reloads or stops, and, as long as every worker
//! and the judge move, that it is alive.
//!
//! Main thread, once a second; the control thread around a reload. Without a service manager nobody is told.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// How long a thread may take for one turn before it counts as stuck. Each takes 10 ms at most when there is nothing to do.
const STUCK: Duration = Duration::from_secs(10);

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

/// How far a thread had come when it was last seen to move.
#[derive(Clone, Copy, Debug)]
struct Place {
    turns: u64,
    moved: Instant,
}

/// The service manager's view of a run.
pub struct Service {
    watched: bool,
    places: Vec<Place>,
    /// Threads that are stuck, when that was last told.
    stuck: Vec<usize>,
}

impl Service {
    /// From here on no packet is missed. `threads` are supervised: workers, then the judge.
    pub fn ready(threads: usize, now: Instant) -> Service {
        tell(&[NotifyState::Ready]);
        Service {
            watched: sd_notify::watchdog_enabled().is_some(),
            places: vec![Place { turns: 0, moved: now }; threads],
            stuck: Vec::new(),
        }
    }

    /// Once a second: how it goes, and that all is well unless a thread is stuck. Returns what people should know of that.
    pub fn look(&mut self, now: Instant, turns: impl Iterator<Item = u64>, status: &str) -> Option<String> {
        let stuck = self.stuck_at(now, turns);
        if self.watched && stuck.is_empty() {
            tell(&[NotifyState::Watchdog, NotifyState::Status(status)]);
        } else {
            tell(&[NotifyState::Status(status)]);
        }
        let before = std::mem::replace(&mut self.stuck, stuck);
        let newly: Vec<usize> =
            self.stuck.iter().copied().filter(|thread| !before.contains(thread)).collect();
        (!newly.is_empty()).then(|| self.words(&newly))
    }

    /// The last thread is the judge's, the others are workers'.
    fn words(&self, stuck: &[usize]) -> String {
        let judge = self.places.len().saturating_sub(1);
        let name = |thread: &usize| match *thread == judge {
            true => "the judge".to_owned(),
            false => format!("worker {thread}"),
        };
        let names: Vec<String> = stuck.iter().map(name).collect();
        let loses = match stuck.iter().any(|thread| *thread != judge) {
            true => "packets that find no room meanwhile are lost and counted",
            false => "no incident is told meanwhile",
        };
        let after = if self.watched { "; systemd will end this run if it stays so" } else { "" };
        format!("{} took no turn for {} s: {loses}{after}", names.join(", "), STUCK.as_secs())
    }

    fn stuck_at(&mut self, now: Instant, turns: impl Iterator<Item = u64>) -> Vec<usize> {
        for (place, turns) in self.places.iter_mut().zip(turns) {
            if place.turns != turns {
                *place = Place { turns, moved: now };
            }
        }
        let stuck = |place: &Place| now.saturating_duration_since(place.moved) >= STUCK;
        (0..).zip(&self.places).filter(|(_, place)| stuck(place)).map(|(thread, _)| thread).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_takes_no_turn_is_noticed_and_forgiven() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut service = Service::ready(2, began);
        assert_eq!(service.look(after(1), [1, 1].into_iter(), ""), None);
        assert_eq!(service.look(after(10), [2, 1].into_iter(), ""), None);
        let said = service.look(after(11), [3, 1].into_iter(), "");
        assert_eq!(said.as_deref(), Some("the judge took no turn for 10 s: no incident is told meanwhile"));
        // Once is enough.
        assert_eq!(service.look(after(12), [4, 1].into_iter(), ""), None);
        assert_eq!(service.stuck, [1]);
        assert_eq!(service.look(after(13), [5, 2].into_iter(), ""), None);
        assert!(service.stuck.is_empty());
        let said = service.look(after(23), [5, 2].into_iter(), "").unwrap();
        assert!(said.starts_with("worker 0, the judge took no turn for 10 s: packets that find"), "{said}");
    }
}
