//! XDP programs: attaching one through a link that dies with the process, and running one by hand.
//!
//! Main thread and tests; never a worker. Loading programs and reading their maps needs nothing unsafe and is
//! done by the crates that have them.

mod load;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub use load::{Kind, Refused, classify_once, filter_socket, load};

/// Where in the kernel an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, before anything is allocated for the packet.
    Native,
    /// In the kernel's generic receive path: works with every driver, slower.
    Generic,
}

impl XdpMode {
    /// XDP_FLAGS_DRV_MODE and XDP_FLAGS_SKB_MODE, include/uapi/linux/if_link.h.
    const fn flags(self) -> u32 {
        match self {
            XdpMode::Native => 1 << 2,
            XdpMode::Generic => 1 << 1,
        }
    }
}

/// A program attached to an interface for as long as this lives. The kernel detaches it when the last process
/// that has it ends, however it ends.
#[derive(Debug)]
pub struct XdpLink {
    _link: OwnedFd,
}

/// Attaches a program in exactly this mode; the kernel chooses no other.
///
/// # Errors
/// EOPNOTSUPP: the driver can't. EBUSY or EEXIST: another program is there. ERANGE or EINVAL: the MTU is too
/// large for it. EPERM: missing privilege.
pub fn attach_xdp(program: BorrowedFd<'_>, ifindex: u32, mode: XdpMode) -> io::Result<XdpLink> {
    let opts = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags: mode.flags(),
        ..Default::default()
    };
    let target = i32::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: `program` is an open file for the call's length, and `opts` is a whole options struct that says
    // its size; the kernel only reads it.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(program.as_raw_fd(), target, libbpf_sys::BPF_XDP, &raw const opts)
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the call succeeded, so `fd` is a new open file that nobody else owns.
    Ok(XdpLink { _link: unsafe { OwnedFd::from_raw_fd(fd) } })
}

/// What of XDP an interface has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpState {
    /// Id of the program attached in its driver.
    pub native: Option<u32>,
    /// Id of the program attached in the generic path.
    pub generic: Option<u32>,
    /// True if what a program redirects to it is sent. A veth does that only while its peer has XDP (or GRO) on.
    /// `None` if the kernel doesn't say.
    pub sends_redirected: Option<bool>,
    /// What its driver can, likewise.
    pub abilities: Option<XdpAbilities>,
}

/// What a driver does for XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpAbilities {
    /// Runs programs, and takes a redirect from them.
    pub native: bool,
    /// Receives into an AF_XDP socket's memory.
    pub zero_copy: bool,
    /// Packets in several buffers.
    pub multi_buffer: bool,
    /// Buffers of one packet with zero-copy at most.
    pub zero_copy_buffers: u32,
}

/// Asks the kernel for the XDP programs and abilities of an interface in the calling thread's namespace.
///
/// # Errors
/// Those of netlink. An interface that isn't there is ENODEV, or has nothing.
pub fn xdp_state(ifindex: u32) -> io::Result<XdpState> {
    /// NETDEV_XDP_ACT_*, include/uapi/linux/netdev.h: BASIC and REDIRECT, NDO_XMIT, XSK_ZEROCOPY, RX_SG.
    const NATIVE: u64 = 0b11;
    const SENDS_REDIRECTED: u64 = 1 << 2;
    const ZERO_COPY: u64 = 1 << 3;
    const MULTI_BUFFER: u64 = 1 << 5;
    let target = i32::try_from(ifindex).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    let mut opts = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    // SAFETY: `opts` is a whole options struct that says its size; the call writes to nothing else.
    let failed = unsafe { libbpf_sys::bpf_xdp_query(target, 0, &raw mut opts) };
    if failed < 0 {
        return Err(io::Error::from_raw_os_error(-failed));
    }
    let id = |id: u32| (id != 0).then_some(id);
    let known = (opts.feature_flags != 0).then_some(opts.feature_flags);
    Ok(XdpState {
        native: id(opts.drv_prog_id),
        generic: id(opts.skb_prog_id),
        sends_redirected: known.map(|features| features & SENDS_REDIRECTED != 0),
        abilities: known.map(|features| XdpAbilities {
            native: features & NATIVE == NATIVE,
            zero_copy: features & ZERO_COPY != 0,
            multi_buffer: features & MULTI_BUFFER != 0,
            zero_copy_buffers: opts.xdp_zc_max_segs.max(1),
        }),
    })
}

/// A program that is loaded already, by its id.
///
/// # Errors
/// ENOENT: there is none any more. EPERM: missing privilege (CAP_SYS_ADMIN).
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: makes a file and touches no memory.
    let fd = unsafe { libbpf_sys::bpf_prog_get_fd_by_id(id) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the call succeeded, so `fd` is a new open file that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A program, as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    pub id: u32,
    /// Its function's name, of which the kernel keeps 15 characters.
    pub name: String,
    /// The hash of its instructions, 16 hexadecimal digits, as bpftool shows it.
    pub tag: String,
}

/// What the kernel knows of a program.
///
/// # Errors
/// A kernel or file that isn't of BPF.
pub fn describe(program: BorrowedFd<'_>) -> io::Result<Program> {
    // Zero asks for none of the lists that could be written to memory of ours.
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut size = size_of::<libbpf_sys::bpf_prog_info>() as u32;
    // SAFETY: `program` is open for the call's length; `info` is live, of the size that is passed, and holds no pointer.
    let failed =
        unsafe { libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut size) };
    if failed < 0 {
        return Err(io::Error::from_raw_os_error(-failed));
    }
    let name = info.name.iter().map(|&letter| letter.cast_unsigned()).take_while(|&letter| letter != 0);
    let name = String::from_utf8_lossy(&name.collect::<Vec<u8>>()).into_owned();
    let tag = info.tag.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Program { id: info.id, name, tag })
}

/// Where a packet that a program is run on pretends to have come from (`struct xdp_md`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// 0: nowhere.
    pub ifindex: u32,
    pub queue: u32,
}

impl Arrival {
    /// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    fn context(self, len: usize) -> [u32; 6] {
        [0, u32::try_from(len).unwrap_or(u32::MAX), 0, self.ifindex, self.queue, 0]
    }
}

/// What a program made of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// XDP_DROP 1, XDP_PASS 2, XDP_TX 3, XDP_REDIRECT 4; XDP_ABORTED 0.
    pub action: u32,
    /// The packet afterwards, with its metadata before it.
    pub data: Vec<u8>,
    /// Bytes of metadata in front.
    pub meta: usize,
}

/// Runs a program once on a packet, which goes nowhere.
///
/// # Errors
/// EINVAL: fewer than 14 bytes, or a queue or interface that isn't there.
pub fn run_once(program: BorrowedFd<'_>, packet: &[u8], from: Arrival) -> io::Result<Run> {
    let context = from.context(packet.len());
    let mut after = [0_u32; 6];
    let mut data = vec![0; packet.len() + 256];
    let mut opts = libbpf_sys::bpf_test_run_opts {
        data_in: packet.as_ptr().cast(),
        data_size_in: u32::try_from(packet.len()).unwrap_or(u32::MAX),
        data_out: data.as_mut_ptr().cast(),
        data_size_out: u32::try_from(data.len()).unwrap_or(u32::MAX),
        ctx_in: context.as_ptr().cast(),
        ctx_size_in: size_of_val(&context) as u32,
        ctx_out: after.as_mut_ptr().cast(),
        ctx_size_out: size_of_val(&after) as u32,
        repeat: 1,
        ..options()
    };
    test_run(program, &mut opts)?;
    data.truncate(opts.data_size_out as usize);
    // With metadata the context counts from its start: `data` is where the packet begins.
    Ok(Run { action: opts.retval, data, meta: after[0] as usize })
}

/// Runs a program on `times` copies of a frame that go where it sends them, as received packets do
/// (BPF_F_TEST_XDP_LIVE_FRAMES). Returns when all have gone. If the program is neither attached nor [`ready`], a
/// call of more than one copy takes the kernel some 25 ms besides.
///
/// # Errors
/// Those of the kernel, EINTR among them: some of the copies may have gone by then.
pub fn run_live(program: BorrowedFd<'_>, frame: &[u8], from: Arrival, times: u32) -> io::Result<()> {
    const LIVE_FRAMES: u32 = 1 << 1;
    let context = from.context(frame.len());
    let mut opts = libbpf_sys::bpf_test_run_opts {
        data_in: frame.as_ptr().cast(),
        data_size_in: u32::try_from(frame.len()).unwrap_or(u32::MAX),
        ctx_in: context.as_ptr().cast(),
        ctx_size_in: size_of_val(&context) as u32,
        repeat: i32::try_from(times).unwrap_or(i32::MAX),
        flags: LIVE_FRAMES,
        batch_size: 64,
        ..options()
    };
    test_run(program, &mut opts)
}

/// A program that is ready to be run, for as long as this lives.
#[derive(Debug)]
pub struct Ready {
    _link: XdpLink,
    /// Its loopback is what the program is attached to; nobody is in it.
    _namespace: OwnedFd,
}

/// Makes a program one of those that the kernel calls directly. It does that for every call of [`run_live`] and
/// undoes it afterwards, at more than 10 ms each (kernel/bpf/dispatcher.c), unless the program is one already
/// because it is attached somewhere. Here that is an interface which no packet ever passes.
///
/// # Errors
/// EPERM: missing privilege (CAP_SYS_ADMIN, for a network namespace), and those of [`attach_xdp`].
pub fn ready(program: BorrowedFd<'_>) -> io::Result<Ready> {
    /// The loopback is the first interface of every namespace.
    const LOOPBACK: u32 = 1;
    let attach = || {
        // SAFETY: moves the calling thread, which is a new one and ends right after, into a new network
        // namespace; its files and memory stay shared.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let namespace = std::fs::File::open("/proc/thread-self/ns/net")?.into();
        Ok(Ready { _link: attach_xdp(program, LOOPBACK, XdpMode::Generic)?, _namespace: namespace })
    };
    let done = std::thread::scope(|scope| scope.spawn(attach).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Keeps signals from the calling thread, for good: [`run_live`] ends early when one comes, and doesn't say how many
/// copies have gone. They reach the process's other threads.
///
/// # Errors
/// None that is known.
pub fn block_signals() -> io::Result<()> {
    // SAFETY: sigset_t is integers, for which zero is a value; both calls get a live, whole one, and a thread's
    // mask concerns no memory.
    let failed = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut())
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(failed)) }
}

fn options() -> libbpf_sys::bpf_test_run_opts {
    libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as libbpf_sys::size_t,
        ..Default::default()
    }
}

fn test_run(program: BorrowedFd<'_>, opts: &mut libbpf_sys::bpf_test_run_opts) -> io::Result<()> {
    // SAFETY: `program` is open for the call's length; every pointer in `opts` was taken from a buffer of the
    // caller's that lives until after this call, with its length beside it.
    let failed = unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), opts) };
    if failed < 0 { Err(io::Error::from_raw_os_error(-failed)) } else { Ok(()) }
}
