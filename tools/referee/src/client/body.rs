//! An answer's body as something to read from, piece by piece.
//!
//! The caller's thread: the runtime that the connection lives in runs while somebody reads, and ends with this.

use std::io::{self, Read};

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use tokio::runtime::Runtime;

pub struct Body {
    runtime: Runtime,
    incoming: Incoming,
    /// Came, and is not read yet.
    rest: Bytes,
}

impl Body {
    pub fn new(runtime: Runtime, incoming: Incoming) -> Body {
        Body { runtime, incoming, rest: Bytes::new() }
    }
}

impl Read for Body {
    /// Waits for as long as nothing comes: what follows a live capture may take hours.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let frame = self.runtime.block_on(self.incoming.frame());
            match frame {
                None => return Ok(0),
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Err(io::Error::other(error)),
            }
        }
        let taken = self.rest.split_to(self.rest.len().min(buffer.len()));
        let room = buffer.get_mut(..taken.len()).unwrap_or_default();
        room.copy_from_slice(&taken);
        Ok(taken.len())
    }
}
