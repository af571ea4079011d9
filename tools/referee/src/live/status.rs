//! One line on standard error that says how it goes, if that is a terminal. Main thread, once a second; reads
//! what workers have published and never asks them.

use std::io;
use std::time::{Duration, Instant};

use dataplane::source::Nanos;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::term::{columns, count, plural, rate};
use crate::time::span;

/// What the line says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub seen: u64,
    pub bytes: u64,
    pub dropped: u64,
    /// Packets that were to be kept and that the disk refused.
    pub unwritten: u64,
    pub flows: u64,
    pub open: u64,
    pub incidents: u64,
    /// How far back the shortest history reaches, ns; 0 before the first packet.
    pub history: Nanos,
}

pub struct Status {
    /// `None` if nobody is to see it.
    bar: Option<ProgressBar>,
    began: Instant,
    last: (Instant, Figures),
    /// What it says.
    line: String,
}

impl Status {
    pub fn new(name: &str) -> Status {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} {prefix}  {wide_msg}");
        let bar = bar.with_style(style.expect("the template is well formed")).with_prefix(name.to_owned());
        let now = Instant::now();
        Status {
            bar: Some(bar).filter(|bar| !bar.is_hidden()),
            began: now,
            last: (now, Figures::default()),
            line: String::new(),
        }
    }

    pub fn show(&mut self, figures: Figures) {
        let now = Instant::now();
        let parts = parts(&self.last.1, &figures, now - self.last.0, self.began.elapsed());
        self.line = parts.join(BETWEEN);
        if let Some(bar) = &self.bar {
            let beside = bar.prefix().chars().count() + BESIDE;
            let room = columns(io::stderr()).map_or(usize::MAX, |all| all.saturating_sub(beside));
            bar.tick();
            bar.set_message(fitting(parts, room));
        }
        self.last = (now, figures);
    }

    /// What was shown last, for others to show.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Writes something above the line.
    pub fn above(&self, write: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Takes the line away; returns how long it all took.
    pub fn finish(self) -> Duration {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.began.elapsed()
    }
}

/// What stands between the line's parts, and how much before the first: a spinner, blanks.
const BETWEEN: &str = "  ";
const BESIDE: usize = 4;

/// Parts that are left out first, if not all fit: history, flows, bits.
const LEAST: [usize; 3] = [5, 2, 1];

/// As many parts as fit, whole.
fn fitting(parts: Vec<String>, room: usize) -> String {
    let mut parts = parts;
    for least in LEAST {
        let length = parts.iter().map(|part| part.chars().count() + BETWEEN.len()).sum::<usize>();
        if length.saturating_sub(BETWEEN.len()) <= room {
            break;
        }
        if least < parts.len() {
            parts.remove(least);
        }
    }
    parts.join(BETWEEN)
}

fn parts(before: &Figures, now: &Figures, between: Duration, running: Duration) -> Vec<String> {
    let seconds = between.as_secs_f64();
    let speed = rate(now.seen.saturating_sub(before.seen), seconds);
    #[allow(clippy::cast_precision_loss, reason = "one digit is shown")]
    let mbits = now.bytes.saturating_sub(before.bytes) as f64 * 8.0 / 1e6 / seconds.max(1e-6);
    let lost = if now.dropped > 0 { format!("{} LOST", count(now.dropped)) } else { "0 lost".to_owned() };
    let kept = if now.unwritten > 0 { format!(", {} NOT KEPT", count(now.unwritten)) } else { String::new() };
    let mut parts = vec![
        format!("{}:{:02}  {speed}", running.as_secs() / 60, running.as_secs() % 60),
        format!("{mbits:.1} Mbit/s"),
        plural(now.flows, "flow"),
        format!("{}, {lost}{kept}", plural(now.seen, "packet")),
        format!("{} ({} open)", plural(now.incidents, "incident"), now.open),
    ];
    parts.extend((now.history > 0).then(|| format!("history {}", span(now.history))));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_in_words() {
        let before = Figures { seen: 1000, ..Figures::default() };
        let now = Figures {
            seen: 3500,
            bytes: 1_250_000,
            dropped: 7,
            unwritten: 0,
            flows: 12,
            open: 1,
            incidents: 2,
            history: 42_000_000_000,
        };
        assert_eq!(
            parts(&before, &now, Duration::from_secs(1), Duration::from_secs(61)).join(BETWEEN),
            "1:01  2 kpps  10.0 Mbit/s  12 flows  3,500 packets, 7 LOST  2 incidents (1 open)  history 42.0 s"
        );
        let quiet = parts(&now, &now, Duration::from_secs(1), Duration::from_secs(62)).join(BETWEEN);
        assert!(quiet.starts_with("1:02  0 pps  0.0 Mbit/s"), "{quiet}");
        let narrow =
            |room| fitting(parts(&before, &now, Duration::from_secs(1), Duration::from_secs(61)), room);
        assert_eq!(narrow(74), "1:01  2 kpps  10.0 Mbit/s  3,500 packets, 7 LOST  2 incidents (1 open)");
        assert_eq!(
            narrow(20),
            "1:01  2 kpps  3,500 packets, 7 LOST  2 incidents (1 open)",
            "the rest always"
        );
        assert_eq!(narrow(99).len(), 96, "all of it");
        let young = Figures { history: 0, ..now };
        assert_eq!(
            fitting(parts(&young, &young, Duration::from_secs(1), Duration::ZERO), 1).matches("flow").count(),
            0
        );
    }
}
