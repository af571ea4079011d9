//! Capture files built byte by byte, for the tests of this folder and the ones above it.

use std::io::Write;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::source) enum Order {
    Little,
    Big,
}

impl Order {
    pub(in crate::source) fn u16(self, value: u16) -> [u8; 2] {
        if self == Order::Little { value.to_le_bytes() } else { value.to_be_bytes() }
    }

    pub(in crate::source) fn u32(self, value: u32) -> [u8; 4] {
        if self == Order::Little { value.to_le_bytes() } else { value.to_be_bytes() }
    }

    pub(in crate::source) fn u64(self, value: u64) -> [u8; 8] {
        if self == Order::Little { value.to_le_bytes() } else { value.to_be_bytes() }
    }
}

pub(in crate::source) const MICRO: u32 = 0xa1b2_c3d4;
pub(in crate::source) const NANO: u32 = 0xa1b2_3c4d;
pub(in crate::source) const MODIFIED: u32 = 0xa1b2_cd34;

pub(in crate::source) struct PcapFile {
    pub(in crate::source) bytes: Vec<u8>,
    order: Order,
    modified: bool,
}

impl PcapFile {
    pub(in crate::source) fn new(order: Order, magic: u32, snap_len: u32, network: u32) -> PcapFile {
        let mut bytes = Vec::new();
        bytes.extend(order.u32(magic));
        bytes.extend(order.u16(2));
        bytes.extend(order.u16(4));
        bytes.extend([0; 8]);
        bytes.extend(order.u32(snap_len));
        bytes.extend(order.u32(network));
        PcapFile { bytes, order, modified: magic == MODIFIED }
    }

    /// A record whose lengths are whatever the test says.
    pub(in crate::source) fn raw(
        &mut self,
        sec: u32,
        frac: u32,
        cap: u32,
        orig: u32,
        data: &[u8],
    ) -> &mut PcapFile {
        for word in [sec, frac, cap, orig] {
            self.bytes.extend(self.order.u32(word));
        }
        if self.modified {
            self.bytes.extend([0xee; 8]);
        }
        self.bytes.extend(data);
        self
    }

    pub(in crate::source) fn record(&mut self, sec: u32, frac: u32, data: &[u8]) -> &mut PcapFile {
        self.raw(sec, frac, data.len() as u32, data.len() as u32, data)
    }
}

/// `count` packets one millisecond apart, each of `len` bytes of its own number.
pub(in crate::source) fn plain_pcap(count: u32, len: usize) -> Vec<u8> {
    let mut file = PcapFile::new(Order::Little, NANO, 0, 1);
    for i in 0..count {
        file.record(1, i * 1_000_000, &vec![i as u8; len]);
    }
    file.bytes
}

pub(in crate::source) struct PcapngFile {
    pub(in crate::source) bytes: Vec<u8>,
    pub(in crate::source) order: Order,
}

impl PcapngFile {
    pub(in crate::source) fn new(order: Order) -> PcapngFile {
        let mut file = PcapngFile { bytes: Vec::new(), order };
        file.section(order);
        file
    }

    pub(in crate::source) fn section(&mut self, order: Order) -> &mut PcapngFile {
        self.order = order;
        let mut body = order.u32(0x1a2b_3c4d).to_vec();
        body.extend(order.u16(1));
        body.extend(order.u16(0));
        body.extend([0xff; 8]);
        self.block(0x0a0d_0d0a, &body)
    }

    pub(in crate::source) fn block(&mut self, kind: u32, body: &[u8]) -> &mut PcapngFile {
        let len = (body.len().next_multiple_of(4) + 12) as u32;
        self.bytes.extend(self.order.u32(kind));
        self.bytes.extend(self.order.u32(len));
        self.bytes.extend(body);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.bytes.extend(self.order.u32(len));
        self
    }

    pub(in crate::source) fn interface(
        &mut self,
        link: u16,
        snap: u32,
        options: &[(u16, &[u8])],
    ) -> &mut PcapngFile {
        let mut body = self.order.u16(link).to_vec();
        body.extend([0; 2]);
        body.extend(self.order.u32(snap));
        for (code, value) in options {
            body.extend(self.order.u16(*code));
            body.extend(self.order.u16(value.len() as u16));
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        if !options.is_empty() {
            body.extend([0; 4]);
        }
        self.block(1, &body)
    }

    pub(in crate::source) fn packet(&mut self, interface: u32, ticks: u64, data: &[u8]) -> &mut PcapngFile {
        self.packet_claiming(interface, ticks, data.len() as u32, data)
    }

    pub(in crate::source) fn packet_claiming(
        &mut self,
        interface: u32,
        ticks: u64,
        cap_len: u32,
        data: &[u8],
    ) -> &mut PcapngFile {
        let mut body = Vec::new();
        for word in [interface, (ticks >> 32) as u32, ticks as u32, cap_len, data.len() as u32] {
            body.extend(self.order.u32(word));
        }
        body.extend(data);
        self.block(6, &body)
    }

    pub(in crate::source) fn obsolete_packet(
        &mut self,
        interface: u16,
        ticks: u64,
        data: &[u8],
    ) -> &mut PcapngFile {
        let mut body = self.order.u16(interface).to_vec();
        body.extend(self.order.u16(7));
        for word in [(ticks >> 32) as u32, ticks as u32, data.len() as u32, data.len() as u32] {
            body.extend(self.order.u32(word));
        }
        body.extend(data);
        self.block(2, &body)
    }

    pub(in crate::source) fn simple_packet(&mut self, orig_len: u32, data: &[u8]) -> &mut PcapngFile {
        let mut body = self.order.u32(orig_len).to_vec();
        body.extend(data);
        self.block(3, &body)
    }
}

pub(in crate::source) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub(in crate::source) fn lz4(bytes: &[u8]) -> Vec<u8> {
    use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).content_checksum(true);
    let mut out = FrameEncoder::with_frame_info(info, Vec::new());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub(in crate::source) fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut out = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    out.include_checksum(true).unwrap();
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}
