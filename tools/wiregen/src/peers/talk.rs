//! The clients: everything of one run, started together and added up at its end.
//!
//! The caller's thread starts one thread for each target (for a pool, one per session) and waits for them. All
//! randomness is seeded; ports, timing and order are the kernel's.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::pool::{self, Rest};
use super::tally::{Talked, Tally};
use super::{Endpoint, Role, start, streams, transfers};
use crate::rng::Rng;

/// What `talk` does.
#[derive(Clone, Debug)]
pub struct Options {
    pub targets: Vec<Endpoint>,
    /// Nothing new is begun after this.
    pub seconds: u32,
    pub seed: u64,
    /// Per second, for each target.
    pub pages: u32,
    pub uploads: u32,
    /// Connections kept, for each target.
    pub sessions: u32,
    pub streams: u32,
}

/// One running kind of traffic, and which tally is its own.
struct Running {
    role: Role,
    thread: JoinHandle<Tally>,
}

/// Talks to all targets for `seconds`, and as long again as the last attempts need.
pub fn talk(options: &Options) -> io::Result<Talked> {
    let deadline = Instant::now() + Duration::from_secs(options.seconds.into());
    let mut running = Vec::new();
    let mut stream = 0;
    for target in &options.targets {
        let Endpoint { role, at } = *target;
        let places = if role == Role::Queries { options.sessions } else { 1 };
        for place in 0..places {
            stream += 1;
            let rng = Rng::stream(options.seed, stream);
            let (uploads, pages, streams) = (options.uploads, options.pages, options.streams);
            let rest = if place.is_multiple_of(2) { Rest::LONG } else { Rest::SHORT };
            let thread = start(move || match role {
                Role::Pages => transfers::run(role, at, pages, deadline, rng),
                Role::Uploads => transfers::run(role, at, uploads, deadline, rng),
                Role::Queries => pool::session(at, rest, deadline, rng),
                Role::Streams => streams::run(at, streams, deadline, rng),
            })?;
            running.push(Running { role, thread });
        }
    }
    let mut talked = Talked::default();
    for Running { role, thread } in running {
        let tally = thread.join().map_err(|_| io::Error::other("a client's thread has died"))?;
        *match role {
            Role::Pages => &mut talked.pages,
            Role::Queries => &mut talked.sessions,
            Role::Uploads => &mut talked.uploads,
            Role::Streams => &mut talked.streams,
        } += tally;
    }
    Ok(talked)
}
