//! How far a replay is, on standard error and only if that is a terminal.
//!
//! Main thread, a few times a second; reads no packet. Nothing depends on it.

use std::time::Instant;

use crate::term::rate;
use dataplane::source::file::FileSource;
use dataplane::source::merge::Merge;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Steps of the worker between two looks at the clock.
const STEPS: u32 = 512;

const SIZED: &str = "{bar:32} {binary_bytes}/{binary_total_bytes}  {msg}  {eta} left";
const UNSIZED: &str = "{spinner} {binary_bytes}  {msg}";

pub struct Progress {
    /// `None` if nobody is to see it.
    bar: Option<ProgressBar>,
    started: Instant,
    steps: u32,
}

impl Progress {
    /// `shown` if nothing else uses the terminal.
    pub fn new(shown: bool, source: &Merge<FileSource>) -> Progress {
        let bar = shown.then(|| {
            let total = source.progress().1;
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
            let template = if total.is_some() { SIZED } else { UNSIZED };
            bar.with_style(ProgressStyle::with_template(template).expect("the template is well formed"))
        });
        Progress { bar: bar.filter(|bar| !bar.is_hidden()), started: Instant::now(), steps: 0 }
    }

    /// After each step of the worker.
    #[inline]
    pub fn step(&mut self, source: &Merge<FileSource>, packets: impl FnOnce() -> u64) {
        self.steps += 1;
        if self.steps < STEPS {
            return;
        }
        self.steps = 0;
        if let Some(bar) = &self.bar {
            bar.set_position(source.progress().0);
            bar.set_message(rate(packets(), self.started.elapsed().as_secs_f64()));
        }
    }

    /// Takes the bar away; returns how long it all took, in seconds.
    pub fn finish(self) -> f64 {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.started.elapsed().as_secs_f64()
    }
}
