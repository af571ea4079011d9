//! AF_XDP sockets: UMEM, rings, and frames that have exactly one owner.
//!
//! Opened on the main thread, then moved into a worker, which calls `receive`, `bytes` and `give`: they make no
//! system call (but for the wake-up a driver asks for), don't allocate and don't lock. The public API has no
//! `unsafe fn`: a [`Frame`] can be neither copied nor made, so whoever has one is alone with its bytes until it
//! is given back.

mod busy;
mod observer;

use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::time::Duration;

use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket as XskSocket, TxQueue, Umem};

pub use observer::{Observer, Statistics};

/// Frames moved between a ring and its user at once, at most.
pub const BURST: usize = 64;

/// How long the kernel may take to let go of a queue whose socket was closed: somebody starts again at once.
const LETS_GO: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(50);

/// How a socket is to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    pub interface: &'a str,
    pub queue: u32,
    /// Packets that may wait to be read; a power of two. As many frames besides are with the kernel, to be
    /// filled.
    pub ring: u32,
    /// Bytes of a frame, 2048 or 4096; 256 of them are headroom.
    pub frame_bytes: u32,
    /// Zero-copy or nothing, or else copy mode: the kernel is left no choice that would have to be told.
    pub zero_copy: bool,
    /// [`Socket::busy_poll`] will be used.
    pub busy_poll: bool,
    /// Take packets that come in several frames.
    pub jumbo: bool,
}

/// A socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("a ring of {ring} packets and frames of {frame_bytes} bytes: both are powers of two")]
    Sizes { ring: u32, frame_bytes: u32 },
    #[error("{frames} frames of {frame_bytes} bytes can't be shared with the kernel: {source}")]
    Umem { frames: u32, frame_bytes: u32, source: io::Error },
    #[error("queue {queue} of {interface} can't be bound: {source}")]
    Bind { interface: String, queue: u32, source: io::Error },
}

impl OpenError {
    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            OpenError::Sizes { .. } => None,
            OpenError::Umem { source, .. } | OpenError::Bind { source, .. } => source.raw_os_error(),
        }
    }
}

/// A frame of a UMEM with a packet, or a part of one, in it. It is given back, or its memory is lost.
#[must_use = "a frame that is not given back is lost to its socket"]
pub struct Frame {
    desc: FrameDesc,
}

impl Frame {
    /// Bytes of the packet in this frame.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.desc.lengths().data()
    }

    /// True if it holds no bytes.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The packet goes on in the next frame received.
    #[inline(always)]
    pub fn continues(&self) -> bool {
        self.desc.has_more_frames()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes at {})", self.len(), self.desc.addr())
    }
}

/// One socket with a UMEM of its own.
///
/// Fields are dropped in order; the rings go before the memory they are about.
pub struct Socket {
    rx: RxQueue,
    fill: FillQueue,
    _completion: CompQueue,
    _tx: TxQueue,
    scratch: [FrameDesc; BURST],
    /// Start and size of the UMEM.
    base: NonNull<u8>,
    size: usize,
    _umem: Umem,
    frames: u64,
    huge_pages: bool,
    busy_poll: bool,
    given: u64,
    received: u64,
}

// SAFETY: the socket owns its UMEM, and `base` points into that; all access goes through `&self` or `&mut self`.
// What xsk-rs made is Send by its own word.
unsafe impl Send for Socket {}

impl Socket {
    /// Opens and binds a socket and gives the kernel all its frames. Loads no program.
    ///
    /// # Errors
    /// EOPNOTSUPP: the driver can't do what is asked. EBUSY: another socket has the queue, still after a second: the
    /// kernel lets go of it some time after the file was closed. EINVAL: there is no such queue. EPERM: missing
    /// privilege. ENOBUFS, ENOMEM: the limit on locked memory.
    pub fn open(settings: &Settings<'_>) -> Result<Socket, OpenError> {
        for _ in 0..LETS_GO.as_millis() / AGAIN.as_millis() {
            match Socket::open_now(settings) {
                Err(error) if error.errno() == Some(libc::EBUSY) => std::thread::sleep(AGAIN),
                opened => return opened,
            }
        }
        Socket::open_now(settings)
    }

    fn open_now(settings: &Settings<'_>) -> Result<Socket, OpenError> {
        let Settings { ring, frame_bytes, .. } = *settings;
        let sizes = || OpenError::Sizes { ring, frame_bytes };
        let count = ring.checked_mul(2).and_then(NonZeroU32::new).ok_or_else(sizes)?;
        let config = umem_config(ring, frame_bytes).ok_or_else(sizes)?;
        let (umem, descs, huge_pages) = umem(config, count, frame_bytes)?;
        let (tx, rx, queues) = bind(settings, &umem)?;
        let (fill, completion) = queues.ok_or_else(|| OpenError::Bind {
            interface: settings.interface.to_owned(),
            queue: settings.queue,
            source: io::Error::from_raw_os_error(libc::EBUSY),
        })?;
        // SAFETY: the frame was just made by this UMEM, and the kernel has none of its frames yet.
        let first = unsafe { umem.data(&descs[0]) }.contents().as_ptr();
        let base = NonNull::new(first.cast_mut().wrapping_sub(descs[0].addr())).ok_or_else(sizes)?;
        let mut socket = Socket {
            rx,
            fill,
            _completion: completion,
            _tx: tx,
            scratch: [FrameDesc::default(); BURST],
            base,
            size: count.get() as usize * frame_bytes as usize,
            _umem: umem,
            frames: descs.len() as u64,
            huge_pages,
            busy_poll: false,
            given: 0,
            received: 0,
        };
        if settings.busy_poll {
            socket.busy_poll = busy::prefer(&socket).is_ok();
        }
        for some in descs.chunks(BURST) {
            socket.given += submit(&mut socket.fill, some);
        }
        Ok(socket)
    }

    /// Takes up to [`BURST`] frames, and no more than `frames` has room for, from the receive ring.
    #[inline]
    pub fn receive(&mut self, frames: &mut Vec<Frame>) -> usize {
        let room = (frames.capacity() - frames.len()).min(BURST);
        // SAFETY: the descriptors are overwritten with frames of the one UMEM this socket has.
        let taken = unsafe { self.rx.consume(&mut self.scratch[..room]) };
        frames.extend(self.scratch[..taken].iter().map(|desc| Frame { desc: *desc }));
        self.received += taken as u64;
        taken
    }

    /// Starts loading what is looked at first of a frame's packet: its stamp and its headers. They were written
    /// by another CPU and lie in its caches.
    #[inline(always)]
    pub fn prefetch(&self, frame: &Frame) {
        let at = self.base.as_ptr().wrapping_add(frame.desc.addr());
        crate::prefetch_line(at.wrapping_sub(8));
        crate::prefetch_line(at);
        crate::prefetch_line(at.wrapping_add(63));
    }

    /// The packet's bytes in a frame.
    #[inline(always)]
    pub fn bytes(&self, frame: &Frame) -> &[u8] {
        let (at, len) = (frame.desc.addr(), frame.len());
        debug_assert!(at + len <= self.size, "the kernel names frames of the UMEM");
        // SAFETY: the kernel put `len` bytes at `at` of the UMEM, which lives as long as self; whoever has the
        // Frame is its only owner, and it is written to again only after `give` has taken it, which needs
        // `&mut self`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(at), len) }
    }

    /// The 8 bytes right before the packet, as a number: where an XDP program puts a stamp. 0 if none was put
    /// there since the frame was last given back.
    #[inline(always)]
    pub fn stamp(&self, frame: &Frame) -> u64 {
        let Some(at) = frame.desc.addr().checked_sub(8) else { return 0 };
        // SAFETY: as for `bytes`: `at` is in the headroom of the same frame, 8 bytes before the packet.
        unsafe { self.base.as_ptr().add(at).cast::<u64>().read_unaligned() }
    }

    /// Gives frames back to the kernel to be filled again.
    #[inline]
    pub fn give(&mut self, frames: &mut Vec<Frame>) {
        let mut waiting = 0;
        for frame in frames.drain(..) {
            if let Some(at) = frame.desc.addr().checked_sub(8) {
                // SAFETY: as for `stamp`; `&mut self` and the Frame taken by value exclude any other access.
                unsafe { self.base.as_ptr().add(at).cast::<u64>().write_unaligned(0) };
            }
            self.scratch[waiting] = frame.desc;
            waiting += 1;
            if waiting == BURST {
                self.given += submit(&mut self.fill, &self.scratch);
                waiting = 0;
            }
        }
        self.given += submit(&mut self.fill, &self.scratch[..waiting]);
    }

    /// Wakes the driver if it waits for that. A system call only then.
    #[inline]
    pub fn wake(&mut self) {
        if self.fill.needs_wakeup() {
            // A call that fails (EINTR) is made again at the next turn.
            let _ = self.fill.wakeup(self.rx.fd_mut(), 0);
        }
    }

    /// It was opened for [`Socket::busy_poll`], and the kernel agreed.
    pub fn polls_busily(&self) -> bool {
        self.busy_poll
    }

    /// Runs the driver's receive loop once, on this core. A system call.
    #[inline]
    pub fn busy_poll(&mut self) {
        busy::poll(self);
    }

    /// Frames there are.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Frames the kernel has: those given to it less those received. With those in the user's hands they are
    /// all there are, or one was lost.
    pub fn with_kernel(&self) -> u64 {
        self.given - self.received
    }

    pub fn huge_pages(&self) -> bool {
        self.huge_pages
    }

    /// A second handle, to ask for statistics and modes from another thread.
    ///
    /// # Errors
    /// No more files can be opened.
    pub fn observer(&self) -> io::Result<Observer> {
        Ok(Observer { socket: self.as_fd().try_clone_to_owned()? })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the file belongs to the socket and stays open as long as self.
        unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({} frames, {} with the kernel)", self.frames, self.with_kernel())
    }
}

/// How many the ring took, which is all: see [`FILL_ROOM`].
#[inline(always)]
fn submit(fill: &mut FillQueue, descs: &[FrameDesc]) -> u64 {
    // SAFETY: the frames are of the socket's one UMEM, and each comes from a Frame that was just taken by value
    // or was made with the UMEM: nobody else has it.
    let taken = unsafe { fill.produce(descs) };
    debug_assert_eq!(taken, descs.len(), "the fill ring has room for every frame there is");
    taken as u64
}

/// Places in the fill ring for each packet of the receive ring, which has two frames. As many places as frames would
/// be too few: the kernel says which places it has emptied only after it has handed over the packets, so that
/// frames can come back before there is, as far as anybody can see, room for them. By then it has emptied at most
/// one place for each frame, and at most each frame is waiting: twice the frames is always enough.
const FILL_ROOM: u32 = 4;

fn umem_config(ring: u32, frame_bytes: u32) -> Option<UmemConfig> {
    let mut config = UmemConfig::builder();
    config.frame_size(FrameSize::new(frame_bytes).ok()?);
    config.fill_queue_size(QueueSize::new(ring.checked_mul(FILL_ROOM)?).ok()?);
    // Nothing is sent; the kernel wants the ring all the same.
    config.comp_queue_size(QueueSize::new(64).ok()?);
    config.build().ok()
}

/// On huge pages if the host has any to give.
fn umem(
    config: UmemConfig,
    count: NonZeroU32,
    frame_bytes: u32,
) -> Result<(Umem, Vec<FrameDesc>, bool), OpenError> {
    if let Ok((umem, descs)) = Umem::new(config, count, true) {
        return Ok((umem, descs, true));
    }
    match Umem::new(config, count, false) {
        Ok((umem, descs)) => Ok((umem, descs, false)),
        Err(error) => Err(OpenError::Umem { frames: count.get(), frame_bytes, source: cause(&error) }),
    }
}

type Bound = (TxQueue, RxQueue, Option<(FillQueue, CompQueue)>);

fn bind(settings: &Settings<'_>, umem: &Umem) -> Result<Bound, OpenError> {
    let Settings { interface, queue, ring, frame_bytes, zero_copy, jumbo, .. } = *settings;
    let sizes = || OpenError::Sizes { ring, frame_bytes };
    let refused = |source| OpenError::Bind { interface: interface.to_owned(), queue, source };
    let mut flags = BindFlags::XDP_USE_NEED_WAKEUP;
    match zero_copy {
        true => flags |= BindFlags::XDP_ZEROCOPY,
        false => flags |= BindFlags::XDP_COPY,
    }
    if jumbo {
        flags |= BindFlags::XDP_USE_SG;
    }
    let mut config = SocketConfig::builder();
    config.rx_queue_size(QueueSize::new(ring).map_err(|_| sizes())?);
    config.tx_queue_size(QueueSize::new(64).map_err(|_| sizes())?);
    config.libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD);
    config.bind_flags(flags);
    let name: Interface =
        interface.parse().map_err(|_| refused(io::Error::from_raw_os_error(libc::ENODEV)))?;
    // SAFETY: the UMEM is not shared: this is the only socket ever made from it.
    unsafe { XskSocket::new(config.build(), umem, &name, queue) }.map_err(|error| refused(cause(&error)))
}

/// The kernel's error behind one of xsk-rs's.
fn cause(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let inner = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match inner.and_then(io::Error::raw_os_error) {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::other(error.to_string()),
    }
}
