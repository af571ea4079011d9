//! Many connections that report a little all the time: telemetry, orders, a message bus.
//!
//! One thread for all of them, which writes to each in turn. A server that dies without a word meets the next
//! report of each connection within one interval; that is what its kernel resets.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::tally::{Outcome, Tally};
use super::{connect, finish, limit, start};
use crate::rng::Rng;

/// Each connection reports so often.
const INTERVAL: Duration = Duration::from_millis(400);
/// A lost connection is made anew after this and up to twice this: the server needs time to come back, and not
/// all clients at once.
const RECONNECT: Duration = Duration::from_secs(3);
/// One report must never hold up the others' turns: it fits the socket's buffer, or the connection is stuck.
const STUCK: Duration = Duration::from_millis(50);
const REPORT: [u8; 180] = [b'~'; 180];

struct Stream {
    socket: Option<TcpStream>,
    due: Instant,
}

/// Keeps `count` connections until `deadline`, then closes them in order.
pub fn run(at: SocketAddr, count: u32, deadline: Instant, mut rng: Rng) -> Tally {
    let mut tally = Tally::default();
    let begin = Instant::now();
    let place = |n: u32| Stream { socket: None, due: begin + INTERVAL * n / count.max(1) };
    let mut streams: Vec<Stream> = (0..count).map(place).collect();
    while let Some(stream) = streams.iter_mut().min_by_key(|stream| stream.due)
        && stream.due < deadline
    {
        sleep(stream.due.saturating_duration_since(Instant::now()));
        match turn(stream.socket.take(), at) {
            Ok(socket) => {
                stream.socket = Some(socket);
                stream.due += INTERVAL;
            }
            Err(outcome) => {
                tally.count(outcome);
                stream.due = Instant::now() + RECONNECT.mul_f64(1.0 + rng.unit());
            }
        }
    }
    for outcome in close(streams) {
        tally.count(outcome);
    }
    tally
}

/// One report, on a new connection if there is none.
fn turn(socket: Option<TcpStream>, at: SocketAddr) -> Result<TcpStream, Outcome> {
    let mut socket = match socket {
        Some(socket) => socket,
        None => {
            let socket = connect(at).map_err(|error| Outcome::of_connect(&error))?;
            limit(&socket, STUCK).map_err(|error| Outcome::of_talk(&error))?;
            socket
        }
    };
    socket.write_all(&REPORT).map_err(|error| Outcome::of_talk(&error))?;
    Ok(socket)
}

fn close(streams: Vec<Stream>) -> Vec<Outcome> {
    let closing = |mut socket: TcpStream| -> io::Result<()> {
        limit(&socket, super::PATIENCE)?;
        finish(&mut socket)
    };
    let sockets = streams.into_iter().filter_map(|stream| stream.socket);
    // Each in a thread: with the server gone, one after the other would take for ever.
    let threads: Vec<_> = sockets.map(|socket| start(move || Outcome::of(&closing(socket)))).collect();
    let outcome = |thread: io::Result<std::thread::JoinHandle<Outcome>>| {
        thread.ok().and_then(|thread| thread.join().ok()).unwrap_or(Outcome::Failed)
    };
    threads.into_iter().map(outcome).collect()
}
