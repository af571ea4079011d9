//! A database client's pool: connections that are kept, asked a few things, left alone, and asked again.
//!
//! One thread per session. Every other session rests longer than a forgetful device remembers; its siblings on the
//! same service never do, so what happens to the ones and not to the others is the device's doing.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::tally::{Outcome, Tally};
use super::{connect, finish};
use crate::rng::Rng;

/// How long a session leaves its connection alone, ms.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    pub shortest: u64,
    pub longest: u64,
}

impl Rest {
    /// Between two bursts of an ordinary session.
    pub const SHORT: Rest = Rest { shortest: 500, longest: 3_000 };
    /// Beyond the 10 s of silence after which a reset is blamed on a forgetful device.
    pub const LONG: Rest = Rest { shortest: 12_000, longest: 14_000 };
}

/// After a lost connection, before the next; also when a session first begins, at most.
const RECONNECT: Duration = Duration::from_millis(500);
/// A session that would wake after the end of the run waits in steps of this instead, and then closes.
const STEP: Duration = Duration::from_millis(300);

/// One place in the pool, until `deadline`: connects again whenever its connection is lost.
pub fn session(at: SocketAddr, rest: Rest, deadline: Instant, mut rng: Rng) -> Tally {
    let mut tally = Tally::default();
    sleep(RECONNECT.mul_f64(rng.unit()));
    while Instant::now() < deadline {
        let outcome = match connect(at) {
            Ok(socket) => Outcome::of(&life(socket, rest, deadline, &mut rng)),
            Err(error) => Outcome::of_connect(&error),
        };
        tally.count(outcome);
        if outcome != Outcome::Done {
            sleep(RECONNECT);
        }
    }
    tally
}

/// One connection: bursts of questions with rests between, and an orderly close at the deadline.
fn life(mut socket: TcpStream, rest: Rest, deadline: Instant, rng: &mut Rng) -> io::Result<()> {
    while Instant::now() < deadline {
        for _ in 0..rng.range(3, 8) {
            ask(&mut socket, rng.range(50, 4_000))?;
            sleep(Duration::from_millis(rng.range(20, 200)));
        }
        // Some are in the middle of a long rest when the run ends; they must not begin one they can't finish,
        // or their closing would be what wakes the connection.
        let planned = Duration::from_millis(rng.range(rest.shortest, rest.longest));
        let wake = Instant::now() + planned;
        sleep(if wake + STEP < deadline { planned } else { STEP });
    }
    finish(&mut socket)
}

fn ask(socket: &mut TcpStream, bytes: u64) -> io::Result<()> {
    socket.write_all(format!("select {bytes}\n").as_bytes())?;
    let got = io::copy(&mut socket.take(bytes), &mut io::sink())?;
    if got == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
