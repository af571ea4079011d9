//! Waiting for the links: many drivers take theirs down for some seconds when a program is attached or a socket bound.
//! Main thread, between setting up and the first packet.

use std::thread;
use std::time::{Duration, Instant};

use dataplane::source::live::Port;

use super::signals::Signals;
use crate::term;

/// How long a link may take to come back; a gigabit one takes up to 7 s to agree with its peer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// What takes longer is told.
const SHORT: Duration = Duration::from_millis(500);

/// Waits until the interfaces that had a link before they were taken have one again. One that had none is not waited for.
pub fn links(ports: &[Port], signals: &Signals) {
    let began = Instant::now();
    // One that has gone is found out by who looks after the run.
    let lacks = |port: &Port| port.nic().carrier && matches!(port.nic().has_link(), Ok(false));
    let told = |what: &str, ports: &[&Port]| {
        let names: Vec<&str> = ports.iter().map(|port| port.nic().name.as_str()).collect();
        term::note(&format!("{} {what}", names.join(", ")));
    };
    let mut waiting: Vec<&Port> = ports.iter().filter(|port| lacks(port)).collect();
    if waiting.is_empty() {
        return;
    }
    let all = waiting.clone();
    while !waiting.is_empty() && began.elapsed() < PATIENCE && !signals.came() {
        thread::sleep(LOOK);
        waiting.retain(|port| lacks(port));
    }
    if !waiting.is_empty() {
        told(
            "lost the link when it was taken, and has not got it back yet: nothing comes until it has",
            &waiting,
        );
    } else if began.elapsed() > SHORT {
        told(&format!("got the link back after {:.1} s", began.elapsed().as_secs_f64()), &all);
    }
}
