//! Short connections, made at a steady rate whatever becomes of them: pages fetched and files put.
//!
//! One thread keeps the rate, one more per connection does the work. A connection that hangs delays no other,
//! as with independent users.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::tally::{Outcome, Tally};
use super::{CHUNK, PATIENCE, Role, connect, start};
use crate::rng::Rng;

/// Connections under way at once; at the rates used, ten times what a total loss would leave open.
const MOST_OPEN: u64 = 500;
/// An attempt makes this many waits at most, each as long as a client's patience.
const WAITS: u32 = 3;
/// Between two chunks of an upload: at 4 MB/s it comes from a disk and over a link as people have them. As fast as
/// memory, on a machine that is all the network's hosts at once, it would only try how full a receiver can get.
const BREATH: Duration = Duration::from_millis(4);
const LONGEST_ANSWER: u64 = 64;

/// Begins `per_second` connections until `deadline`, then waits for those still open.
pub fn run(role: Role, at: SocketAddr, per_second: u32, deadline: Instant, mut rng: Rng) -> Tally {
    let (report, outcomes) = mpsc::channel();
    let mut tally = Tally::default();
    let mut open = 0u64;
    let gap = Duration::from_secs(1) / per_second.max(1);
    let mut due = Instant::now() + gap.mul_f64(rng.unit());
    while due < deadline {
        // What ended meanwhile is counted while waiting for the next one's turn.
        while let Ok(outcome) = outcomes.recv_timeout(due.saturating_duration_since(Instant::now())) {
            tally.count(outcome);
            open -= 1;
        }
        // Evenly spread in the mean, but not in step with other clients.
        due += gap.mul_f64(0.5 + rng.unit());
        let bytes = match role {
            Role::Uploads => rng.range(100_000, 400_000),
            _ => rng.range(200, 40_000),
        };
        let report = report.clone();
        let work = move || {
            // Nobody listens any more once the run is over.
            let _ = report.send(attempt(role, at, bytes));
        };
        if open < MOST_OPEN && start(work).is_ok() {
            open += 1;
        } else {
            tally.count(Outcome::Failed);
        }
    }
    let end = Instant::now() + PATIENCE * WAITS;
    while open > 0 {
        let left = end.saturating_duration_since(Instant::now());
        tally.count(outcomes.recv_timeout(left).unwrap_or(Outcome::Stalled));
        open -= 1;
    }
    tally
}

/// One connection, from its beginning to its end.
pub fn attempt(role: Role, at: SocketAddr, bytes: u64) -> Outcome {
    let socket = match connect(at) {
        Ok(socket) => socket,
        Err(error) => return Outcome::of_connect(&error),
    };
    Outcome::of(&match role {
        Role::Uploads => put(socket, bytes),
        _ => get(socket, at, bytes),
    })
}

fn get(mut socket: TcpStream, at: SocketAddr, bytes: u64) -> io::Result<()> {
    socket.write_all(format!("GET /{bytes} HTTP/1.0\r\nHost: {at}\r\n\r\n").as_bytes())?;
    let received = io::copy(&mut socket, &mut io::sink())?;
    // A head comes before the page; what is shorter than the page was cut.
    if received > bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn put(mut socket: TcpStream, bytes: u64) -> io::Result<()> {
    // A write that was cut short by the limit is tried once more: two of these are a client's patience.
    socket.set_write_timeout(Some(PATIENCE / 2))?;
    socket.write_all(format!("PUT {bytes}\n").as_bytes())?;
    let mut answers = BufReader::new(socket.try_clone()?);
    expect(&mut answers, "go\n")?;
    let chunk = [b'#'; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(CHUNK as u64);
        if let Err(error) = socket.write_all(&chunk[..now as usize]) {
            // The server has given up as well; what it said about it is read before closing, for a socket closed
            // with unread bytes resets the connection.
            io::copy(&mut answers, &mut io::sink())?;
            return Err(error);
        }
        left -= now;
        sleep(BREATH);
    }
    expect(&mut answers, "stored\n")
}

/// Reads on until the server says this; that it is waiting may come before.
fn expect(answers: &mut BufReader<TcpStream>, words: &str) -> io::Result<()> {
    let mut answer = String::new();
    while answer != words {
        answer.clear();
        let read = answers.by_ref().take(LONGEST_ANSWER).read_line(&mut answer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
