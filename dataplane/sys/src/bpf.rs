//! XDP programs: attaching one through a link that dies with the process, and running one by hand.
//!
//! Main thread and tests; never a worker. Loading programs and reading their maps needs nothing unsafe and is
//! done by the crates that have them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

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
/// (BPF_F_TEST_XDP_LIVE_FRAMES). Returns when all have gone, or as many as one call of the kernel takes.
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
