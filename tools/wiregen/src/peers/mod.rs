//! Peers for a live network: services and clients on real sockets, so that the kernel's own TCP makes the packets.
//!
//! Two programs, `wiregen serve` and `wiregen talk`, each for one network namespace or host. Threads: one per
//! listener or kind of traffic, and a short-lived one per connection. Unlike the rest of this crate they read the
//! clock and open sockets. They end by themselves after the time they are given and hold nothing that a kill
//! would harm; every wait has a limit.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

mod pool;
mod serve;
mod streams;
mod talk;
mod tally;
mod transfers;

pub use serve::{Served, Service};
pub use talk::{Options, talk};
pub use tally::{Outcome, Talked, Tally};

/// How long a client waits for one answer before it gives up: longer than the second or two that TCP needs to
/// repair a loss, and than the 3 s after which an unanswered SYN counts as trouble.
pub const PATIENCE: Duration = Duration::from_secs(4);
/// Connections have threads of their own, by the hundred: what they do needs little stack.
const STACK: usize = 128 << 10;
/// Bytes read or written at once.
const CHUNK: usize = 16 << 10;

/// What a service does, and what a client wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// One request, one response, and the connection is closed: HTTP/1.0.
    Pages,
    /// Connections that are kept, for a question and an answer now and then: a database and its pool.
    Queries,
    /// A few hundred KB from the client, acknowledged by a word.
    Uploads,
    /// Connections on which clients report all the time, and the server is silent: telemetry.
    Streams,
}

impl Role {
    const ALL: [(Role, &str); 4] = [
        (Role::Pages, "pages"),
        (Role::Queries, "queries"),
        (Role::Uploads, "uploads"),
        (Role::Streams, "streams"),
    ];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Role::ALL.iter().find(|(role, _)| role == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

/// A role at an address: `pages=10.0.0.1:8080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub role: Role,
    pub at: SocketAddr,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Endpoint, String> {
        let expected = "give ROLE=ADDRESS:PORT, for example pages=10.0.0.1:8080";
        let (role, at) = text.split_once('=').ok_or(expected)?;
        let role = Role::ALL.iter().find(|(_, name)| *name == role).ok_or_else(|| {
            format!("there is no role {role}; the roles are pages, queries, uploads and streams")
        })?;
        Ok(Endpoint { role: role.0, at: at.parse().map_err(|_| expected)? })
    }
}

/// A thread for one connection or one kind of traffic.
fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<thread::JoinHandle<T>> {
    thread::Builder::new().stack_size(STACK).spawn(work)
}

/// No read or write on this socket lasts longer.
fn limit(socket: &TcpStream, wait: Duration) -> io::Result<()> {
    socket.set_read_timeout(Some(wait))?;
    socket.set_write_timeout(Some(wait))?;
    socket.set_nodelay(true)
}

/// Closes as a client should: says so, and hears the server out.
fn finish(socket: &mut TcpStream) -> io::Result<()> {
    socket.shutdown(Shutdown::Write)?;
    io::copy(socket, &mut io::sink()).map(drop)
}

fn connect(at: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&at, PATIENCE)?;
    limit(&socket, PATIENCE)?;
    Ok(socket)
}

#[cfg(test)]
mod tests;
