//! The services: a listener thread for each, a thread for each of its connections.
//!
//! Orderly by construction: a connection is closed only after the client has closed it or has everything it asked
//! for and was told so (FIN, then reading to the end), so that no service resets a healthy connection. It may not
//! decide when to stop; its caller does.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::{CHUNK, Endpoint, Role, limit, start};

/// Connections a service holds at most; one more is closed at once and counted.
const MOST_CONNECTIONS: usize = 1024;
/// Longest request line, and most bytes a request asks for or brings.
const LONGEST_LINE: u64 = 4096;
const MOST_BYTES: u64 = 16 << 20;
/// A client that is silent for so long has gone.
const SILENCE: Duration = Duration::from_secs(120);

/// An upload that pauses for so long is asked for the rest, and given up after so many times.
const WAITING: Duration = Duration::from_millis(500);
const MOST_WAITS: u32 = 5;

#[derive(Default)]
struct Counters {
    live: AtomicUsize,
    connections: AtomicU64,
    answers: AtomicU64,
    refused: AtomicU64,
}

/// A service at work; it ends with the process.
pub struct Service {
    role: Role,
    at: SocketAddr,
    counters: Arc<Counters>,
}

impl Service {
    /// Listens and answers from now on. Port 0 takes a free one.
    pub fn start(endpoint: Endpoint) -> io::Result<Service> {
        let listener = TcpListener::bind(endpoint.at)?;
        let at = listener.local_addr()?;
        let counters = Arc::new(Counters::default());
        let role = endpoint.role;
        let of_listener = counters.clone();
        start(move || accept(&listener, role, &of_listener))?;
        Ok(Service { role, at, counters })
    }

    pub fn at(&self) -> SocketAddr {
        self.at
    }

    pub fn served(&self) -> Served {
        Served {
            role: self.role,
            at: self.at,
            connections: self.counters.connections.load(Ordering::Relaxed),
            answers: self.counters.answers.load(Ordering::Relaxed),
            refused: self.counters.refused.load(Ordering::Relaxed),
        }
    }
}

/// What a service did so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    pub role: Role,
    pub at: SocketAddr,
    pub connections: u64,
    pub answers: u64,
    /// Connections beyond what a service holds.
    pub refused: u64,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at {}: {} connections, {} answers",
            self.role, self.at, self.connections, self.answers
        )?;
        if self.refused > 0 { write!(f, ", {} refused", self.refused) } else { Ok(()) }
    }
}

fn accept(listener: &TcpListener, role: Role, counters: &Arc<Counters>) {
    loop {
        // A connection that was gone before it was taken is no reason to stop.
        let Ok((socket, _)) = listener.accept() else { continue };
        counters.connections.fetch_add(1, Ordering::Relaxed);
        if counters.live.fetch_add(1, Ordering::Relaxed) >= MOST_CONNECTIONS {
            counters.live.fetch_sub(1, Ordering::Relaxed);
            counters.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let of_connection = counters.clone();
        let begun = start(move || {
            // How it ended is the client's to say; here it is over either way.
            let _ = connection(socket, role, &of_connection.answers);
            of_connection.live.fetch_sub(1, Ordering::Relaxed);
        });
        if begun.is_err() {
            counters.live.fetch_sub(1, Ordering::Relaxed);
            counters.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn connection(socket: TcpStream, role: Role, answers: &AtomicU64) -> io::Result<()> {
    limit(&socket, SILENCE)?;
    let mut peer = BufReader::with_capacity(CHUNK, socket);
    match role {
        Role::Pages => page(&mut peer, answers)?,
        Role::Queries => loop {
            let question = line(&mut peer)?;
            if question.is_empty() {
                break;
            }
            send(peer.get_mut(), number(&question).ok_or(io::ErrorKind::InvalidData)?)?;
            answers.fetch_add(1, Ordering::Relaxed);
        },
        Role::Uploads => {
            let bytes = number(&line(&mut peer)?).ok_or(io::ErrorKind::InvalidData)?;
            upload(&mut peer, bytes, answers)?;
        }
        Role::Streams => {}
    }
    // What still comes is read to its end: closing with unread bytes would reset the connection.
    io::copy(&mut peer, &mut io::sink())?;
    Ok(())
}

/// `GET /BYTES HTTP/1.0`, a page of so many bytes, and the end of the connection.
fn page(peer: &mut BufReader<TcpStream>, answers: &AtomicU64) -> io::Result<()> {
    let request = line(peer)?;
    while line(peer)?.len() > 2 {}
    let path = request.split(' ').nth(1).and_then(|path| path.strip_prefix('/'));
    let bytes = path.and_then(number).ok_or(io::ErrorKind::InvalidData)?;
    let socket = peer.get_mut();
    socket.write_all(format!("HTTP/1.0 200 OK\r\nContent-Length: {bytes}\r\n\r\n").as_bytes())?;
    send(socket, bytes)?;
    answers.fetch_add(1, Ordering::Relaxed);
    socket.shutdown(Shutdown::Write)
}

/// Takes in so many bytes. While none come it says that it is waiting, as a person on the other end of a bad line
/// would; after a while it gives up, and says that too.
fn upload(peer: &mut BufReader<TcpStream>, bytes: u64, answers: &AtomicU64) -> io::Result<()> {
    peer.get_mut().write_all(b"go\n")?;
    limit(peer.get_ref(), WAITING)?;
    let (mut left, mut waited) = (bytes, 0);
    let mut chunk = [0; CHUNK];
    while left > 0 && waited < MOST_WAITS {
        let most = left.min(CHUNK as u64) as usize;
        match peer.read(&mut chunk[..most]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => (left, waited) = (left - read as u64, 0),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                waited += 1;
                peer.get_mut().write_all(b"waiting\n")?;
            }
            Err(error) => return Err(error),
        }
    }
    limit(peer.get_ref(), SILENCE)?;
    if left == 0 {
        answers.fetch_add(1, Ordering::Relaxed);
        return peer.get_mut().write_all(b"stored\n");
    }
    peer.get_mut().write_all(b"gave up\n")?;
    peer.get_mut().shutdown(Shutdown::Write)
}

/// A line with its end; an empty one if the client has closed.
fn line(peer: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    peer.by_ref().take(LONGEST_LINE).read_line(&mut line)?;
    Ok(line)
}

/// The number a line ends with.
fn number(line: &str) -> Option<u64> {
    let bytes = line.trim_end().rsplit(' ').next()?.parse().ok()?;
    (bytes <= MOST_BYTES).then_some(bytes)
}

fn send(socket: &mut TcpStream, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(b'.').take(bytes), socket).map(drop)
}
