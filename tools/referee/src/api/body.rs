//! Bodies that are made while they are sent, and connections whose reader has to take something now and then.
//!
//! API thread; whoever makes the pieces may be a thread for files.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, Sleep, sleep};

/// Pieces that may wait for a reader.
const AHEAD: usize = 4;
/// Bytes of one.
pub const PIECE: usize = 256 << 10;

/// A body of pieces that another task or thread sends.
pub struct Pieces {
    pieces: Receiver<io::Result<Bytes>>,
    /// Bytes to come, if it is known.
    left: Option<u64>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Pieces {
    /// With what counts it, as long as it is read.
    pub fn new(
        left: Option<u64>,
        place: Option<OwnedSemaphorePermit>,
    ) -> (Sender<io::Result<Bytes>>, Pieces) {
        let (sender, pieces) = channel(AHEAD);
        (sender, Pieces { pieces, left, _place: place })
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = ready!(self.pieces.poll_recv(cx));
        if let (Some(left), Some(Ok(piece))) = (&mut self.left, &piece) {
            *left = left.saturating_sub(piece.len() as u64);
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Where a thread for files writes what a client is to read.
pub struct Sink {
    pieces: Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Sink {
    pub fn new(pieces: Sender<io::Result<Bytes>>) -> Sink {
        Sink { pieces, piece: Vec::with_capacity(PIECE) }
    }

    fn send(&mut self, piece: io::Result<Bytes>) -> io::Result<()> {
        self.pieces.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Has the client know that this is not all.
    pub fn fail(mut self, error: io::Error) {
        let _ = self.send(Err(error));
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            // Who has nothing to say learns, too, that nobody listens any more.
            return match self.pieces.is_closed() {
                true => Err(io::ErrorKind::BrokenPipe.into()),
                false => Ok(()),
            };
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.send(Ok(piece.into()))
    }
}

/// A connection that ends when its reader takes nothing for too long.
pub struct Patient<S> {
    stream: S,
    patience: Duration,
    timer: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<S> Patient<S> {
    pub fn new(stream: S, patience: Duration) -> Patient<S> {
        Patient { stream, patience, timer: Box::pin(sleep(patience)), waiting: false }
    }

    /// What a write came to; when it can't go on for long, an error.
    fn watch<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = false;
            return written;
        }
        if !self.waiting {
            self.waiting = true;
            self.timer.as_mut().reset(Instant::now() + self.patience);
        }
        ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_cut() {
        let (near, _far) = tokio::net::UnixStream::pair().unwrap();
        let mut near = Patient::new(near, Duration::from_millis(10));
        let error = loop {
            if let Err(error) = poll_fn(|cx| Pin::new(&mut near).poll_write(cx, &[1; 4096])).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
